"""Completion: one result of a native thread, which a task or a greenlet waits for.

Its one rule: the memory of a result belongs to native code until that has put its
address into the queue. It is not freed when a wait is cancelled, the `Completion` is
dropped or the loop ends, so a thread never writes into freed memory. Native code needs
nothing of Python to complete it, not even the GIL.
"""

from __future__ import annotations

import errno
import inspect
import os
import weakref
from typing import TYPE_CHECKING, Protocol, cast

from fdmux._ffi import ffi
from fdmux.hosts.registry import find_running
from fdmux.hosts.watched import Watched
from fdmux.native.queue import NativeQueue, take_items

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


class Outcome:
    """A result that may not be there yet, and the event that is set with it.

    Attributes:
        event: An event of the loop: of asyncio, trio or gevent.
        result: The result; ``None`` until it is there.
    """

    __slots__ = ("__weakref__", "event", "result")

    def __init__(self, event: object) -> None:
        self.event = event
        self.result: int | None = None

    def set(self, result: int) -> None:
        """Store the result and wake those who wait; only the first call counts."""
        if self.result is None:
            self.result = result
            cast("TaskEvent", self.event).set()


class Port(Watched):
    """The queue that announces the completions of one loop."""

    def __init__(self, host: object) -> None:
        super().__init__(host)
        self.queue = NativeQueue()
        self._items = ffi.new("void *[]", BATCH)
        # By address: the memory that native code writes to, and what waits for it as
        # long as its `Completion` lives.
        self._cells: dict[int, CInt64Pointer] = {}
        self._waiting: weakref.WeakValueDictionary[int, Outcome] = (
            weakref.WeakValueDictionary()
        )

    def fileno(self) -> int:
        """Return the descriptor of the queue."""
        return self.queue.fileno()

    def add(self, outcome: Outcome) -> CInt64Pointer:
        """Return the memory that native code writes the result of ``outcome`` to."""
        cell = ffi.new("int64_t *")
        address = address_of(cell)
        self._cells[address] = cell
        self._waiting[address] = outcome
        return cell

    def drop(self, address: int) -> None:
        """Free the memory of a result; native code must not have it."""
        self._cells.pop(address, None)

    def _serve(self) -> None:
        """Complete one batch; the descriptor stays readable if there are more."""
        for index in range(take_items(self.queue, self._items, BATCH)):
            address = int(ffi.cast("uintptr_t", self._items[index]))
            cell = self._cells.pop(address, None)
            outcome = self._waiting.pop(address, None)
            if cell is not None and outcome is not None:
                outcome.set(cell[0])

    def _close(self) -> None:
        """Close the queue; native code keeps the memory that it has, for good."""
        self.queue.close()
        abandoned.extend(self._cells.values())
        self._cells.clear()


# Memory that threads may still write to: of results under way when a loop ended.
abandoned: list[CInt64Pointer] = []

ports: weakref.WeakKeyDictionary[object, weakref.ref[Port]] = (
    weakref.WeakKeyDictionary()
)


def address_of(cell: CInt64Pointer) -> int:
    """Return the address of ``cell`` as a number."""
    return int(ffi.cast("uintptr_t", cell))


def port_of(module: HostModule, host: object) -> Port:
    """Return the `Port` of a loop; the first call makes it."""
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
    ``fdmux_queue_put(queue, address)`` once, with its own reference to the queue. A
    result below 0 is ``-errno``. The address stays valid until that call, whatever
    Python does; native code must not use it afterwards.

    Make it in a task of asyncio (also uvloop, tornado, anyio) or trio, or in a greenlet
    of gevent; it belongs to that loop. Any number of tasks may await it, before and
    after it is done. Cancelling one `await` does not affect the others.

    Raises:
        RuntimeError: No loop runs in this thread in which one can await.
        OSError: The kernel has no descriptor for the queue of this loop.

    Order:   Completions of one thread are done in the order in which it put them.
    Threads: Only the loop's thread may use it; native code completes it from any.
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
        self._outcome = Outcome(new_event())
        self._port = port_of(module, host)
        self._cell = self._port.add(self._outcome)

    def __repr__(self) -> str:
        result = self._outcome.result
        state = "pending" if result is None else f"result {result}"
        return f"<fdmux.aio.Completion at {self.address:#x}, {state}>"

    def __fdmux_queue__(self) -> object:
        """Return the queue for native code, see `NativeQueue`."""
        return self._port.queue.__fdmux_queue__()

    def __await__(self) -> Generator[object, object, int]:
        """Wait in a task of asyncio or trio.

        Raises:
            OSError: The result is below 0.
        """
        return self._wait_in_task().__await__()

    @property
    def address(self) -> int:
        """Where native code writes the result: an ``int64_t *``, as a number."""
        return address_of(self._cell)

    @property
    def is_done(self) -> bool:
        """Whether the result is there."""
        return self._outcome.result is not None

    def wait(self, timeout: float | None = None) -> int:
        """Wait in a greenlet of gevent.

        Args:
            timeout: Seconds; ``None`` waits without limit.

        Raises:
            TimeoutError: It took longer. The result can still come.
            OSError: The result is below 0.
            RuntimeError: This is a task: ``await`` it.
        """
        if self._outcome.result is None:
            event = cast("GreenEvent", self._outcome.event)
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
        result = self._outcome.result
        if result is None:
            raise TimeoutError(f"wait for {self!r}: it is not done yet")
        if result < 0:
            raise OSError(-result, f"native code failed: {os.strerror(-result)}")
        return result

    def discard(self) -> None:
        """End it with ``ECANCELED``; native code must not have got the address."""
        self._port.drop(self.address)
        self._outcome.set(-errno.ECANCELED)

    async def _wait_in_task(self) -> int:
        event = cast("TaskEvent", self._outcome.event)
        if not inspect.iscoroutinefunction(event.wait):
            raise RuntimeError(f"await {self!r} in a greenlet: call its wait()")
        await event.wait()  # even if it is done: trio wants a checkpoint here
        return self.result()
