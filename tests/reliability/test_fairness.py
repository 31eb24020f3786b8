"""Fairness: no source of events can keep the loop from serving the others.

A loop is fair if it serves whatever is ready within a bounded number of iterations.
Most tests count iterations, since a busy machine does not change these.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import selectors
import socket
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.compiled import NativeLoad, load_beside
from tests.reliability.echo_process import EchoProcess, LineProcess

from fdmux import SelectorEventLoop, StreamServer, wait_readable
from fdmux.streams.echo import EchoHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.reliability.conftest import Bars

    from fdmux import Stream

LONG = 60.0
PINGERS = 100
ROUNDS = 50
# What one stream receives in one iteration, at most: limits.RECEIVE_MAX.
TURN_MAX = 64 * 1024


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("fair-posts")
    return load_beside(__file__, "native_posts.c", folder)


@pytest.fixture(scope="module")
def timers(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("fair-timers")
    return load_beside(__file__, "native_timers.c", folder)


class Echoes:
    """A pair of sockets in a loop; counts the iterations that serve it."""

    def __init__(self, loop: SelectorEventLoop) -> None:
        self._left, self._right = socket.socketpair()
        self.turns = 0
        loop.register_read(self._left, self._serve)
        self._right.send(b"x")

    def _serve(self, sock: socket.socket) -> None:
        assert sock.recv(10) == b"x"
        self._right.send(b"x")
        self.turns += 1

    def close(self) -> None:
        self._left.close()
        self._right.close()


@pytest.fixture
def loop() -> Iterator[SelectorEventLoop]:
    with SelectorEventLoop() as loop:
        yield loop


@pytest.fixture
def echoes(loop: SelectorEventLoop) -> Iterator[Echoes]:
    with contextlib.closing(Echoes(loop)) as echoes:
        yield echoes


@pytest.mark.commit
def test_io_progresses_beside_a_timer_that_rearms_itself(
    bars: Bars, loop: SelectorEventLoop, echoes: Echoes
) -> None:
    fired = 0

    def again() -> None:
        nonlocal fired
        fired += 1
        loop.call_later(0, again)

    again()
    for _ in range(1000):
        loop.run_once()
    bars.at_least(1000, "io turns beside a timer of 0 s", echoes.turns)
    bars.at_least(1000, "turns of the timer of 0 s", fired)


@pytest.mark.commit
def test_io_progresses_beside_calls_that_post_themselves(
    bars: Bars, loop: SelectorEventLoop, echoes: Echoes
) -> None:
    def again() -> None:
        loop.call_soon_threadsafe(again)

    for _ in range(10):
        again()
    for _ in range(1000):
        loop.run_once()
    bars.at_least(1000, "io turns beside posts without end", echoes.turns)


@pytest.mark.commit
def test_io_progresses_beside_native_posts_without_end(
    bars: Bars, loop: SelectorEventLoop, echoes: Echoes, posts: ctypes.CDLL
) -> None:
    """While native code is busy, C iterates alone until a Python callback is ready."""
    load = NativeLoad(posts, loop)
    assert load.call("storm_start") == 0
    for _ in range(1000):
        loop.run_once()
    bars.at_least(1000, "io turns beside native posts without end", echoes.turns)
    bars.at_least(1000, "native posts meanwhile", load.call("storm_end"))
    loop.run_once(0)


@pytest.mark.commit
def test_io_progresses_beside_a_native_timer_that_rearms_itself(
    bars: Bars, loop: SelectorEventLoop, echoes: Echoes, timers: ctypes.CDLL
) -> None:
    load = NativeLoad(timers, loop)
    timer = load.call("restless_start")
    assert timer > 0
    for _ in range(1000):
        loop.run_once()
    fired = load.call("restless_end", ctypes.c_uint64(timer))
    bars.at_least(1000, "io turns beside a native timer of 0 s", echoes.turns)
    bars.at_least(1000, "turns of the native timer of 0 s", fired)


@pytest.mark.commit
@pytest.mark.slow
def test_io_progresses_beside_threads_that_post(
    bars: Bars, loop: SelectorEventLoop, echoes: Echoes, posts: ctypes.CDLL
) -> None:
    load = NativeLoad(posts, loop)
    total = 4 * 50_000
    faults = (ctypes.c_int64 * 4)()
    load.call("posts_start", 4, ctypes.c_int64(total // 4))
    deadline = time.monotonic() + LONG
    iterations = 0
    while load.call("posts_arrived") < total and time.monotonic() < deadline:
        loop.run_once()
        iterations += 1
    load.call("posts_end", faults)
    assert sum(faults) == 0
    # Each thread wakes the loop once, when it ends; that may cut a wait short.
    bars.at_most(4, "iterations without io, of a post storm", iterations - echoes.turns)


# ---- one who sends at full speed, and a hundred who want one byte ------------------


def connect(address: tuple[str, int]) -> socket.socket:
    sock = socket.create_connection(address, timeout=LONG)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


def fill(sock: socket.socket, rest: int) -> int:
    """Send until the kernel takes no more, or ``rest`` is sent; return how much."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < rest:
            sent += sock.send(bytes(min(rest - sent, TURN_MAX)))
    return sent


