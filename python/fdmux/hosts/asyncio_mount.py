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
import functools
import threading
import weakref
from typing import TYPE_CHECKING, Protocol, cast

from fdmux._native import NativeLoop
from fdmux.hosts.watched import Attachment
from fdmux.selector import Selector

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from fdmux.hosts.watched import Watched


class Proactor(Protocol):
    """What a Proactor loop waits with."""

    def wait_for_handle(self, handle: int) -> asyncio.Future[bool]:
        """Return a future that is done when the event is set."""


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


def proactor_of(host: object) -> Proactor | None:
    """Return what waits for handles in a Proactor loop, which is Windows'."""
    return cast("Proactor | None", getattr(host, "_proactor", None))


class HandleWait:
    """Waits in a Proactor loop for the event that stands for a native loop.

    The loop holds the wait that is under way, and that holds this, as a reader would be
    held.
    """

    def __init__(self, proactor: Proactor, handle: int, watched: Watched) -> None:
        self._proactor = proactor
        self._handle = handle
        self._watcher = watched.watcher()
        self._is_over = False
        self._wait = self._begin()

    def _begin(self) -> asyncio.Future[bool]:
        wait = self._proactor.wait_for_handle(self._handle)
        wait.add_done_callback(self._on_set)
        return wait

    def _on_set(self, wait: asyncio.Future[bool]) -> None:
        if self._is_over or wait.cancelled():  # the loop cancels when it closes
            return
        self._watcher()
        if not self._is_over:  # what was called may have unmounted
            self._wait = self._begin()

    def end(self) -> None:
        """Stop waiting."""
        self._is_over = True
        self._wait.cancel()


def watch(loop: asyncio.AbstractEventLoop, watched: Watched) -> Callable[[], object]:
    """Have the loop watch; return what ends that.

    Raises:
        RuntimeError: It cannot.
    """
    proactor = proactor_of(loop)
    if proactor is not None:
        handle = watched.handle()
        # The loop holds the wait, through it: nothing here may keep the watcher.
        wait = weakref.ref(HandleWait(proactor, handle, watched))

        def end_wait() -> None:
            begun = wait()
            if begun is not None:
                begun.end()

        return end_wait
    fd = watched.fileno()
    try:
        loop.add_reader(fd, watched.watcher())
    except NotImplementedError:
        raise RuntimeError(
            f"mount on {loop!r}: it cannot watch descriptors; run "
            "asyncio.SelectorEventLoop(fdmux.Selector()) instead"
        ) from None
    return functools.partial(loop.remove_reader, fd)


def attach(host: object, watched: Watched) -> Attachment:
    """Add a reader for the descriptor, or wait for the handle.

    Raises:
        RuntimeError: The loop cannot watch either.
    """
    loop = cast("asyncio.AbstractEventLoop", host)
    end_watch = watch(loop, watched)
    until_shutdown = hold_open(watched)
    if running() is loop:
        begin(until_shutdown)
    else:
        loop.call_soon(begin, until_shutdown)

    def detach() -> None:
        if not loop.is_closed():
            end_watch()
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
