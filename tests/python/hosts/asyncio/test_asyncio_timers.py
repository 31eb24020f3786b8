"""Timers of EventLoop: a heap in C, without those that were cancelled."""

from __future__ import annotations

import asyncio
import gc
import heapq
import math
import sys
import time
import tracemalloc
import weakref
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.python.hosts.asyncio.asyncio_loops import (
    KINDS,
    Loop,
    TimerHandle,
    errors_of,
    kind_of,
    make_loop,
    needs_iteration,
    nothing,
    run_for,
    turn,
)

from fdmux import _delivery
from fdmux.hosts.asyncio import EventLoop

if TYPE_CHECKING:
    from collections.abc import Callable

loop = pytest.fixture(params=KINDS)(make_loop)
kind = pytest.fixture(params=KINDS)(kind_of)
LATER = 1000.0
MANY = 1_000_000


class Clock:
    """A clock that a test sets."""

    def __init__(self, loop: Loop) -> None:
        self.now = 0.0
        loop.time = self  # type: ignore[method-assign] # as fake clocks do
        # What is waited for, passes.
        selector = loop._selector
        select = selector.select

        def advance(timeout: float | None = None) -> list[object]:
            self.now += timeout or 0.0
            return cast("list[object]", select(0))

        selector.select = advance  # type: ignore[assignment, method-assign] # the same

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(loop: Loop) -> Clock:
    return Clock(loop)


# ---- order ---------------------------------------------------------------------------


def test_timers_run_by_deadline(loop: Loop, clock: Clock) -> None:
    ran: list[tuple[object, float]] = []
    for when in (5.0, 1.0, 3.0, 4, 2.0, True, Fraction(7, 2)):
        loop.call_at(cast("float", when), lambda w: ran.append((w, clock.now)), when)
    run_for(loop, 10)
    assert ran == [(when, when) for when in (1, 1, 2, 3, Fraction(7, 2), 4, 5)]


@needs_iteration
def test_equal_deadlines_run_in_order_of_adding() -> None:
    loop = cast("Loop", EventLoop())
    ran: list[int] = []
    timers = [loop.call_at(1.0, ran.append, i) for i in range(1000)]
    for timer in timers[::3]:
        timer.cancel()
    turn(loop)
    assert ran == [i for i in range(1000) if i % 3 != 0]
    loop.close()


def test_timer_never_runs_early(loop: Loop) -> None:
    late: list[float] = []

    def note(when: float) -> None:
        late.append(time.monotonic() - when)

    for delay in (0.0, 0.001, 0.0123, 0.02):
        when = loop.time() + delay
        loop.call_at(when, note, when)
    run_for(loop, 0.05)
    assert len(late) == 4
    assert min(late) >= -time.get_clock_info("monotonic").resolution


def test_time_is_monotonic_time(loop: Loop) -> None:
    for _ in range(1000):
        before, now, after = time.monotonic(), loop.time(), time.monotonic()
        assert before <= now <= after


NUMBERS = st.one_of(
    st.floats(allow_nan=False),
    st.integers(min_value=-(1 << 70), max_value=1 << 70),
    st.fractions(),
    st.booleans(),
    st.sampled_from([0.0, -0.0, 1.0, math.inf, -math.inf, sys.float_info.max]),
)


