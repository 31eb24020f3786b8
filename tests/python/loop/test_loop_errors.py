"""Where the exception of a callback goes; no event is lost by it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from fdmux._native import LoopClosed
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.client import add_stream
from fdmux.streams.stream import Stream, StreamHandler

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from tests.python.conftest import SelectorFactory

    Pair = tuple[socket.socket, socket.socket]

Reports = list[tuple[Exception, object]]


@pytest.fixture
def reports() -> Reports:
    return []


@pytest.fixture
def hooked(
    selector_factory: SelectorFactory, reports: Reports
) -> Iterator[SelectorEventLoop]:
    with SelectorEventLoop(
        selector_factory(),
        error_hook=lambda error, source: reports.append((error, source)),
    ) as loop:
        yield loop


def boom(*_: object) -> None:
    raise ZeroDivisionError("boom")


def test_exception_leaves_with_its_traceback_and_the_rest_is_reported_again(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    called: list[object] = []

    def raise_once(sock: socket.socket) -> None:
        called.append(sock)
        if len(called) == 1:
            boom()

    loop.register_write(pair[0], raise_once)
    loop.register_write(pair[1], raise_once)
    with pytest.raises(ZeroDivisionError, match="boom") as caught:
        loop.run()
    assert caught.traceback[-1].name == "boom"
    assert loop.run_once(1) == 2
    assert set(called) == set(pair)


def test_exception_in_a_timer_keeps_the_other_timers(loop: SelectorEventLoop) -> None:
    called: list[str] = []
    for name in ("first", "second"):
        loop.call_later(0, called.append, name)
        loop.call_later(0, boom)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            loop.run_once(30)
    assert called == ["first", "second"]
    assert loop.run_once(0) == 0


def test_exception_in_a_posted_call_keeps_the_others(loop: SelectorEventLoop) -> None:
    called: list[str] = []
    loop.call_soon_threadsafe(boom)
    loop.call_soon_threadsafe(called.append, "other")
    with pytest.raises(ZeroDivisionError):
        loop.run_once(30)
    assert loop.run_once(30) == 1
    assert called == ["other"]


def test_raising_callback_stays_registered(loop: SelectorEventLoop, pair: Pair) -> None:
    loop.register_write(pair[0], boom)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            loop.run_once(1)


def test_hook_gets_error_and_source_and_the_batch_goes_on(
    hooked: SelectorEventLoop, reports: Reports, pair: Pair
) -> None:
    called: list[object] = []
    hooked.register_write(pair[0], boom)
    hooked.register_write(pair[1], called.append)
    hooked.call_later(0, boom)
    hooked.call_soon_threadsafe(boom)
    hooked.call_soon_threadsafe(called.append, "posted")
    assert hooked.run_once(1) == 5
    assert called == [pair[1], "posted"]
    assert [source for _, source in reports] == [pair[0], boom, boom]
    assert all(type(error) is ZeroDivisionError for error, _ in reports)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupts_leave_in_spite_of_a_hook(
    hooked: SelectorEventLoop,
    reports: Reports,
    pair: Pair,
    kind: type[BaseException],
) -> None:
    def interrupt(_: object) -> None:
        raise kind

    hooked.register_write(pair[0], interrupt)
    with pytest.raises(kind):
        hooked.run()
    hooked.unregister(pair[0])
    assert hooked.run_once(0) == 0
    assert reports == []


def test_exception_of_the_hook_leaves(
    selector_factory: SelectorFactory, pair: Pair
) -> None:
    with SelectorEventLoop(selector_factory(), error_hook=boom) as loop:
        loop.register_write(pair[0], lambda _: int("x"))
        with pytest.raises(ZeroDivisionError) as caught:
            loop.run_once(1)
        assert isinstance(caught.value.__context__, ValueError)


# ---- the native loop, closed by somebody else ----------------------------------------


CLOSERS: dict[str, Callable[[SelectorEventLoop, threading.Thread], object]] = {
    "before run": lambda loop, _: loop.native.close(),
    "by a timer": lambda loop, _: loop.call_later(0, loop.native.close),
    "by a call": lambda loop, _: loop.call_soon_threadsafe(loop.native.close),
    "by a thread": lambda loop, closer: loop.call_later(0, closer.start),
}


@pytest.mark.parametrize("way", CLOSERS)
@pytest.mark.parametrize("has_stream", [False, True])
def test_native_loop_that_others_have_closed_is_named(
    loop: SelectorEventLoop,
    pair: Pair,
    way: str,
    has_stream: bool,
) -> None:
    """A wait would hang or spin otherwise."""
    ended: list[Exception | None] = []

    class Handler(StreamHandler):
        def on_close(self, _stream: Stream, error: Exception | None) -> None:
            ended.append(error)

    if has_stream:
        add_stream(loop, pair[0], Handler())
    closer = threading.Thread(target=loop.native.close)
    CLOSERS[way](loop, closer)
    for _ in range(2):
        with pytest.raises(LoopClosed, match="closed"):
            loop.run(timeout=0.01)
    if closer.ident is not None:
        closer.join()
    assert [type(error) for error in ended] == [OSError] * has_stream
    loop.close()
