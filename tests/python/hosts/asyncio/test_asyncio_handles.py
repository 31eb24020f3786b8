"""Handles of EventLoop: asyncio's own, made in C."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import pickle
import sys
import weakref
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
from tests.python.hosts.asyncio.asyncio_loops import (
    KINDS,
    Handle,
    Loop,
    TimerHandle,
    errors_of,
    kind_of,
    make_loop,
    needs_iteration,
    nothing,
    turn,
)

from fdmux.hosts.asyncio import EventLoop, private

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[Loop], Handle]

loop = pytest.fixture(params=KINDS)(make_loop)
kind = pytest.fixture(params=KINDS)(kind_of)
LATER = 1000.0


def soon(loop: Loop) -> Handle:
    return cast("Handle", loop.call_soon(nothing))


def later(loop: Loop) -> Handle:
    return cast("Handle", loop.call_later(LATER, nothing))


def at(loop: Loop, when: float) -> TimerHandle:
    return cast("TimerHandle", loop.call_at(when, nothing))


@pytest.fixture(params=[soon, later])
def make(request: pytest.FixtureRequest) -> Make:
    found: Make = request.param
    return found


class Told:
    """A callback that can be referenced weakly."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def __call__(self, *args: object) -> None:
        self.calls.append(args)


# ---- what they are -------------------------------------------------------------------


def test_handles_are_asyncio_s(loop: Loop) -> None:
    for handle in (loop.call_soon(nothing), loop.call_soon_threadsafe(nothing)):
        assert isinstance(handle, asyncio.Handle)
        assert not isinstance(handle, asyncio.TimerHandle)
    for timer in (loop.call_later(LATER, nothing), loop.call_at(LATER, nothing)):
        assert isinstance(timer, asyncio.TimerHandle)


def test_attributes_are_as_asyncio_sets_them(loop: Loop, make: Make) -> None:
    handle = make(loop)
    assert handle._callback is nothing
    assert handle._args == ()
    assert handle._loop is loop
    assert type(handle._context) is contextvars.Context
    assert handle._cancelled is False
    assert handle._source_traceback is None
    assert handle._repr is None  # type: ignore[attr-defined] # a slot
    with pytest.raises(AttributeError):
        handle.other = 1  # type: ignore[attr-defined] # that is the test


@pytest.mark.parametrize("is_debug", [False, True])
def test_repr_is_asyncio_s(is_debug: bool) -> None:
    told = []
    for made in KINDS.values():
        loop = made()
        loop.set_debug(is_debug)
        handles = [loop.call_soon(nothing), loop.call_at(LATER, print, 1)]
        told.append([repr(handle) for handle in handles])
        for handle in handles:
            handle.cancel()
        told[-1] += [repr(handle) for handle in handles]
        loop.close()
    assert told[0] == told[1]
    assert told[0][0].startswith("<Handle nothing() at ")
    assert told[0][3].startswith("<TimerHandle cancelled when=1000.0")


def test_source_traceback_ends_in_the_calling_line(loop: Loop) -> None:
    loop.set_debug(True)
    line = sys._getframe().f_lineno
    handles = [
        loop.call_soon(nothing),
        loop.call_soon_threadsafe(nothing),
        loop.call_later(LATER, nothing),
        loop.call_at(LATER, nothing),
    ]
    for number, handle in enumerate(handles, line + 2):
        frames = cast("Handle", handle)._source_traceback
        assert frames is not None
        frame = frames[-1]
        assert (frame.filename, frame.lineno) == (__file__, number)  # type: ignore[attr-defined] # a FrameSummary


def test_when_is_the_object_that_was_given(loop: Loop) -> None:
    for when in (5, 5.5, True, 1 << 60):
        assert loop.call_at(when, nothing).when() is when


def test_timers_compare_by_deadline(loop: Loop) -> None:
    first, second, same = at(loop, 1), at(loop, 2), at(loop, 1)
    assert first < second
    assert first <= same
    assert second > first >= same
    assert first == same != second
    assert hash(first) == hash(same) == hash(1)
    same.cancel()
    assert first != same
    assert sorted([second, first]) == [first, second]
    with pytest.raises(TypeError):
        assert first < 1  # type: ignore[operator] # that is the test