@needs_iteration
@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("aaac"), NUMBERS, st.integers(0, 1 << 20))))
def test_heap_is_a_sorted_list(steps: list[tuple[str, float, int]]) -> None:
    loop = cast("Loop", EventLoop())
    alive: list[TimerHandle] = []
    added: dict[TimerHandle, int] = {}
    for number, (step, when, which) in enumerate(steps):
        if step == "a" or not alive:
            timer = cast("TimerHandle", loop.call_at(when, nothing, number))
            alive.append(timer)
            added[timer] = number
        else:
            timer = alive.pop(which % len(alive))
            timer.cancel()
            assert not timer._scheduled
        heap = list(loop._scheduled)
        assert len(loop._scheduled) == len(heap) == len(alive)
        assert {id(timer) for timer in heap} == {id(timer) for timer in alive}
        keys = [
            (float(timer.when()), added[cast("TimerHandle", timer)]) for timer in heap
        ]
        assert all(keys[(i - 1) // 2] <= key for i, key in enumerate(keys) if i)
    due = [timer for timer in alive if timer.when() < 0]
    due.sort(key=lambda timer: (float(timer.when()), added[timer]))
    Clock(loop)
    loop._stopping = True
    ran: list[int] = []
    for timer in due:
        timer._callback = ran.append
    loop._run_once()
    assert ran == [added[timer] for timer in due]
    assert all(not timer._scheduled for timer in due)
    loop.close()


# ---- deadlines of all kinds ----------------------------------------------------------


@pytest.mark.parametrize("when", [math.inf, sys.float_info.max, 1 << 70, 1e300])
def test_far_deadline_does_not_fire_and_is_waited_for(loop: Loop, when: float) -> None:
    timer = loop.call_at(when, nothing)
    run_for(loop, 0.001)
    assert list(loop._scheduled) == [timer]
    timer.cancel()


@pytest.mark.parametrize(
    "when", [-math.inf, -1, -1e300, 0, False, Fraction(1, 3), -(1 << 70)]
)
def test_past_deadline_is_due_at_once(loop: Loop, when: float) -> None:
    ran: list[None] = []
    loop.call_at(when, ran.append, None)
    turn(loop)
    assert ran == [None]


@pytest.mark.parametrize("delay", [-math.inf, -5, 0, -0.0, False, Fraction(-1, 3)])
def test_past_delay_is_due_at_once(loop: Loop, delay: float) -> None:
    ran: list[None] = []
    loop.call_later(delay, ran.append, None)
    turn(loop)
    assert ran == [None]


@needs_iteration
def test_nan_is_due_at_once_and_does_not_hold_up_others() -> None:
    loop = cast("Loop", EventLoop())
    ran: list[str] = []
    for name, when in (("a", 1.0), ("nan", math.nan), ("b", 2.0), ("c", 0.0)):
        loop.call_at(when, ran.append, name)
    loop.call_later(math.nan, ran.append, "later")
    turn(loop)
    assert ran == ["nan", "later", "c", "a", "b"]
    assert len(loop._scheduled) == 0
    loop.close()


def test_number_that_is_no_float_is_an_overflow(loop: Loop) -> None:
    with pytest.raises(OverflowError):
        loop.call_later(10**400, nothing)


@needs_iteration
def test_deadline_that_cannot_be_used_is_refused_when_it_is_given() -> None:
    loop = EventLoop()
    for when, error in (("1", TypeError), (1j, TypeError), (10**400, OverflowError)):
        with pytest.raises(error):
            loop.call_at(cast("float", when), nothing)
    assert len(loop._scheduled) == 0  # type: ignore[arg-type] # see Scheduled
    assert loop.call_at(cast("float", Decimal(3)), nothing).when() == 3
    loop.close()


def test_decimal_delay_is_a_type_error(loop: Loop) -> None:
    with pytest.raises(TypeError):
        loop.call_later(cast("float", Decimal(1)), nothing)


# ---- cancelling ----------------------------------------------------------------------


def test_cancelled_timer_does_not_run(loop: Loop) -> None:
    ran: list[int] = []
    timers = [loop.call_at(i, ran.append, i) for i in range(10)]
    timers[0].cancel()
    timers[5].cancel()
    timers[9].cancel()
    turn(loop)
    assert ran == [1, 2, 3, 4, 6, 7, 8]


def test_timer_that_is_due_may_be_cancelled_by_one_before_it(loop: Loop) -> None:
    ran: list[int] = []
    others: list[asyncio.TimerHandle] = []

    def cancel() -> None:
        others[0].cancel()

    loop.call_at(1, cancel)
    others.append(loop.call_at(2, ran.append, 2))
    turn(loop)
    assert ran == []


def test_scheduled_flag_tells_whether_it_waits(loop: Loop) -> None:
    timer = cast("TimerHandle", loop.call_at(0, nothing))
    assert timer._scheduled
    turn(loop)
    assert not timer._scheduled
    timer.cancel()
    assert not timer._scheduled


@needs_iteration
def test_million_armed_and_cancelled_leave_nothing() -> None:
    loop = EventLoop()
    scheduled = cast("Loop", loop)._scheduled
    for _ in range(1000):
        loop.call_later(LATER, nothing).cancel()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(MANY // 1000 // 10):
            for timer in [loop.call_later(LATER, nothing) for _ in range(1000)]:
                timer.cancel()
        del timer
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(scheduled) == 0
    assert after - before < 100_000
    for _ in range(MANY):
        loop.call_later(LATER, nothing).cancel()
    assert len(scheduled) == 0
    loop.close()


@needs_iteration
def test_memory_of_a_burst_is_given_back() -> None:
    loop = EventLoop()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        timers = [loop.call_later(LATER, nothing) for _ in range(50_000)]
        full, _ = tracemalloc.get_traced_memory()
        while timers:
            timers.pop().cancel()
        del timers
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert full - before > 5_000_000
    assert after - before < 200_000  # the free list
    loop.close()


# ---- loop._scheduled, as programs use it ---------------------------------------------


def test_scheduled_reads_as_a_sequence(loop: Loop) -> None:
    assert not loop._scheduled
    timers = [loop.call_at(LATER + i, nothing) for i in (3, 1, 2)]
    scheduled = loop._scheduled
    assert scheduled
    assert len(scheduled) == 3
    assert scheduled[0] is timers[1]
    assert scheduled[-1] in timers
    assert all(timer in scheduled for timer in timers)
    assert loop.call_at(0, nothing) in scheduled
    assert object() not in scheduled
    assert sorted(scheduled)[1:] == sorted(timers)
    assert min(scheduled).when() == 0
    assert len(list(reversed(scheduled))) == 4
    for wrong in (4, -5):
        with pytest.raises(IndexError):
            scheduled[wrong]


def test_each_timer_may_be_cancelled_while_iterating(loop: Loop) -> None:
    timers = [loop.call_at(LATER + i, nothing) for i in range(100)]
    for timer in loop._scheduled:
        timer.cancel()
    assert all(timer.cancelled() for timer in timers)


def test_scheduled_may_be_cleared(loop: Loop) -> None:
    ran: list[int] = []
    timers = [loop.call_at(0, ran.append, i) for i in range(100)]
    loop._scheduled.clear()
    assert len(loop._scheduled) == 0
    timers[5].cancel()
    loop.call_at(0, ran.append, -1)
    turn(loop)
    assert ran == [-1]


def test_empty_list_replaces_scheduled(loop: Loop) -> None:
    ran: list[int] = []
    old = loop._scheduled
    timer = loop.call_at(0, ran.append, 1)
    loop._scheduled = []  # type: ignore[assignment] # as BaseEventLoop does
    timer.cancel()
    loop.call_at(0, ran.append, 2)
    turn(loop)
    assert ran == [2]
    assert len(old) == 1
    del old


class Dropped:
    """A callback that does something as it goes."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __call__(self) -> None:
        pass

    def __del__(self) -> None:
        self.act()


def test_cancelling_and_adding_while_timers_are_cleared(loop: Loop) -> None:
    others = [loop.call_at(LATER + i, nothing) for i in range(1000)]
    dropped = 0

    def act() -> None:
        nonlocal dropped
        dropped += 1
        others.pop().cancel()
        if dropped < 50:
            loop.call_at(dropped, nothing)

    for i in range(100):
        loop.call_at(LATER + 5 * i, Dropped(act))
    loop._scheduled.clear()
    loop._scheduled.clear()
    gc.collect()
    assert dropped == 100
    turn(loop)


def test_closing_drops_timers(kind: type[Loop]) -> None:
    class Argument:
        pass

    loop = kind()
    argument = Argument()
    reference = weakref.ref(argument)
    loop.call_later(LATER, nothing, argument)
    del argument
    scheduled = loop._scheduled
    loop.close()
    assert len(scheduled) == len(loop._scheduled) == 0
    gc.collect()
    assert reference() is None


@needs_iteration
def test_timers_are_added_by_methods_only() -> None:
    loop = EventLoop()
    timer = asyncio.TimerHandle(1, nothing, (), loop)
    with pytest.raises(TypeError):
        heapq.heappush(loop._scheduled, timer)  # type: ignore[arg-type] # the test
    with pytest.raises(TypeError, match="call_at"):
        loop._scheduled = [timer]
    with pytest.raises(TypeError):
        type(loop._scheduled)()
    assert type(loop._scheduled).__module__ == _delivery.__name__
    loop.close()


def test_foreign_timer_cancels_as_ever(loop: Loop) -> None:
    timer = asyncio.TimerHandle(1, nothing, (), loop)
    timer.cancel()
    errors_of(loop)
    turn(loop)
    assert timer.cancelled()
