"""Guest: its descriptor is readable exactly when the loop has work to dispatch.

The host is poll(2), on the real descriptor and in real time, as promised to users.
"""

from __future__ import annotations

import errno
import math
import selectors
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

import fdmux
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.loop.guest import Guest
from fdmux.selector import Selector
from fdmux.streams.client import add_stream
from fdmux.streams.server import StreamServer
from fdmux.streams.stream import Stream, StreamHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.compiled import HasLoop
    from tests.python.conftest import FakeClock, NativeUser

    Pair = tuple[socket.socket, socket.socket]

SOON = 0.002
LONG = 10.0


class Host:
    """A foreign loop with one guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.dispatch_count = 0
        self._selector = selectors.PollSelector()
        self._selector.register(guest.fileno(), selectors.EVENT_READ)

    def is_readable(self, timeout: float = 0.0) -> bool:
        return bool(self._selector.select(timeout))

    def turn(self, timeout: float = LONG) -> int:
        """Wait for the descriptor, then dispatch, as every host does."""
        assert self.is_readable(timeout), "the descriptor stayed silent"
        self.dispatch_count += 1
        return self.guest.dispatch()

    def run_until(self, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LONG
        while not is_done():
            assert time.monotonic() < deadline
            self.turn()

    def settle(self, dispatches_max: int = 3) -> None:
        """Dispatch until nothing is ready; fail if that never happens."""
        for _ in range(dispatches_max):
            if not self.is_readable():
                return
            self.guest.dispatch()
        assert not self.is_readable(), "the descriptor stays readable"


@pytest.fixture
def guest() -> Iterator[Guest]:
    with Guest() as guest:
        yield guest


@pytest.fixture
def host(guest: Guest) -> Host:
    return Host(guest)


def boom(*_: object) -> None:
    raise ZeroDivisionError("boom")


# ---- what makes the descriptor readable ----------------------------------------------


def test_nothing_to_do_is_silence(host: Host) -> None:
    assert not host.is_readable()
    assert host.guest.deadline() is None
    assert host.guest.dispatch() == 0
    host.settle()


def test_ready_socket_makes_it_readable_and_is_called_once_a_dispatch(
    host: Host, pair: Pair
) -> None:
    received: list[bytes] = []
    host.guest.loop.register_read(pair[0], lambda sock: received.append(sock.recv(1)))
    assert not host.is_readable()
    pair[1].send(b"ab")
    assert host.turn() == 1
    assert host.is_readable()  # level-triggered: one byte is left
    assert host.turn() == 1
    assert received == [b"a", b"b"]
    host.settle(0)


def test_python_timer_makes_it_readable_at_its_time(host: Host) -> None:
    called: list[float] = []
    loop = host.guest.loop
    due = loop.time() + SOON
    loop.call_at(due, lambda: called.append(time.monotonic()))
    assert host.guest.deadline() == pytest.approx(due, abs=0.0005)
    host.run_until(lambda: bool(called))
    assert called[0] >= due
    assert host.dispatch_count <= 2
    host.settle()
    assert host.guest.deadline() is None


def test_earlier_timer_is_heard_of_outside_of_dispatch(host: Host) -> None:
    called: list[str] = []
    loop = host.guest.loop
    loop.call_later(3600, called.append, "late")
    loop.call_later(SOON, called.append, "soon")
    host.run_until(lambda: bool(called))
    assert called == ["soon"]
    host.settle()
    assert host.guest.deadline() == pytest.approx(loop.time() + 3600, abs=60)


def test_timers_that_callbacks_arm_come_one_after_another(host: Host) -> None:
    called: list[int] = []

    def again() -> None:
        called.append(len(called))
        if len(called) < 5:
            host.guest.loop.call_later(0.0002, again)

    host.guest.loop.call_later(0, again)
    host.run_until(lambda: len(called) == 5)
    assert host.dispatch_count <= 10  # no spin in between
    host.settle()


def test_cancelled_timer_costs_one_dispatch_at_most(host: Host) -> None:
    host.guest.loop.call_later(0, boom).cancel()
    handle = host.guest.loop.call_later(0.0005, boom)
    handle.cancel()
    if host.is_readable(0.01):
        assert host.turn() == 0
    host.settle(0)
    assert host.guest.deadline() is None


def test_timer_for_ever_is_none(host: Host) -> None:
    host.guest.loop.call_at(math.inf, boom)
    host.guest.loop.call_later(1e300, boom)
    assert not host.is_readable()
    assert host.guest.dispatch() == 0
    host.settle(0)


def test_clock_of_the_loop_may_be_another(clock: FakeClock) -> None:
    called: list[int] = []
    with SelectorEventLoop(clock=clock) as loop, Guest(loop) as guest:
        host = Host(guest)
        loop.call_later(SOON, called.append, 1)
        assert host.turn() == 0  # by its own clock it is not due
        clock.advance(SOON)
        host.run_until(lambda: bool(called))
        host.settle()


def test_native_timer_and_post_run_in_dispatch(
    host: Host, native_user: Callable[[HasLoop], NativeUser]
) -> None:
    user = native_user(host.guest.loop)
    user.timer(SOON)
    assert host.guest.deadline() is not None
    host.run_until(lambda: user.counts.called == 1)
    assert host.dispatch_count <= 2
    assert user.post() == 0
    host.run_until(lambda: user.counts.called == 2)
    host.settle()


def test_call_from_another_thread_makes_it_readable(host: Host) -> None:
    called: list[int] = []
    thread = threading.Thread(
        target=host.guest.loop.call_soon_threadsafe, args=(called.append, 1)
    )
    thread.start()
    host.run_until(lambda: called == [1])
    thread.join()
    host.settle()


def test_calls_that_calls_make_are_heard(host: Host) -> None:
    called: list[int] = []
    loop = host.guest.loop
    loop.call_soon_threadsafe(loop.call_soon_threadsafe, called.append, 1)
    host.run_until(lambda: called == [1])
    assert host.dispatch_count <= 3
    host.settle()


@pytest.mark.parametrize("is_written_outside", [False, True])
def test_streams_live_in_a_guest(host: Host, is_written_outside: bool) -> None:
    class Client(StreamHandler):
        received = b""

        def on_data(self, _stream: Stream, data: bytes) -> None:
            self.received += data

    loop = host.guest.loop
    left, right = socket.socketpair()
    client = Client()
    stream = add_stream(loop, left, client)
    add_stream(loop, right, EchoHandler())
    if is_written_outside:
        stream.write(b"hello")  # leaves at once
    else:
        loop.call_soon_threadsafe(stream.write, b"hello")
    host.run_until(lambda: client.received == b"hello")
    host.settle()
    assert host.dispatch_count <= 8


class EchoHandler(StreamHandler):
    def on_data(self, _stream: Stream, data: bytes) -> bytes:
        return data


def test_stream_server_serves_in_a_guest(host: Host) -> None:
    with (
        StreamServer("127.0.0.1", 0, EchoHandler(), loop=host.guest.loop) as server,
        socket.create_connection(server.address, timeout=LONG) as client,
    ):
        received = b""
        client.sendall(b"hello")
        client.setblocking(False)
        deadline = time.monotonic() + LONG
        while received != b"hello" and time.monotonic() < deadline:
            if host.is_readable(0.01):
                host.guest.dispatch()
            with suppress(BlockingIOError):
                received += client.recv(100)
    assert received == b"hello"


# ---- errors --------------------------------------------------------------------------


def test_exception_leaves_from_dispatch_and_the_rest_follows(host: Host) -> None:
    called: list[str] = []
    loop = host.guest.loop
    loop.call_soon_threadsafe(boom)
    loop.call_soon_threadsafe(called.append, "posted")
    loop.call_later(0, boom)
    loop.call_later(0, called.append, "timer")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            host.turn()
    host.run_until(lambda: sorted(called) == ["posted", "timer"])
    assert host.dispatch_count <= 4
    host.settle()


def test_exception_of_a_socket_loses_neither_sockets_nor_calls(
    host: Host, pair: Pair
) -> None:
    called: list[object] = []
    loop = host.guest.loop

    def raise_once(sock: socket.socket) -> None:
        loop.unregister(sock)
        boom()

    loop.register_write(pair[0], raise_once)
    loop.register_write(pair[1], lambda sock: called.append(sock.send(b"")))
    loop.call_soon_threadsafe(called.append, "posted")
    with pytest.raises(ZeroDivisionError):
        host.run_until(lambda: False)
    host.run_until(lambda: "posted" in called and 0 in called)


def test_written_to_a_stream_before_an_exception_is_sent(host: Host) -> None:
    left, right = socket.socketpair()
    with right:
        stream = add_stream(host.guest.loop, left, StreamHandler())

        def write_and_raise() -> None:
            stream.write(b"hello")
            boom()

        host.guest.loop.call_soon_threadsafe(write_and_raise)
        with pytest.raises(ZeroDivisionError):
            host.turn()
        assert right.recv(100) == b"hello"
        host.settle()


def test_error_hook_keeps_exceptions_from_the_host() -> None:
    errors: list[Exception] = []
    with (
        SelectorEventLoop(error_hook=lambda error, _: errors.append(error)) as loop,
        Guest(loop) as guest,
    ):
        loop.call_soon_threadsafe(boom)
        assert Host(guest).turn() == 1
    assert len(errors) == 1


def test_signal_handler_runs_in_dispatch(host: Host) -> None:
    called: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: called.append(1))
    try:
        host.guest.loop.call_soon_threadsafe(signal.raise_signal, signal.SIGUSR1)
        assert host.turn() == 1
        assert called == [1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_dispatch_within_a_callback_is_refused(host: Host) -> None:
    host.guest.loop.call_soon_threadsafe(host.guest.dispatch)
    with pytest.raises(RuntimeError, match="running already"):
        host.turn()
    host.settle()


def test_current_is_the_loop_of_the_guest(host: Host) -> None:
    found: list[object] = []
    host.guest.loop.call_soon_threadsafe(lambda: found.append(fdmux.current()))
    host.turn()
    assert found == [host.guest.loop.native]
    with pytest.raises(RuntimeError):
        fdmux.current()


# ---- life ----------------------------------------------------------------------------


def test_other_selectors_are_refused() -> None:
    with (
        SelectorEventLoop(selectors.PollSelector()) as loop,
        pytest.raises(TypeError, match=r"fdmux\.Selector"),
    ):
        Guest(loop)


def test_backend_without_a_descriptor_is_refused() -> None:
    with (
        SelectorEventLoop(Selector("poll")) as loop,
        pytest.raises(OSError, match="fd of the loop") as caught,
    ):
        Guest(loop)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_loop_has_one_guest_at_a_time() -> None:
    with SelectorEventLoop() as loop:
        with Guest(loop), pytest.raises(RuntimeError, match="has one already"):
            Guest(loop)
        with Guest(loop) as guest:
            assert guest.dispatch() == 0


def test_given_loop_stays_the_callers() -> None:
    called: list[int] = []
    with SelectorEventLoop() as loop:
        with Guest(loop) as guest:
            loop.call_later(SOON, called.append, 1)
        guest.close()  # idempotent
        loop.call_later(0, called.append, 0)
        while len(called) < 2:
            loop.run_once(LONG)
        assert loop.native.stats().timer_live == 0
    assert called == [0, 1]


def test_timer_armed_before_there_was_a_guest_is_carried() -> None:
    called: list[int] = []
    with SelectorEventLoop() as loop:
        loop.call_later(SOON, called.append, 1)
        with Guest(loop) as guest:
            Host(guest).run_until(lambda: called == [1])


@pytest.mark.parametrize("name", ["fileno", "deadline", "dispatch", "__enter__"])
def test_closed_guest_says_so(name: str) -> None:
    guest = Guest()
    guest.close()
    with pytest.raises(fdmux.LoopClosed, match="guest"):
        getattr(guest, name)()
    with pytest.raises(fdmux.LoopClosed):
        guest.loop.call_later(0, boom)


def test_guest_of_a_loop_that_is_closed_says_so() -> None:
    with SelectorEventLoop() as loop:
        guest = Guest(loop)
        loop.close()
        with pytest.raises(fdmux.LoopClosed):
            guest.dispatch()
        guest.close()
        with pytest.raises(fdmux.LoopClosed):
            Guest(loop)


def test_callback_may_not_close_the_guest(host: Host) -> None:
    host.guest.loop.call_soon_threadsafe(host.guest.close)
    with pytest.raises(RuntimeError, match="it is running"):
        host.turn()
    assert host.guest.dispatch() == 0
