"""`StreamServer.drain`: clients finish, or are cut off at the deadline."""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from tests.python.streams.recorder import LONG, run_until

from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.server import StreamServer
from fdmux.streams.stream import Stream, StreamHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.certificates import Certificates
    from tests.python.conftest import FakeClock

ANY = "127.0.0.1"


class Polite(StreamHandler):
    """Echoes; records who was told to stop, and says so to the client."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.told = threading.Event()
        self.opened = threading.Semaphore(0)

    def on_connect(self, _stream: Stream) -> None:
        self.calls.append("connect")
        self.opened.release()

    def on_data(self, _stream: Stream, data: bytes) -> bytes:
        return data

    def on_stopping(self, stream: Stream) -> None:
        self.calls.append("stopping")
        stream.write(b"bye")
        self.told.set()

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        assert error is None
        self.calls.append("close")


@pytest.fixture
def handler() -> Polite:
    return Polite()


@pytest.fixture
def timed(clock: FakeClock) -> Iterator[SelectorEventLoop]:
    """A loop on the fake clock."""
    with SelectorEventLoop(clock=clock) as loop:
        yield loop


def connect(server: StreamServer) -> socket.socket:
    return socket.create_connection(server.address, timeout=LONG)


def read_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(100), b""))


def test_drain_lets_clients_finish(handler: Polite) -> None:
    server = StreamServer(ANY, 0, handler)
    thread = server.run_in_thread()
    address = server.address
    with connect(server) as sock:
        assert handler.opened.acquire(timeout=LONG)
        server.drain(None)
        assert sock.recv(3, socket.MSG_WAITALL) == b"bye"
        sock.sendall(b"the rest")
        assert sock.recv(8, socket.MSG_WAITALL) == b"the rest"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    thread.join(LONG)
    assert not thread.is_alive()
    assert handler.calls == ["connect", "stopping", "close"]
    assert (server.stats.open, server.stats.unfinished) == (0, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_drain_refuses_new_clients_while_old_ones_finish(handler: Polite) -> None:
    with StreamServer(ANY, 0, handler) as server:
        thread = server.run_in_thread()
        with connect(server) as sock:
            assert handler.opened.acquire(timeout=LONG)
            server.drain(None)
            assert sock.recv(3, socket.MSG_WAITALL) == b"bye"
            # An echo later the listener is closed: that takes one iteration.
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            with pytest.raises(ConnectionRefusedError):
                connect(server)
        thread.join(LONG)


def test_listener_is_closed_without_an_event(
    handler: Polite, timed: SelectorEventLoop
) -> None:
    """Who connects to a socket that is still open, but not served, would be reset."""
    server = StreamServer(ANY, 0, handler, loop=timed)
    server.start()
    with connect(server):
        run_until(timed, lambda: handler.calls == ["connect"])
        server.drain(None)
        timed.run_once(0)
        with pytest.raises(ConnectionRefusedError):
            connect(server)
        server.stop()


def test_deadline_cuts_off_who_is_left(
    handler: Polite, timed: SelectorEventLoop, clock: FakeClock
) -> None:
    done: list[int] = []
    server = StreamServer(ANY, 0, handler, loop=timed)
    server.start()
    with connect(server) as first, connect(server) as second:
        run_until(timed, lambda: handler.calls == ["connect"] * 2)
        server.drain(5, on_done=done.append)
        run_until(timed, lambda: handler.calls.count("stopping") == 2)
        first.shutdown(socket.SHUT_WR)
        run_until(timed, lambda: "close" in handler.calls)
        clock.advance(4.9)
        timed.run_once(0)
        assert done == []
        clock.advance(0.2)
        run_until(timed, lambda: done)
        assert done == [1]
        assert handler.calls.count("close") == 2
        assert (server.stats.unfinished, server.stats.open) == (1, 0)
        assert read_end(second) == b"bye"


def test_second_drain_only_shortens(
    handler: Polite, timed: SelectorEventLoop, clock: FakeClock
) -> None:
    done: list[int] = []
    server = StreamServer(ANY, 0, handler, loop=timed)
    server.start()
    with connect(server):
        run_until(timed, lambda: handler.calls == ["connect"])
        server.drain(5)
        server.drain(100)
        server.drain(2, on_done=done.append)
        timed.run_once(0)
        clock.advance(2.1)
        run_until(timed, lambda: done)
    assert done == [1]
    assert handler.calls == ["connect", "stopping", "close"]


def test_stop_ends_a_drain(handler: Polite, timed: SelectorEventLoop) -> None:
    done: list[int] = []
    server = StreamServer(ANY, 0, handler, loop=timed)
    server.start()
    with connect(server) as sock:
        run_until(timed, lambda: handler.calls == ["connect"])
        server.drain(5, on_done=done.append)
        run_until(timed, lambda: "stopping" in handler.calls)
        server.stop()
        assert read_end(sock) == b"bye"
    for _ in range(5):
        timed.run_once(0)
    assert done == []
    assert server.stats.unfinished == 0


def test_server_starts_again_after_a_drain(
    handler: Polite, timed: SelectorEventLoop
) -> None:
    server = StreamServer(ANY, 0, handler, loop=timed)
    for _ in range(2):
        done: list[int] = []
        server.start()
        with connect(server):
            run_until(timed, lambda: "connect" in handler.calls)
        server.drain(None, on_done=done.append)
        run_until(timed, lambda done=done: done)  # type: ignore[misc] # a loop's own
        assert done == [0]
        handler.calls.clear()


def test_drain_of_a_server_that_is_not_started(handler: Polite) -> None:
    server = StreamServer(ANY, 0, handler)
    server.drain()
    with server:
        server.run_in_thread()
        with connect(server) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"


def test_drain_before_run_ends_that_run(handler: Polite) -> None:
    server = StreamServer(ANY, 0, handler)
    server.start()
    server.drain()
    server.run()
    assert server.stats.accepted == 0


def test_connections_in_the_kernel_are_served(
    handler: Polite, timed: SelectorEventLoop
) -> None:
    """Those that the kernel has accepted are not reset, in any number."""
    done: list[int] = []
    server = StreamServer(ANY, 0, handler, loop=timed)
    server.start()
    with contextlib.ExitStack() as socks:
        clients = [socks.enter_context(connect(server)) for _ in range(100)]
        for sock in clients:
            sock.sendall(b"x")
            sock.shutdown(socket.SHUT_WR)
        server.drain(None, on_done=done.append)
        run_until(timed, lambda: done)
        assert {bytes(sorted(read_end(sock))) for sock in clients} == {b"bexy"}
    assert server.stats.accepted == 100
    assert handler.calls.count("stopping") == 100


def test_drain_in_a_signal_handler(handler: Polite) -> None:
    server = StreamServer(ANY, 0, handler)
    server.start()
    previous = signal.signal(signal.SIGUSR1, lambda *_: server.drain(0))
    try:
        with connect(server) as sock:
            threading.Timer(0, signal.raise_signal, [signal.SIGUSR1]).start()
            server.run()
            assert server.stats.open == 0
            read_end(sock)
    finally:
        signal.signal(signal.SIGUSR1, previous)


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_exception_in_on_stopping(
    kind: type[BaseException],
    timed: SelectorEventLoop,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each client is told, whatever the callback of another raises."""

    class Failing(Polite):
        def on_stopping(self, stream: Stream) -> None:
            super().on_stopping(stream)
            raise kind

        def on_close(self, _stream: Stream, error: Exception | None) -> None:
            self.calls.append(type(error).__name__)

    failing = Failing()
    server = StreamServer(ANY, 0, failing, loop=timed)
    server.start()
    done: list[int] = []
    raised = 0
    with connect(server), connect(server):
        run_until(timed, lambda: failing.calls == ["connect"] * 2)
        server.drain(math.inf, on_done=done.append)
        for _ in range(10):
            try:
                timed.run_once(0)
            except KeyboardInterrupt:
                raised += 1
    run_until(timed, lambda: done)
    assert failing.calls.count("stopping") == 2
    is_kept = kind is KeyboardInterrupt
    assert raised == (2 if is_kept else 0)
    assert failing.calls.count("ZeroDivisionError") == (0 if is_kept else 2)
    assert ("a callback of" in caplog.text) != is_kept


