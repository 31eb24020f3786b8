"""Timers of the loop fire in order, never early, and not once cancelled."""

from __future__ import annotations

import functools
import math
import random
from typing import TYPE_CHECKING

import pytest

from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.loop.timers import CANCELLED_KEPT_MAX, TimerQueue

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.python.conftest import FakeClock

    from fdmux.loop.timers import TimerHandle


@pytest.fixture
def timed(clock: FakeClock) -> Iterator[SelectorEventLoop]:
    """A loop whose time stands still until the test advances it."""
    with SelectorEventLoop(clock=clock) as loop:
        yield loop


def cancel_first(handles: list[TimerHandle]) -> None:
    handles[0].cancel()


def test_order_is_deadline_then_sequence() -> None:
    queue = TimerQueue()
    order = random.Random(5)
    expected = sorted((order.randrange(20), i) for i in range(500))
    calls: list[tuple[int, int]] = []
    for i, deadline in sorted((i, deadline) for deadline, i in expected):
        entry = (deadline, i)
        queue.add(deadline, functools.partial(calls.append, entry), None)
    for handle in queue.take_due(20):
        handle.run()
    assert calls == expected


def test_timer_is_not_early(timed: SelectorEventLoop, clock: FakeClock) -> None:
    called: list[str] = []
    timed.call_later(10, called.append, "ten")
    timed.call_at(clock.now + 5, called.append, "five")
    clock.advance(4.999)
    assert timed.run_once(0) == 0
    clock.advance(0.001)
    assert timed.run_once(0) == 1
    clock.advance(100)
    assert timed.run_once(0) == 1
    assert called == ["five", "ten"]


def test_timer_is_not_early_on_the_real_clock(loop: SelectorEventLoop) -> None:
    fired: list[float] = []
    deadlines = [loop.time() + n * 0.0007 for n in range(20)]
    for deadline in deadlines:
        loop.call_at(deadline, lambda: fired.append(loop.time()))
    while len(fired) < 20:
        loop.run_once(30)
    assert all(at >= due for at, due in zip(fired, deadlines, strict=True))


def test_wait_ends_at_the_deadline_not_at_the_timeout(loop: SelectorEventLoop) -> None:
    loop.call_later(0.002, int)
    started = loop.time()
    while not loop.run_once(30):
        pass
    assert loop.time() - started < 5


def test_keyword_arguments_are_passed(timed: SelectorEventLoop) -> None:
    called: list[dict[str, int]] = []

    def record(**kwargs: int) -> None:
        called.append(kwargs)

    timed.call_later(0, record, callback=1, when=2)
    timed.run_once(0)
    assert called == [{"callback": 1, "when": 2}]


def test_nan_is_refused(timed: SelectorEventLoop) -> None:
    with pytest.raises(ValueError, match="NaN"):
        timed.call_later(math.nan, int)
    with pytest.raises(ValueError, match="NaN"):
        timed.call_at(math.nan, int)
    assert timed.run_once(0) == 0


@pytest.mark.parametrize("wrong", ["1", None, []])
def test_time_must_be_a_number(timed: SelectorEventLoop, wrong: float) -> None:
    with pytest.raises(TypeError):
        timed.call_later(wrong, int)
    with pytest.raises(TypeError):
        timed.call_at(wrong, int)


@pytest.mark.parametrize("delay", [-1, -1e300, -math.inf, 0])
def test_past_means_the_next_iteration(timed: SelectorEventLoop, delay: float) -> None:
    timed.call_later(delay, int)
    assert timed.run_once(30) == 1


@pytest.mark.parametrize("delay", [math.inf, 1e300, 2**31 / 1000])
def test_far_future_never_comes(
    timed: SelectorEventLoop, clock: FakeClock, delay: float
) -> None:
    handle = timed.call_later(delay, pytest.fail)
    clock.advance(1e6)
    timed.call_soon_threadsafe(int)
    assert timed.run_once(None) == 1
    handle.cancel()


def test_timer_armed_in_a_timer_fires_in_the_next_iteration(
    timed: SelectorEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    called: list[str] = []

    def again() -> None:
        called.append("timer")
        timed.call_later(0, again)
        timed.call_later(-5, called.append, "past")

    timed.register_write(pair[0], lambda _: called.append("write"))
    again()
    timed.run(30, max_iterations=2)
    assert called == ["timer", *["write", "past", "timer"] * 2]


def test_cancelled_timer_does_not_fire(
    timed: SelectorEventLoop, clock: FakeClock
) -> None:
    handle = timed.call_later(1, pytest.fail)
    handle.cancel()
    handle.cancel()
    assert handle.is_cancelled
    clock.advance(2)
    assert timed.run_once(0) == 0


def test_timer_cancelled_by_one_that_is_due_with_it_does_not_fire(
    timed: SelectorEventLoop,
) -> None:
    handles: list[TimerHandle] = []
    timed.call_later(-1, cancel_first, handles)
    handles.append(timed.call_later(0, pytest.fail))
    assert timed.run_once(0) == 1


def test_timer_may_cancel_itself(timed: SelectorEventLoop) -> None:
    handles: list[TimerHandle] = []
    handles.append(timed.call_later(0, cancel_first, handles))
    assert timed.run_once(0) == 1
    assert timed.run_once(0) == 0


def test_cancelled_timers_do_not_pile_up() -> None:
    queue = TimerQueue()
    kept = queue.add(7.0, int, None)
    for i in range(10_000):
        queue.add(1e9 + i, int, None).cancel()
        assert len(queue) <= 2 * CANCELLED_KEPT_MAX
    assert queue.next_deadline == 7.0
    kept.cancel()
    assert queue.next_deadline == math.inf
    assert queue.take_due(math.inf) == []


def test_many_random_timers_keep_order_and_cancellation() -> None:
    """Compare with a sorted list as the model."""
    order = random.Random(11)
    queue = TimerQueue()
    fired: list[tuple[float, int]] = []
    handles = []
    for i in range(3000):
        entry = (order.random() * 100, i)
        call = functools.partial(fired.append, entry)
        handles.append((entry, queue.add(entry[0], call, i)))
    cancelled = order.sample(handles, 2000)
    for _, handle in cancelled:
        handle.cancel()
    dead = {entry for entry, _ in cancelled}
    now = 0.0
    while now < 100:
        now += order.random() * 5
        for handle in queue.take_due(now):
            handle.run()
            assert handle.deadline <= now
    assert fired == sorted(entry for entry, _ in handles if entry not in dead)
