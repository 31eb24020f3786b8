"""asyncio as a host, and loops with the same interface: uvloop's, and tornado's.

Its one rule: the reader's callback dispatches, never a task. A task would run only
after the loop had polled again and found the same descriptor readable.

The end of the loop unmounts: ``loop.shutdown_asyncgens()``, which asyncio.run, Runner
and uvloop.run call, closes an asynchronous generator that `attach` keeps open. A loop
that is closed without it drops the reader, which holds the only reference to the
`Watched`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, cast

from fdmux._native import NativeLoop
from fdmux.hosts.watched import Attachment
from fdmux.selector import Selector

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from fdmux.hosts.watched import Watched


def running() -> object | None:
    """Return the loop of asyncio that runs in this thread, if there is one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def accepts(host: object) -> bool:
    """Whether ``host`` is a loop with the interface of asyncio's."""
    return isinstance(host, asyncio.AbstractEventLoop)


def loop_of(host: object) -> object:
    """Return the loop itself.

    Raises:
        RuntimeError: It is closed, or it runs in another thread.
    """
    loop = cast("asyncio.AbstractEventLoop", host)
    if loop.is_closed():
        raise RuntimeError(f"mount on {loop!r}: it is closed; mount on a new loop")
    if runs_elsewhere(loop):
        raise RuntimeError(
            f"mount on {loop!r}: it runs in another thread; mount there: "
            "loop.call_soon_threadsafe(fdmux.mount)"
        )
    return loop


def runs_elsewhere(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether another thread runs the loop."""
    thread: int | None = getattr(loop, "_thread_id", None)  # uvloop hides its own
    if thread is not None:
        return thread != threading.get_ident()
    return loop.is_running() and running() is not loop


def native_of(host: object) -> NativeLoop | None:
    """Return the native loop of its selector, if that is a fdmux.Selector."""
    native = getattr(host, "native", None)
    if isinstance(native, NativeLoop):
        return native
    selector = getattr(host, "_selector", None)
    return selector.native if isinstance(selector, Selector) else None


def attach(host: object, watched: Watched) -> Attachment:
    """Add a reader for the descriptor.

    Raises:
        RuntimeError: The loop cannot watch descriptors.
    """
    loop = cast("asyncio.AbstractEventLoop", host)
    fd = watched.fileno()
    try:
        loop.add_reader(fd, watched.watcher())
    except NotImplementedError:
        raise RuntimeError(
            f"mount on {loop!r}: it cannot watch descriptors (Windows' Proactor loop "
            "cannot); run asyncio.SelectorEventLoop(fdmux.Selector()) instead"
        ) from None
    until_shutdown = hold_open(watched)
    if running() is loop:
        begin(until_shutdown)
    else:
        loop.call_soon(begin, until_shutdown)

    def detach() -> None:
        if not loop.is_closed():
            loop.remove_reader(fd)
        end(until_shutdown)

    def report(error: Exception, source: object) -> None:
        message = f"error in {source!r}"
        loop.call_exception_handler({"message": message, "exception": error})

    return Attachment(detach, report, loop.is_closed)


def new_event() -> object:
    """Return an event that a task can wait for."""
    return asyncio.Event()


def running_getter() -> Callable[[], object]:
    """Return the function that C calls to learn which loop runs in a thread."""
    return asyncio._get_running_loop  # noqa: SLF001 - asyncio.events exports it for loops


async def hold_open(watched: Watched) -> AsyncGenerator[None, None]:
    """Unmount when the loop closes its asynchronous generators."""
    try:
        yield
    finally:
        watched.unmount()


def begin(generator: AsyncGenerator[None, None]) -> None:
    """Run the generator to its yield: the running loop then knows that it is open."""
    with contextlib.suppress(StopIteration, StopAsyncIteration):
        generator.__anext__().__await__().__next__()


def end(generator: AsyncGenerator[None, None]) -> None:
    """Close the generator, unless it is being closed."""
    if not generator.ag_running:  # type: ignore[attr-defined] # typeshed lacks it
        with contextlib.suppress(StopIteration):
            generator.aclose().__await__().__next__()