def test_drain_with_tls(handler: Polite, certificates: Certificates) -> None:
    """A client in its handshake is told once it is connected."""
    ours, theirs = certificates.server_context(), certificates.client_context()
    with StreamServer(ANY, 0, handler, ssl=ours) as server:
        thread = server.run_in_thread()
        with connect(server) as early, connect(server) as late:
            encrypted = theirs.wrap_socket(early, server_hostname="localhost")
            with encrypted:
                assert handler.opened.acquire(timeout=LONG)
                server.drain(None)
                assert encrypted.recv(3) == b"bye"
                assert handler.calls == ["connect", "stopping"]
                with theirs.wrap_socket(late, server_hostname="localhost") as other:
                    assert other.recv(3) == b"bye"
                    other.unwrap()
                encrypted.unwrap()
        thread.join(LONG)
        assert not thread.is_alive()
        assert handler.calls.count("stopping") == 2
        assert server.stats.unfinished == 0


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"timeout": "1"}, TypeError, "timeout is '1'"),
        ({"timeout": math.nan}, ValueError, "NaN"),
        ({"on_done": 1}, TypeError, "on_done is 1"),
    ],
)
def test_wrong_arguments(
    arguments: dict[str, object], kind: type[Exception], text: str, handler: Polite
) -> None:
    server = StreamServer(ANY, 0, handler)
    with pytest.raises(kind, match=text):
        server.drain(**arguments)  # type: ignore[arg-type] # that is the test
