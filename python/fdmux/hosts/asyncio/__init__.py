"""asyncio on our selector, with transports that are streams of the C core.

Its one rule: it is asyncio. `EventLoop` is an `asyncio.SelectorEventLoop` with another
selector, and another transport for connections; tasks, futures, timers, signals, child
processes, datagrams and TLS are asyncio's own. Where an asyncio lacks what this builds
on, its own transports are used. `Guest` is the same inside of somebody else's loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from fdmux.hosts.asyncio.guest import Guest
from fdmux.hosts.asyncio.loop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

Result = TypeVar("Result")

__all__ = ["EventLoop", "Guest", "new_event_loop", "run"]


def new_event_loop() -> EventLoop:
    """Return a new `EventLoop`, as `asyncio.new_event_loop` returns its own."""
    return EventLoop()


def run(
    main: Coroutine[object, object, Result], *, debug: bool | None = None
) -> Result:
    """Run a coroutine on an `EventLoop` and return its result, as `asyncio.run` does.

    Raises:
        RuntimeError: A loop of asyncio runs in this thread.
    """
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - documented, in events
        raise RuntimeError("run(): an event loop is running already in this thread")
    with asyncio.Runner(debug=debug, loop_factory=EventLoop) as runner:
        return runner.run(main)