def drain(sock: socket.socket) -> int:
    received = 0
    with contextlib.suppress(BlockingIOError):
        while data := sock.recv(TURN_MAX):
            received += len(data)
    return received


class CountingHandler(EchoHandler):
    """Echo, and count messages of one byte, which only the pingers send."""

    pings = 0

    def on_data(  # type: ignore[override] # there a function, for speed
        self, _stream: Stream, data: bytes
    ) -> bytes:
        self.pings += len(data) == 1
        return data


@pytest.mark.commit
@pytest.mark.slow
def test_pingers_are_served_in_few_iterations_beside_a_fast_sender(
    bars: Bars, loop: SelectorEventLoop
) -> None:
    """Run the server one iteration at a time beside a client that always sends."""
    handler = CountingHandler()
    worst = most = 0
    with contextlib.ExitStack() as stack:
        server = StreamServer("127.0.0.1", 0, handler, loop=loop)
        stack.enter_context(server)
        sender = stack.enter_context(connect(server.address))
        pingers = [stack.enter_context(connect(server.address)) for _ in range(PINGERS)]
        while server.stats.open < PINGERS + 1:
            loop.run_once(0.1)
        for _ in range(ROUNDS):
            drain(sender)
            fill(sender, 1 << 20)
            handler.pings = 0
            send_pings(pingers)
            iterations = 0
            while handler.pings < PINGERS:
                before = server.stats.bytes_in
                loop.run_once(1.0)
                iterations += 1
                most = max(most, server.stats.bytes_in - before)
                assert iterations < 1000, "pingers are starved"
            worst = max(worst, iterations)
            loop.run_once(0)  # sends the last answers
            await_answers(pingers)
    bars.at_most(3, "iterations until 100 beside a fast sender are served", worst)
    bars.at_most(TURN_MAX + PINGERS, "bytes of one iteration", most, "B")


def send_pings(pingers: list[socket.socket]) -> None:
    """Send a byte from each, and wait until the server's kernel has them all."""
    deadline = time.monotonic() + LONG
    for sock in pingers:
        sock.send(b"p")
    for sock in pingers:
        while unacknowledged(sock):
            assert time.monotonic() < deadline


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that the peer's kernel does not have yet; tcp(7), SIOCOUTQ."""
    count = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(count, sys.byteorder)


def await_answers(pingers: list[socket.socket]) -> None:
    for sock in pingers:
        assert wait_readable([sock], LONG)
        assert sock.recv(2) == b"p"


def ping_all(address: tuple[str, int], rounds: int) -> list[float]:
    """Let 100 clients ping at once, ``rounds`` times; latencies in ms."""
    latencies = []
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.EpollSelector())
        for _ in range(PINGERS):
            sock = stack.enter_context(connect(address))
            selector.register(sock, selectors.EVENT_READ)
        for _ in range(rounds):
            start = time.perf_counter()
            for key in list(selector.get_map().values()):
                key.fileobj.send(b"p")  # type: ignore[union-attr] # sockets, all
            missing = PINGERS
            while missing:
                ready = selector.select(LONG)
                assert ready, f"{missing} pingers are starved"
                for key, _events in ready:
                    assert drain(key.fileobj) == 1  # type: ignore[arg-type] # sockets
                    latencies.append((time.perf_counter() - start) * 1000)
                missing -= len(ready)
    return latencies


def p99(latencies: list[float]) -> float:
    return sorted(latencies)[int(len(latencies) * 0.99)]


@contextlib.contextmanager
def fast_sender_at(address: tuple[str, int]) -> Iterator[None]:
    """Send at full speed, and read what comes back, from another process."""
    with LineProcess("full_speed_client.py", str(address[1])) as process:
        assert process.hear() == "sending"
        yield
        process.say("enough")
        echoed = int(process.hear())
        assert echoed > 1 << 20, "the fast sender itself was starved"


@pytest.mark.nightly
def test_pingers_are_served_in_time_beside_a_fast_sender(bars: Bars) -> None:
    with EchoProcess() as server:
        unloaded = p99(ping_all(server.address, 200))
        with fast_sender_at(server.address):
            loaded = p99(ping_all(server.address, 200))
    bars.at_most(
        5,
        f"p99 of 100 pingers beside a fast sender, over {unloaded:.2f} ms without",
        loaded / unloaded,
        "times",
    )


@pytest.mark.commit
@pytest.mark.slow
def test_stop_ends_a_storm(
    bars: Bars, loop: SelectorEventLoop, posts: ctypes.CDLL
) -> None:
    """Endless native posts do not delay `stop` from another thread."""
    load = NativeLoad(posts, loop)
    assert load.call("storm_start") == 0
    timer = threading.Timer(0.05, loop.stop)
    timer.start()
    start = time.monotonic()
    loop.run(None)
    seconds = time.monotonic() - start
    load.call("storm_end")
    timer.join()
    loop.run_once(0)
    bars.at_most(5, "stop under native posts without end", seconds, "s")
