"""Signals during a select: handlers run, deadlines hold, no event is lost (PEP 475)."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fdmux import EVENT_READ, Selector
from fdmux._native import backend_names

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from types import FrameType

    from tests.compiled import HasLoop
    from tests.python.conftest import NativeUser

    Pair = tuple[socket.socket, socket.socket]
    Handler = Callable[[int, FrameType | None], object]

LONG = 30.0  # no wait may last this long


@pytest.fixture(params=backend_names())
def selector(request: pytest.FixtureRequest) -> Iterator[Selector]:
    with Selector(str(request.param)) as selector:
        yield selector


@contextlib.contextmanager
def alarm(handler: Handler, after: float, every: float = 0.0) -> Iterator[None]:
    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, after, every)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


class HandlerError(Exception):
    """What a handler of these tests raises."""


def raise_error(_number: int, _frame: FrameType | None) -> None:
    raise HandlerError


def test_handler_runs_during_the_wait_and_the_deadline_holds(
    selector: Selector,
) -> None:
    handled: list[float] = []
    started = time.monotonic()
    with alarm(lambda *_: handled.append(time.monotonic()), 0.005, 0.02):
        assert selector.select(0.1) == []
    elapsed = time.monotonic() - started
    assert 0.1 <= elapsed < LONG
    assert handled[0] - started < 0.1
    assert len(handled) >= 2


def test_wait_without_a_deadline_goes_on_after_a_handler(selector: Selector) -> None:
    handled: list[int] = []

    def wake_at_the_third(number: int, _frame: FrameType | None) -> None:
        handled.append(number)
        if len(handled) >= 3:
            selector.native.wake()

    # Repeated: a signal that arrives just before the wait does not interrupt it.
    with alarm(wake_at_the_third, 0.005, 0.005):
        assert selector.select() == []  # the handler's wake, not its signal
    assert len(handled) >= 3


def test_exception_of_a_handler_leaves_select(selector: Selector, pair: Pair) -> None:
    key = selector.register(pair[0], EVENT_READ)
    with pytest.raises(HandlerError), alarm(raise_error, 0.005):
        selector.select(LONG)
    pair[1].send(b"x")
    assert selector.select(0) == [(key, EVENT_READ)]


def test_keyboard_interrupt_leaves_select_and_loses_nothing(
    selector: Selector, pair: Pair
) -> None:
    key = selector.register(pair[0], EVENT_READ)

    def interrupt(number: int, frame: FrameType | None) -> None:
        pair[1].send(b"x")  # at the same moment
        signal.default_int_handler(number, frame)

    with pytest.raises(KeyboardInterrupt), alarm(interrupt, 0.005):
        selector.select(LONG)
    assert selector.select(LONG) == [(key, EVENT_READ)]


def wait_on(wait: Callable[[float], object]) -> None:
    """Repeat the wait while it returns true."""
    while wait(LONG):
        pass


@pytest.mark.slow
def test_interrupt_is_served_under_saturated_native_traffic(
    selector: Selector, pair: Pair, native_user: Callable[[HasLoop], NativeUser]
) -> None:
    """C functions that are called without end do not keep Ctrl-C waiting."""
    native = native_user(selector)
    pair[1].send(b"x")
    token = native.watch(pair[0].fileno())
    for wait in (selector.select, selector.native.dispatch):
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt), alarm(signal.default_int_handler, 0.03):
            wait_on(wait)
        # 100 ms are promised; the rest is for a slow machine.
        assert time.monotonic() - started < 0.13 + 0.5
    assert native.counts.called > 1000
    assert native.unwatch(token) == 0


@pytest.mark.slow
def test_storm_of_signals_loses_no_event_and_no_deadline(
    selector: Selector, pair: Pair
) -> None:
    """A handler runs 1,000 times a second while messages go to and fro."""
    rounds = 2000
    handled: list[int] = []
    here, there = pair
    there.setblocking(True)

    def answer() -> None:
        for _ in range(rounds):
            there.sendall(there.recv(1))

    thread = threading.Thread(target=answer)
    selector.register(here, EVENT_READ)
    received = 0
    with alarm(lambda number, _: handled.append(number), 0.001, 0.001):
        thread.start()
        for _ in range(rounds):
            here.send(b"x")
            ((_, events),) = selector.select(LONG)
            assert events == EVENT_READ
            received += len(here.recv(10))
        started = time.monotonic()
        assert selector.select(0.05) == []
        assert 0.05 <= time.monotonic() - started < LONG
        thread.join()
    assert received == rounds
    assert len(handled) > 10
