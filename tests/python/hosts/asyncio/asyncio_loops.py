"""What the tests of handles, timers and the iteration share: a loop of either kind.

Its one rule: every test runs on asyncio's own loop too, so that both behave the same.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from fdmux.hosts.asyncio import EventLoop
from fdmux.hosts.asyncio.private import HAS_ITERATION

if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable, Iterable, Iterator, MutableSequence

    Context = dict[str, object]

    class Handle(asyncio.Handle):
        """A handle, with what programs look at."""

        _callback: object
        _args: Iterable[object]  # type: ignore[assignment] # whatever a test sets
        _context: object
        _loop: object
        _source_traceback: list[object] | None

    class TimerHandle(asyncio.TimerHandle):
        """The same with a deadline."""

        _callback: object
        _scheduled: bool
        _when: object

    class Scheduled(MutableSequence[asyncio.TimerHandle]):
        """Timers, in heap order."""

    class Loop(asyncio.SelectorEventLoop):
        """A loop, with what programs look at."""

        _ready: MutableSequence[asyncio.Handle]
        _scheduled: Scheduled
        _selector: selectors.BaseSelector
        _current_handle: asyncio.Handle | None
        _stopping: bool
        slow_callback_duration: float

        def _run_once(self) -> None: ...
        def _process_events(self, event_list: list[object]) -> None: ...
        def _write_to_self(self) -> None: ...

else:
    Handle, TimerHandle = asyncio.Handle, asyncio.TimerHandle
    Loop = asyncio.SelectorEventLoop

SOON = 20.0
KINDS = {"stock": asyncio.SelectorEventLoop, "ours": EventLoop}
needs_iteration = pytest.mark.skipif(
    not HAS_ITERATION, reason="asyncio runs the loop here"
)


def kind_of(request: pytest.FixtureRequest) -> type[Loop]:
    """Return a class of loops; a fixture, with `KINDS` as its params."""
    return cast("type[Loop]", KINDS[request.param])


def make_loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    """Make a loop of either kind; a fixture, with `KINDS` as its params."""
    loop = kind_of(request)()
    loop.set_debug(False)  # whatever python -X dev says
    try:
        yield loop
    finally:
        loop.close()


def turn(loop: Loop) -> None:
    """Let the loop do what is ready, and what that calls for at once."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def run_for(loop: Loop, seconds: float) -> None:
    """Let the loop run for a while."""
    loop.call_later(seconds, loop.stop)
    loop.run_forever()


def errors_of(loop: Loop) -> list[Context]:
    """Collect what the loop's exception handler is told."""
    told: list[Context] = []
    loop.set_exception_handler(lambda _loop, context: told.append(context))
    return told


def nothing(*_args: object) -> None:
    """Be a callback."""


def until(loop: Loop, is_done: Callable[[], bool]) -> None:
    """Run until this is so; looked at in each iteration."""
    end = loop.time() + SOON

    def look() -> None:
        if is_done() or loop.time() > end:
            loop.stop()
        else:
            loop.call_later(0.001, look)

    look()
    loop.run_forever()
    assert is_done()
