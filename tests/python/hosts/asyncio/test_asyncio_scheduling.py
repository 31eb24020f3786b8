"""What EventLoop refuses to schedule: what asyncio does, with its exceptions."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

import pytest
from tests.python.hosts.asyncio.asyncio_loops import (
    KINDS,
    Loop,
    make_loop,
    nothing,
    turn,
)

from fdmux.hosts.asyncio import EventLoop
from fdmux.hosts.asyncio.private import HAS_ITERATION

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    Schedule = Callable[..., asyncio.Handle]  # type: ignore[explicit-any] # any arguments

loop = pytest.fixture(params=KINDS)(make_loop)
METHODS = {
    "call_soon": (),
    "call_soon_threadsafe": (),
    "call_later": (0.001,),
    "call_at": (0.0,),
}


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return cast("str", request.param)


def bind(loop: Loop, method: str) -> Schedule:
    return cast("Schedule", getattr(loop, method))


async def coroutine() -> None:
    """Be a coroutine function."""


def finish(loop: Loop) -> None:
    loop.call_later(0.01, loop.stop)
    loop.run_forever()


# ---- arguments -----------------------------------------------------------------------


def test_missing_callback_is_a_type_error(loop: Loop, method: str) -> None:
    for args in ((), METHODS[method]):
        with pytest.raises(TypeError):
            bind(loop, method)(*args)
        with pytest.raises(TypeError):
            bind(loop, method)(*args, context=None)


def test_unknown_keyword_is_a_type_error(loop: Loop, method: str) -> None:
    with pytest.raises(TypeError):
        bind(loop, method)(*METHODS[method], nothing, name=1)
    with pytest.raises(TypeError):
        bind(loop, method)(*METHODS[method], nothing, context=None, name=1)
    with pytest.raises(TypeError):
        bind(loop, method)(*METHODS[method], nothing, callback=nothing)
    assert not loop._ready
    assert not loop._scheduled


def test_none_is_no_time(loop: Loop) -> None:
    for method in ("call_later", "call_at"):
        with pytest.raises(TypeError):
            bind(loop, method)(None, nothing)
    assert not loop._scheduled


@pytest.mark.parametrize("delay", ["1", b"1", object(), [], 1j])
def test_delay_that_is_no_number_is_a_type_error(loop: Loop, delay: object) -> None:
    def use() -> None:
        loop.call_later(cast("float", delay), nothing)
        turn(loop)  # asyncio compares a complex number only here

    with pytest.raises(TypeError):
        use()
    loop._scheduled.clear()


def test_arguments_have_names(loop: Loop) -> None:
    ran: list[str] = []
    loop.call_soon(callback=lambda: ran.append("soon"))
    loop.call_soon_threadsafe(callback=lambda: ran.append("threadsafe"))
    loop.call_at(when=0.0, callback=lambda: ran.append("at"))
    loop.call_at(0.0, callback=lambda: ran.append("at"), context=None)
    loop.call_later(callback=lambda: ran.append("later"), delay=0.001)
    finish(loop)
    assert sorted(ran) == ["at", "at", "later", "soon", "threadsafe"]


def test_arguments_reach_the_callback(loop: Loop, method: str) -> None:
    got: list[tuple[object, ...]] = []
    for count in range(6):
        bind(loop, method)(
            *METHODS[method], lambda *args: got.append(args), *range(count)
        )
    finish(loop)
    assert sorted(got) == [tuple(range(count)) for count in range(6)]


def test_callback_that_is_none_is_an_error_when_it_runs(
    loop: Loop, method: str
) -> None:
    told: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _loop, context: told.append(context))
    bind(loop, method)(*METHODS[method], None)
    finish(loop)
    assert [type(context["exception"]) for context in told] == [TypeError]


# ---- a closed loop -------------------------------------------------------------------


@pytest.mark.parametrize("is_debug", [False, True])
def test_closed_loop_is_a_runtime_error(
    loop: Loop, method: str, is_debug: bool
) -> None:
    loop.set_debug(is_debug)
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        bind(loop, method)(*METHODS[method], nothing)


def test_deleted_flags_are_attribute_errors(loop: Loop) -> None:
    closed, debug = loop._closed, loop._debug  # type: ignore[attr-defined] # BaseEventLoop's
    del loop._closed  # type: ignore[attr-defined] # the same
    with pytest.raises(AttributeError):
        loop.is_closed()
    loop._closed = closed  # type: ignore[attr-defined] # the same
    del loop._debug  # type: ignore[attr-defined] # the same
    with pytest.raises(AttributeError):
        loop.get_debug()
    loop._debug = debug  # type: ignore[attr-defined] # the same


# ---- debug mode ----------------------------------------------------------------------


@pytest.mark.parametrize("callback", [coroutine, None, 5, "callback"])
def test_debug_mode_refuses_what_cannot_be_called(
    loop: Loop, method: str, callback: object
) -> None:
    loop.set_debug(True)
    with pytest.raises(
        TypeError, match=method if method != "call_later" else "call_at"
    ):
        bind(loop, method)(*METHODS[method], callback)
    assert not loop._ready
    assert not loop._scheduled


def test_debug_mode_refuses_a_coroutine(loop: Loop, method: str) -> None:
    loop.set_debug(True)
    awaitable = coroutine()
    with pytest.raises(TypeError, match="coroutines cannot be used"):
        bind(loop, method)(*METHODS[method], awaitable)
    awaitable.close()


def test_debug_mode_refuses_another_thread(loop: Loop, method: str) -> None:
    loop.set_debug(True)
    errors: list[BaseException | None] = []

    def use() -> None:
        try:
            bind(loop, method)(*METHODS[method], nothing)
        except RuntimeError as error:
            errors.append(error)
        else:
            errors.append(None)

    def start() -> None:
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()

    start()  # it does not run: asyncio cannot tell
    loop.call_soon(start)
    finish(loop)
    is_refused = method != "call_soon_threadsafe"
    assert [error is not None for error in errors] == [False, is_refused]


def test_debug_mode_may_be_any_truth(loop: Loop) -> None:
    for flag in (1, "yes", 0, "", None):
        loop.set_debug(cast("bool", flag))
        assert bool(loop.get_debug()) == bool(flag)
        handle = loop.call_soon(nothing)
        assert ("created at" in repr(handle)) == bool(flag)
    turn(loop)


@pytest.mark.skipif(not HAS_ITERATION, reason="asyncio runs the loop here")
def test_time_that_is_no_number_is_named() -> None:
    loop = EventLoop()
    try:
        with pytest.raises(TypeError, match="when is 'x'; it must be a real number"):
            loop.call_at(cast("float", "x"), print)
        with pytest.raises(TypeError, match="delay is 'x'; it must be a real number"):
            loop.call_later(cast("float", "x"), print)
        assert not len(cast("list[object]", loop._scheduled))
    finally:
        loop.close()
