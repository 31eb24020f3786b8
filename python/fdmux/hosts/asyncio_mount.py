"""asyncio, and the loops that are like it: uvloop, and tornado's.

Its one rule: draining happens in the reader's callback, never in a task, which would
run only after the loop has polled again and found the same descriptor readable.

Who ends the mount: ``loop.shutdown_asyncgens()``, which asyncio.run, Runner and
uvloop.run call, closes a generator that is kept open for that. A loop that is closed
without it drops the reader, which alone holds the `Watched`.
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
    from collections.abc import AsyncGenerator

    from fdmux.hosts.watched import Watched


def running() -> object | None:
    """Return asyncio's loop, if one runs in this thread."""
    return asyncio._get_running_loop()  # noqa: SLF001 - documented for such checks


def accepts(host: object) -> bool:
    """Whether it is an asyncio loop, whoever made it."""
    return isinstance(host, asyncio.AbstractEventLoop)


def loop_of(host: object) -> object:
    """Return the loop, which must be this thread's if it runs.

    Raises:
        RuntimeError: It is closed, or runs in another thread.
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
    thread: int | None = getattr(loop, "_thread_id", None)  # uvloop keeps its to itself
    if thread is not None:
        return thread != threading.get_ident()
    return loop.is_running() and running() is not loop


def native_of(host: object) -> NativeLoop | None:
    """Return that of the selector, if the loop runs on one of ours."""
    native = getattr(host, "native", None)
    if isinstance(native, NativeLoop):
        return native
    selector = getattr(host, "_selector", None)
    return selector.native if isinstance(selector, Selector) else None


def attach(host: object, served: Watched) -> Attachment:
    """Watch the descriptor as a reader."""
    loop = cast("asyncio.AbstractEventLoop", host)
    fd = served.fileno()
    try:
        loop.add_reader(fd, served.watcher())
    except NotImplementedError:
        raise RuntimeError(
            f"mount on {loop!r}: it cannot watch descriptors (Windows' Proactor loop "
            "cannot); run asyncio.SelectorEventLoop(fdmux.Selector()) instead"
        ) from None
    until_shutdown = hold_open(served)
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
    """Make what tasks wait for."""
    return asyncio.Event()


async def hold_open(served: Watched) -> AsyncGenerator[None, None]:
    """Unmount when the loop closes its asynchronous generators."""
    try:
        yield
    finally:
        served.unmount()


def begin(generator: AsyncGenerator[None, None]) -> None:
    """Run it to its yield, so that the loop that runs knows of it."""
    with contextlib.suppress(StopIteration, StopAsyncIteration):
        generator.__anext__().__await__().__next__()


def end(generator: AsyncGenerator[None, None]) -> None:
    """Finish it, unless that is what is happening."""
    if not generator.ag_running:  # type: ignore[attr-defined] # it is a native one
        with contextlib.suppress(StopIteration):
            generator.aclose().__await__().__next__()
