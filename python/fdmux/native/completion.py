"""Completion: one result of native code, which a task or a greenlet waits for.

Its one rule: the memory of a result belongs to native code until that has put its
address into the queue. It is not freed when a wait is cancelled, the `Completion` is
dropped or the loop ends, so a thread never writes into freed memory. Native code needs
nothing of Python to complete it, not even the GIL. What every completion does is in C
(csrc/python/completion.c); this file finds the loop.
"""

from __future__ import annotations

import inspect
import os
import weakref
from typing import TYPE_CHECKING, Protocol, cast

from fdmux import _delivery
from fdmux.hosts.registry import find_running
from fdmux.hosts.watched import Watched
from fdmux.native.queue import NativeQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from fdmux.hosts.watched import HostModule

    class TaskEvent(Protocol):
        """An event of trio."""

        async def wait(self) -> object:
            """Wait until it is set."""

    class GreenEvent(Protocol):
        """An event of gevent."""

        def wait(self, timeout: float | None) -> object:
            """Wait until it is set."""


__all__ = ["Completion"]


class Port(Watched):
    """The queue that announces the completions of one loop."""

    def __init__(self, module: HostModule, host: object) -> None:
        super().__init__(host)
        self.queue = NativeQueue()
        get_running = getattr(module, "running_getter", None)
        self.core = _delivery.CompletionPort(
            self.queue,
            None if get_running is None else get_running(),
            None if get_running is not None else getattr(module, "new_event", None),
        )
        # A loop that is never closed may be garbage, and this with it.
        self._end = weakref.finalize(self, end_port, self.queue, self.core)
        self._end.atexit = False

    def fileno(self) -> int:
        """Return the descriptor of the queue."""
        return self.queue.fileno()

    def _serve(self) -> None:
        """Complete one batch; the descriptor stays readable if there are more."""
        self.core.serve()

    def _close(self) -> None:
        self._end.detach()
        end_port(self.queue, self.core)


# Threads may still write to these: results under way when a loop ended.
abandoned: list[_delivery.Completion] = []


def end_port(queue: NativeQueue, core: _delivery.CompletionPort) -> None:
    """Close the queue; native code keeps the memory that it has, for good."""
    queue.close()
    abandoned.extend(core.close())


ports: weakref.WeakKeyDictionary[object, weakref.ref[Port]] = (
    weakref.WeakKeyDictionary()
)

# A forked child has no loop that runs, although asyncio may still say so.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_delivery.forget_port)


def port_of(module: HostModule, host: object) -> Port:
    """Return the `Port` of a loop; the first call makes it."""
    loop = module.loop_of(host)
    reference = ports.get(loop)
    port = None if reference is None else reference()
    if port is None or not port.is_mounted:
        port = Port(module, host)
        port.attach(module, host)
        ports[loop] = weakref.ref(port)
    if hasattr(module, "running_getter"):
        port.core.remember(loop)
    return port


class Completion(_delivery.Completion):
    """A result that native code will deliver, from any thread, without the GIL.

    >>> async def count():
    ...     completion = fdmux.aio.Completion()
    ...     extension.start(completion)
    ...     return await completion
    >>> asyncio.run(count())
    42

    In C: ``queue = fdmux_queue_from_object(completion)``, and ``address`` is an
    ``int64_t *``. The thread that is done writes its result there, and then calls
    ``fdmux_queue_put(queue, address)`` once, with its own reference to the queue. A
    result below 0 is ``-errno``. The address stays valid until that call, whatever
    Python does; native code must not use it afterwards.

    A function of the loop delivers any object with ``fdmux_complete()``, which takes
    the GIL once for all results of a batch.

    Make it in a task of asyncio (also uvloop, tornado, anyio) or trio, or in a greenlet
    of gevent; it belongs to that loop. Any number of tasks may await it, before and
    after it is done. Cancelling one `await` does not affect the others.

    Args:
        convert: Called in the loop's thread with the number that native code has
            written, unless it is an error; returns the result. So a thread may deliver
            a pointer, of which a function of the extension makes an object.

    Raises:
        RuntimeError: No loop runs in this thread in which one can await.
        TypeError: ``convert`` is not callable.
        OSError: The kernel has no descriptor for the queue of this loop.

    Order:   Completions of one thread are done in the order in which it put them.
    Threads: Only the loop's thread may use it; native code completes it from any.
    Source:  fdmux_queue_put() in fdmux.h, fdmux_complete() in fdmux_python.h
    """

    # In PyPy each type of C can be referred to weakly.
    __slots__ = () if hasattr(_delivery.Completion, "__weakref__") else ("__weakref__",)

    if TYPE_CHECKING:

        def __init__(self, convert: Callable[[int], object] | None = None) -> None: ...

    def __repr__(self) -> str:
        return f"<fdmux.aio.Completion at {id(self):#x}, {self._state()}>"

    def __fdmux_queue__(self) -> object:
        """Return the queue for native code, see `NativeQueue`."""
        return self._core.queue_owner.__fdmux_queue__()

    def wait(self, timeout: float | None = None) -> object:
        """Wait in a greenlet of gevent.

        Args:
            timeout: Seconds; ``None`` waits without limit.

        Raises:
            TimeoutError: It took longer. The result can still come.
            OSError: The result is below 0.
            RuntimeError: This is a task: ``await`` it.
        """
        if not self.is_done:
            event = cast("GreenEvent", self._get_event())
            if inspect.iscoroutinefunction(event.wait):
                raise RuntimeError(f"wait for {self!r} in a task: await it")
            event.wait(timeout)
        return self.result()

    def _state(self) -> str:
        """Say for `repr` how it stands."""
        if not self.is_done:
            return "pending"
        try:
            return f"result {self.result()!r}"
        except BaseException as error:  # noqa: BLE001 - whatever the outcome is
            return f"error {error!r}"

    def _await_event(self) -> Generator[object, object, object]:
        """Wait in a task of trio."""
        return self._wait_in_task().__await__()

    async def _wait_in_task(self) -> object:
        event = cast("TaskEvent", self._get_event())
        if not inspect.iscoroutinefunction(event.wait):
            raise RuntimeError(f"await {self!r} in a greenlet: call its wait()")
        await event.wait()  # even if it is done: trio wants a checkpoint here
        return self.result()

    @staticmethod
    def _find_port() -> _delivery.CompletionPort:
        """Return the port of the loop that runs here; C remembers asyncio's."""
        module, host = find_running()
        if getattr(module, "new_event", None) is None:
            raise RuntimeError(
                f"make a Completion: nothing can be awaited in {host!r}; watch a "
                "fdmux.NativeQueue there"
            )
        return port_of(module, host).core
