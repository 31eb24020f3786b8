"""A loop that only streams keep busy still serves everything else in time.

Two streams of one loop send a message to and fro, so the loop has work in every
iteration; after some exchanges the test does something else, and waits for its effect.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.client import add_stream
from fdmux.streams.stream import Stream, StreamHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG = 30.0
MANY = 10_000


class Thrower(StreamHandler):
    """Sends back what it receives, and counts; acts for the test in one exchange."""

    def __init__(self, loop: SelectorEventLoop) -> None:
        self.loop = loop
        self.throws = 0
        self.at: dict[int, Callable[[], object]] = {}
        self.closed: list[Exception | None] = []

    def on_data(self, _stream: Stream, data: bytes) -> bytes:
        self.throws += 1
        if self.throws == MANY:
            self.loop.stop()
        deed = self.at.get(self.throws)
        if deed is not None:
            deed()
        return data

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        self.closed.append(error)


@pytest.fixture
def loop() -> Iterator[SelectorEventLoop]:
    with SelectorEventLoop() as loop:
        yield loop


@pytest.fixture
def thrower(loop: SelectorEventLoop) -> Thrower:
    thrower = Thrower(loop)
    left, right = socket.socketpair()
    add_stream(loop, left, thrower).write(b"ball")
    add_stream(loop, right, thrower)
    return thrower


def stop_noting(thrower: Thrower, notes: list[int]) -> Callable[[], None]:
    """Return a callback that records the number of exchanges and stops the run."""

    def note() -> None:
        notes.append(thrower.throws)
        thrower.loop.stop()

    return note


def test_the_ball_is_thrown_until_stop(
    loop: SelectorEventLoop, thrower: Thrower
) -> None:
    loop.run()
    assert thrower.throws == MANY
    assert loop.run_once(LONG) == 1, "what the last callback wrote was sent"
    assert thrower.throws == MANY + 1


def test_a_posted_call_is_not_starved(
    loop: SelectorEventLoop, thrower: Thrower
) -> None:
    notes: list[int] = []
    note = stop_noting(thrower, notes)
    thrower.at[50] = lambda: loop.call_soon_threadsafe(note)
    loop.run()
    assert notes
    assert notes[0] - 50 <= 1


def test_a_timer_is_not_starved(loop: SelectorEventLoop, thrower: Thrower) -> None:
    notes: list[int] = []
    note = stop_noting(thrower, notes)
    thrower.at[50] = lambda: loop.call_later(0, note)
    loop.run()
    assert notes
    assert notes[0] - 50 <= 2


def test_a_descriptor_is_not_starved(
    loop: SelectorEventLoop,
    thrower: Thrower,
    pair: tuple[socket.socket, socket.socket],
) -> None:
    notes: list[int] = []
    note = stop_noting(thrower, notes)
    pair[1].send(b"x")
    thrower.at[50] = lambda: loop.register_read(pair[0], lambda _sock: note())
    loop.run()
    loop.unregister(pair[0])
    assert notes
    assert notes[0] - 50 <= 3


def test_another_thread_is_not_starved(
    loop: SelectorEventLoop, thrower: Thrower
) -> None:
    notes: list[int] = []
    note = stop_noting(thrower, notes)
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(note,))
    thrower.at[50] = thread.start
    loop.run()
    thread.join(LONG)
    assert notes
    assert notes[0] < MANY


def test_a_signal_handler_runs_while_streams_are_busy(
    loop: SelectorEventLoop, thrower: Thrower
) -> None:
    notes: list[int] = []
    note = stop_noting(thrower, notes)
    before = signal.signal(signal.SIGUSR1, lambda *_: note())
    try:
        thrower.at[50] = lambda: os.kill(os.getpid(), signal.SIGUSR1)
        loop.run()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert notes
    assert notes[0] - 50 <= 1


def test_ctrl_c_leaves_the_run_and_loses_nothing(
    loop: SelectorEventLoop, thrower: Thrower
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    thrower.at[50] = interrupt
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert thrower.throws == 50
    add_stream(loop, *kick(loop, thrower))
    thrower.at[60] = loop.stop
    loop.run()
    assert thrower.throws >= 60
    assert not thrower.closed


def kick(
    loop: SelectorEventLoop, thrower: Thrower
) -> tuple[socket.socket, StreamHandler]:
    """Start a second exchange: the stream that has ended held the first message."""
    left, right = socket.socketpair()
    add_stream(loop, left, thrower).write(b"ball")
    return right, thrower


def test_a_raising_callback_ends_its_stream_alone(
    loop: SelectorEventLoop, thrower: Thrower
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    thrower.at[50] = fail
    add_stream(loop, *kick(loop, thrower))
    loop.run()
    assert thrower.throws == MANY
    assert sum(isinstance(error, ZeroDivisionError) for error in thrower.closed) == 1


def test_iterations_are_counted(loop: SelectorEventLoop, thrower: Thrower) -> None:
    loop.run(max_iterations=20)
    assert 0 < thrower.throws <= 20


def test_stop_ends_the_wait_of_quiet_streams(loop: SelectorEventLoop) -> None:
    left, right = socket.socketpair()
    add_stream(loop, left, StreamHandler()).write(b"ball")
    add_stream(loop, right, StreamHandler())  # drops it
    timer = threading.Thread(target=loop.stop)
    loop.call_later(0, timer.start)
    loop.run(timeout=None)
    timer.join(LONG)


def test_a_child_of_fork_is_not_served(
    loop: SelectorEventLoop, thrower: Thrower
) -> None:
    children: list[int] = []

    def fork() -> None:
        children.append(os.fork())

    thrower.at[50] = fork
    try:
        loop.run()
    except BaseException:
        if children == [0]:
            os._exit(7)
        raise
    if children == [0]:
        os._exit(8)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 7
    assert thrower.throws == MANY
