"""asyncio on our selector, with transports that are streams of the C core.

It is still asyncio: `EventLoop` is an `asyncio.SelectorEventLoop` with another
selector, and other transports for connections and datagrams; tasks, futures, timers,
signals and child processes are asyncio's own. On a Python whose asyncio lacks a
name that our transports need (private.py), asyncio's own transports are used. `Guest`
is the same loop, run by a loop of another kind.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from fdmux.hosts import asyncio_mount
from fdmux.hosts.asyncio.coroutines import check_coroutine
from fdmux.hosts.asyncio.guest import Guest
from fdmux.hosts.asyncio.loop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fdmux.hosts.asyncio.policy import EventLoopPolicy, install

Result = TypeVar("Result")

__all__ = ["EventLoop", "EventLoopPolicy", "Guest", "install", "new_event_loop", "run"]


def __getattr__(name: str) -> object:
    """Import policy.py on first use: on Python 3.14 the import warns."""
    if name not in {"EventLoopPolicy", "install"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fdmux.hosts.asyncio import policy  # noqa: PLC0415 - see above

    found: object = getattr(policy, name)
    return found


def new_event_loop() -> EventLoop:
    """Return a new `EventLoop`, as `asyncio.new_event_loop` returns its own."""
    return EventLoop()


def run(
    main: Coroutine[object, object, Result], *, debug: bool | None = None
) -> Result:
    """Run a coroutine on an `EventLoop` and return its result, as `asyncio.run` does.

    >>> run(asyncio.sleep(0.001, result=42))
    42

    Args:
        main: The coroutine.
        debug: Whether the loop is in debug mode; ``None``: as asyncio decides.

    Raises:
        TypeError: ``main`` is no coroutine.
        RuntimeError: A loop of asyncio runs in this thread.

    Threads: Any that runs no loop. Signal handlers need the main thread.
    """
    check_coroutine("run", main)
    if asyncio_mount.running() is not None:
        raise RuntimeError("run: a loop of asyncio is running already in this thread")
    with asyncio.Runner(debug=debug, loop_factory=EventLoop) as runner:
        return runner.run(main)