def test_handle_is_hashable_and_like_no_other(loop: Loop) -> None:
    first, second = soon(loop), soon(loop)
    assert first != second
    assert len({first, second, first}) == 2


def test_timers_of_both_kinds_compare(loop: Loop) -> None:
    plain = asyncio.TimerHandle(1, nothing, (), loop)
    assert plain == at(loop, 1)
    assert plain < at(loop, 2)


def test_context_is_a_copy_or_the_one_given(loop: Loop, make: Make) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    given = contextvars.copy_context()
    given.run(variable.set, 1)
    seen: list[int] = []
    token = variable.set(2)

    def look() -> None:
        seen.append(variable.get())

    loop.call_soon(look, context=given)
    loop.call_soon(look, context=None)
    loop.call_soon(look)
    variable.reset(token)
    loop.call_at(0, look, context=given)
    turn(loop)
    assert sorted(seen) == [1, 1, 2, 2]
    handle = make(loop)
    if sys.version_info >= (3, 12):
        assert handle.get_context() is handle._context


def test_context_may_be_any_object_that_runs(loop: Loop) -> None:
    class Tracing:
        def run(self, callback: Told, *args: object) -> None:
            ran.append(callback)
            callback(*args)

    ran: list[object] = []
    told = Told()
    context = cast("contextvars.Context", Tracing())
    loop.call_soon(told, context=context)
    loop.call_soon(told, 1, 2, 3, context=context)
    turn(loop)
    assert ran == [told, told]
    assert told.calls == [(), (1, 2, 3)]


