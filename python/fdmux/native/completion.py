"""aio: what native threads have done, to be awaited in asyncio, trio and gevent.

Its one rule: a `Completion` is a place for one number that is native code's until it
has put the address of the place into a queue. So a cancelled wait, a dropped object or
a loop that has ended never lets a thread write into memory that is somebody else's by
then; and native code needs nothing of Python to complete it, not even the GIL.
"""

from __future__ import annotations

import errno
import inspect
import os
import weakref
from typing import TYPE_CHECKING, Protocol, cast

from fdmux._ffi import ffi, lib
from fdmux._native import check
from fdmux.hosts.registry import find_running
from fdmux.hosts.watched import Watched
from fdmux.native.queue import NativeQueue

if TYPE_CHECKING:
    from collections.abc import Generator

    from fdmux._ffi import CInt64Pointer
    from fdmux.hosts.watched import HostModule

    class TaskEvent(Protocol):
        """An event of asyncio or trio."""

        def set(self) -> object:
            """Wake those who wait."""

        async def wait(self) -> object:
            """Wait for `set`."""

    class GreenEvent(Protocol):
        """An event of gevent."""

        def set(self) -> object:
            """Wake those who wait."""

        def wait(self, timeout: float | None) -> object:
            """Wait for `set`."""


__all__ = ["Completion"]

BATCH = 64


class Port(Watched):
    """The queue through which one loop hears of its completions."""

    def __init__(self, host: object) -> None:
        super().__init__(host)
        self.queue = NativeQueue()
        self._items = ffi.new("void *[]", BATCH)
        # By address: what native code has, and who waits for it if anybody still does.
        self._cells: dict[int, CInt64Pointer] = {}
        self._waiting: weakref.WeakValueDictionary[int, Completion] = (
            weakref.WeakValueDictionary()
        )

    def fileno(self) -> int:
        """Return the descriptor of the queue."""
        return self.queue.fileno()

    def add(self, completion: Completion) -> CInt64Pointer:
        """Give a completion the place for its result."""
        cell = ffi.new("int64_t *")
        address = address_of(cell)
        self._cells[address] = cell
        self._waiting[address] = completion
        return cell

    def drop(self, address: int) -> None:
        """Forget a place that native code has never had."""
        self._cells.pop(address, None)

    def _serve(self) -> None:
        # What is left keeps the descriptor readable, and has its turn.
        queue = self.queue._c_queue  # noqa: SLF001 - our own handle
        count = check(
            lib.fdmux_queue_take(queue, self._items, BATCH), "take completions"
        )
        for index in range(count):
            address = int(ffi.cast("uintptr_t", self._items[index]))
            cell = self._cells.pop(address, None)
            completion = self._waiting.pop(address, None)
            if cell is not None and completion is not None:
                completion._complete(cell[0])  # noqa: SLF001 - its other half

    def _close(self) -> None:
        """End the queue; what native code still has is left to it for good."""
        self.queue.close()
        abandoned.extend(self._cells.values())
        self._cells.clear()


# Threads may still write there. As many as were under way when a loop ended.
abandoned: list[CInt64Pointer] = []

ports: weakref.WeakKeyDictionary[object, weakref.ref[Port]] = (
    weakref.WeakKeyDictionary()
)


def address_of(cell: CInt64Pointer) -> int:
    """Return where it lies."""
    return int(ffi.cast("uintptr_t", cell))


def port_of(module: HostModule, host: object) -> Port:
    """Return the port of a loop; the first call makes it."""
    loop = module.loop_of(host)
    reference = ports.get(loop)
    port = None if reference is None else reference()
    if port is not None and port.is_mounted:
        return port
    port = Port(host)
    port.attach(module, host)
    ports[loop] = weakref.ref(port)
    return port


class Completion:
    """A result that native code will deliver, from any thread, without the GIL.

    >>> completion = fdmux.aio.Completion()  # in a task
    >>> extension.start(completion)
    >>> count = await completion

    In C: ``queue = fdmux_queue_from_object(completion)``, and ``address`` is an
    ``int64_t *``. The thread that is done writes its result there, and then calls
    ``fdmux_queue_put(queue, address)``, once, with a reference to the queue of its own.
    A result below 0 is ``-errno``. From then on the address is not native code's any
    more; until then it stays valid, whatever Python does.

    Made in a task of asyncio (also uvloop, tornado, anyio) or trio, or in a greenlet of
    gevent; it belongs to that loop. Any number of tasks may await it, before and after
    it is done. A cancelled `await` leaves nothing behind, and others may go on.

    Raises:
        RuntimeError: No loop runs here that one can await in.
        OSError: The kernel has no descriptor for the queue of this loop.

    Order:   Completions are served in the order in which a thread put them.
    Threads: The loop's, but for what native code does.
    Source:  fdmux_queue_put() in fdmux.h
    """

    def __init__(self) -> None:
        module, host = find_running()
        new_event = getattr(module, "new_event", None)
        if new_event is None:
            raise RuntimeError(
                f"make a Completion: nothing can be awaited in {host!r}; watch a "
                "fdmux.NativeQueue there"
            )
        self._event: object = new_event()
        self._result: int | None = None
        self._port = port_of(module, host)
        self._cell = self._port.add(self)

    def __repr__(self) -> str:
        state = "pending" if self._result is None else f"result {self._result}"
        return f"<fdmux.aio.Completion at {self.address:#x}, {state}>"

    def __fdmux_queue__(self) -> object:
        """Hand out the queue to native code, see `NativeQueue`."""
        return self._port.queue.__fdmux_queue__()

    def __await__(self) -> Generator[object, object, int]:
        """Wait in a task of asyncio or trio.

        Raises:
            OSError: The result is below 0.
        """
        return self._wait_in_task().__await__()

    @property
    def address(self) -> int:
        """Where native code writes the result: an ``int64_t *`` as a number."""
        return address_of(self._cell)

    @property
    def is_done(self) -> bool:
        """Whether the result is there."""
        return self._result is not None

    def wait(self, timeout: float | None = None) -> int:
        """Wait in a greenlet of gevent.

        Args:
            timeout: Seconds; ``None`` waits without limit.

        Raises:
            TimeoutError: It took longer. The completion stays as it is.
            OSError: The result is below 0.
            RuntimeError: This is a task: ``await`` it.
        """
        if self._result is None:
            event = cast("GreenEvent", self._event)
            if inspect.iscoroutinefunction(event.wait):
                raise RuntimeError(f"wait for {self!r} in a task: await it")
            event.wait(timeout)
        return self.result()

    def result(self) -> int:
        """Return the result.

        Raises:
            OSError: It is below 0.
            TimeoutError: It is not there yet.
        """
        if self._result is None:
            raise TimeoutError(f"wait for {self!r}: it is not done yet")
        if self._result < 0:
            code = -self._result
            raise OSError(code, f"native code completed with: {os.strerror(code)}")
        return self._result

    def discard(self) -> None:
        """Say that native code has not taken it on, and will not complete it."""
        self._port.drop(self.address)
        self._complete(-errno.ECANCELED)

    async def _wait_in_task(self) -> int:
        event = cast("TaskEvent", self._event)
        if not inspect.iscoroutinefunction(event.wait):
            raise RuntimeError(f"await {self!r} in a greenlet: call its wait()")
        await event.wait()  # also if it is done: a checkpoint, where trio wants one
        return self.result()

    def _complete(self, result: int) -> None:
        if self._result is None:
            self._result = result
            cast("TaskEvent", self._event).set()