def test_wrong_context_is_told(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.call_soon(nothing, context=cast("contextvars.Context", 5))
    turn(loop)
    assert "AttributeError" in caplog.text


def test_context_that_is_entered_is_told(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    context = contextvars.copy_context()
    loop.call_soon(nothing, context=context)
    context.run(turn, loop)
    assert "RuntimeError" in caplog.text


def test_handle_cannot_be_subclassed_nor_disguised() -> None:
    if not private.HAS_ITERATION:
        pytest.skip("asyncio's own can")
    for made in (private.Handle, private.TimerHandle):
        with pytest.raises(TypeError):
            type("Sub", (made,), {})
    loop = EventLoop()
    handle = soon(cast("Loop", loop))
    with pytest.raises(TypeError):
        handle.__class__ = asyncio.Handle  # type: ignore[assignment] # the test
    loop.close()


def test_handle_may_be_made_by_hand(loop: Loop) -> None:
    told = Told()
    handle = type(loop.call_soon(nothing))(told, (1, 2), loop)
    timer = type(loop.call_at(1, nothing))(5.0, told, [3], loop)
    handle._run()
    timer._run()
    assert told.calls == [(1, 2), (3,)]
    assert timer.when() == 5.0
    timer.cancel()
    assert timer.cancelled()


def test_empty_handle_does_no_harm(loop: Loop) -> None:
    for made in (type(loop.call_soon(nothing)), type(loop.call_at(1, nothing))):
        handle = made.__new__(made)
        for use in (handle.cancel, handle._run, handle.cancelled, handle.__repr__):
            try:
                use()
            except AttributeError:
                continue
        del handle
    errors_of(loop)


class Elsewhere:
    """A loop of another make."""

    def __init__(self, is_debug: bool) -> None:
        self.is_debug = is_debug
        self.errors: list[dict[str, object]] = []

    def get_debug(self) -> bool:
        return self.is_debug

    def call_exception_handler(self, context: dict[str, object]) -> None:
        self.errors.append(context)

    def _timer_handle_cancelled(self, handle: object) -> None:
        """asyncio's loops count them."""


@pytest.mark.parametrize("is_debug", [False, True])
def test_handle_of_another_loop_asks_that(
    loop: Loop, make: Make, is_debug: bool
) -> None:
    other = Elsewhere(is_debug)
    handle = make(loop)
    handle._loop = other
    handle._callback = divmod
    handle._args = (1, 0)
    handle._run()
    assert isinstance(other.errors[0]["exception"], ZeroDivisionError)
    handle.cancel()
    assert ("divmod(1, 0)" in repr(handle)) == is_debug
    turn(loop)
    assert len(other.errors) == 1


def test_handle_is_not_pickled(loop: Loop, make: Make) -> None:
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        pickle.dumps(make(loop))


def test_handle_can_be_copied(loop: Loop, make: Make) -> None:
    handle = make(loop)
    copied = copy.copy(handle)
    assert type(copied) is type(handle)
    assert copied._callback is nothing
    copied.cancel()
    assert not handle.cancelled()
    turn(loop)


# ---- cancelling ----------------------------------------------------------------------


@pytest.mark.parametrize("is_debug", [False, True])
def test_cancelled_handle_is_not_run_and_drops_its_callback(
    loop: Loop, make: Make, is_debug: bool
) -> None:
    loop.set_debug(is_debug)
    handle = make(loop)
    assert not handle.cancelled()
    for _ in range(2):
        handle.cancel()
        assert handle.cancelled()
        assert handle._callback is None
        assert handle._args is None
    assert ("nothing() at" in repr(handle)) == is_debug
    turn(loop)


def test_handle_may_cancel_itself_while_it_runs(loop: Loop) -> None:
    ran: list[object] = []

    def cancel(*args: object) -> None:
        handles[len(ran)].cancel()
        ran.append(args)

    handles: list[asyncio.Handle] = [
        loop.call_soon(cancel, 1),
        loop.call_soon(cancel, 1, 2, 3, 4),
        loop.call_at(0, cancel, 2),
    ]
    turn(loop)
    assert ran == [(1,), (1, 2, 3, 4), (2,)]
    assert all(handle.cancelled() for handle in handles)


def test_cancelling_and_raising_reports_what_asyncio_does(loop: Loop) -> None:
    def cancel() -> None:
        handle.cancel()
        raise ZeroDivisionError

    errors = errors_of(loop)
    handle = loop.call_soon(cancel)
    turn(loop)
    assert isinstance(errors[0]["exception"], ZeroDivisionError)
    assert errors[0]["handle"] is handle


def test_run_of_a_cancelled_handle_is_an_error_that_is_told(
    loop: Loop, make: Make
) -> None:
    errors = errors_of(loop)
    handle = make(loop)
    handle.cancel()
    handle._run()
    assert isinstance(errors[0]["exception"], TypeError)


def test_cancelling_from_the_destructor_of_a_callback(loop: Loop) -> None:
    class Last:
        def __init__(self, handle: asyncio.Handle) -> None:
            self.handle = handle

        def __call__(self) -> None:
            pass

        def __del__(self) -> None:
            self.handle.cancel()

    others = [loop.call_at(LATER + i, nothing) for i in range(100)]
    ends = [loop.call_at(LATER, Last(other)) for other in others]
    for end in ends:
        end.cancel()
    assert all(other.cancelled() for other in others)
    turn(loop)


def test_handle_is_harmless_after_close(loop: Loop, make: Make) -> None:
    told = Told()
    handle = make(loop)
    handle._callback = told
    loop.close()
    assert "Told" in repr(handle)
    handle._run()
    assert told.calls == [()]
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()


# ---- attributes that a program sets --------------------------------------------------


def test_callback_and_arguments_may_be_replaced(loop: Loop) -> None:
    told = Told()
    for args in ((), (1,), [1, 2], range(3)):
        handle = soon(loop)
        handle._callback = told
        handle._args = args
    turn(loop)
    assert told.calls == [(), (1,), (1, 2), (0, 1, 2)]


@pytest.mark.parametrize("flag", [0, 1, "", "yes", None])
def test_cancelled_flag_is_taken_for_what_it_is(loop: Loop, flag: object) -> None:
    told = Told()
    handle = soon(loop)
    handle._callback = told
    handle._cancelled = flag  # type: ignore[assignment] # that is the test
    turn(loop)
    assert len(told.calls) == (not flag)


@pytest.mark.parametrize("name", ["_callback", "_args", "_cancelled"])
def test_missing_attribute_leaves_the_loop(loop: Loop, name: str) -> None:
    handle = soon(loop)
    delattr(handle, name)
    with pytest.raises(AttributeError):
        turn(loop)
    turn(loop)


def test_missing_context_is_told(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    handle = soon(loop)
    del handle._context
    turn(loop)
    assert "AttributeError" in caplog.text


# ---- memory --------------------------------------------------------------------------


def test_handle_is_gone_when_it_has_run(loop: Loop) -> None:
    told = Told()
    handles = [loop.call_soon(told), loop.call_at(0, told)]
    seen = [weakref.ref(handle) for handle in handles]
    callback = weakref.ref(told)
    handles.clear()
    assert all(reference() is not None for reference in seen)
    turn(loop)
    del told
    assert [reference() for reference in seen] == [None, None]
    assert callback() is None


def test_weakref_callback_may_schedule(loop: Loop) -> None:
    told = Told()
    handle = loop.call_soon(nothing)
    reference = weakref.ref(handle, lambda _gone: loop.call_soon(told))
    del handle
    turn(loop)
    turn(loop)
    assert reference() is None
    assert told.calls == [()]


def test_cycle_of_handle_and_callback_is_collected(loop: Loop) -> None:
    class Holder:
        handle: asyncio.Handle

        def __call__(self) -> None:
            pass

    holders = [Holder(), Holder()]
    holders[0].handle = loop.call_soon(holders[0])
    holders[1].handle = loop.call_at(0, holders[1])
    references = [weakref.ref(holder) for holder in holders]
    holders.clear()
    turn(loop)
    gc.collect()
    assert [reference() for reference in references] == [None, None]


@pytest.mark.filterwarnings("ignore:unclosed")
def test_loop_with_handles_that_nobody_holds_is_collected(kind: type[Loop]) -> None:
    loop = kind()
    told = partial(Told(), loop)
    loop.call_soon(told)
    timer = loop.call_later(LATER, told)
    loop.timer = timer  # type: ignore[attr-defined] # it has a dictionary
    references: list[weakref.ref[object]] = [
        weakref.ref(loop),
        weakref.ref(told),
        weakref.ref(timer),
    ]
    del loop, told, timer
    gc.collect()
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


def test_nothing_is_leaked_over_many_uses(loop: Loop) -> None:
    told = Told()
    context = contextvars.copy_context()
    argument = object()
    watched = (told, context, argument, nothing)
    kinds = (type(loop.call_soon(nothing)), type(loop.call_at(0, nothing)))
    turn(loop)

    def counts() -> list[int]:
        gc.collect()
        return [sys.getrefcount(each) for each in (*watched, *kinds, loop)]

    before = counts()
    for _ in range(20):
        for i in range(500):
            loop.call_soon(told, argument, context=context)
            loop.call_soon(nothing)
            loop.call_at(0, told, argument, i, i, i, context=context)
            loop.call_later(LATER, told, argument, context=context).cancel()
            loop.call_soon(told, argument).cancel()
        turn(loop)
        told.calls.clear()
    after = counts()
    # A free list holds no type; what else may differ are a few loop variables.
    assert all(abs(b - a) <= 2 for a, b in zip(before, after, strict=True)), (
        before,
        after,
    )


@needs_iteration
def test_handles_that_come_back_are_clean() -> None:
    loop = EventLoop()
    loop.set_debug(True)
    for _ in range(600):
        loop.call_soon(nothing, 1).cancel()
        loop.call_at(5, nothing, 1).cancel()
    turn(cast("Loop", loop))
    loop.set_debug(False)
    for made in (loop.call_soon(nothing), loop.call_at(5, nothing)):
        handle = cast("Handle", made)
        assert handle._args == ()
        assert handle._source_traceback is None
        assert handle._repr is None  # type: ignore[attr-defined] # a slot
        assert not handle.cancelled()
        assert weakref.getweakrefcount(handle) == 0
        assert gc.is_tracked(handle)
    loop.close()


def test_long_chain_of_handles_is_freed_without_deep_recursion(loop: Loop) -> None:
    handle = loop.call_soon(nothing)
    for _ in range(100_000):
        handle = loop.call_soon(handle.cancel)
    timer = loop.call_at(0, nothing)
    for _ in range(100_000):
        timer = loop.call_at(0, timer.cancel)
    loop._ready.clear()
    loop._scheduled.clear()
    del handle, timer
    gc.collect()
