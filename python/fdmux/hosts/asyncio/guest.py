"""Guest: asyncio inside a loop of another kind: Qt's, GLib's, libuv's, a game's.

Its one rule: the selector never blocks. It records the deadline until which asyncio
would have waited, and stops the loop after that iteration; a timer of the core is armed
for the deadline. So the core's one descriptor polls readable whenever asyncio has
something to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fdmux._ffi import lib
from fdmux._native import LoopClosed, timeout_ns
from fdmux.hosts import asyncio_mount
from fdmux.hosts.asyncio.coroutines import check_coroutine
from fdmux.hosts.asyncio.loop import EventLoop, finish
from fdmux.hosts.asyncio.selector import StreamSelector
from fdmux.loop.guest_base import GuestBase

if TYPE_CHECKING:
    import asyncio
    import contextvars
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import TypeVarTuple

    from fdmux.selector import Pair

    Arguments = TypeVarTuple("Arguments")

Result = TypeVar("Result")

# A dispatch does at most this many iterations of asyncio, then returns to the host.
# What one message starts takes asyncio three or four.
ITERATIONS_MAX = 8
NEVER = -1


class AskedSelector(StreamSelector):
    """A selector that polls, and records until when it was asked to wait.

    Attributes:
        stop: The `stop` of the loop, called by each `select`. While it is ``None``,
            `select` waits.
        deadline_ns: Until when the last `select` was asked to wait, in ns on the core's
            clock; `NEVER`: without limit.
        is_idle: Whether the last `select` was asked to wait, found nothing ready, and
            nothing was scheduled since.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stop: Callable[[], object] | None = None
        self.deadline_ns: int = NEVER
        self.is_idle: bool = False

    def select(self, timeout: float | None = None) -> list[Pair]:  # type: ignore[explicit-any] # SelectorKey.data
        """Poll, and stop the loop after this iteration."""
        if self.stop is None:
            return super().select(timeout)
        self.is_idle = False
        wait_ns = timeout_ns(timeout)
        # Read the clock now: native functions and protocols that run in `select` below
        # must not delay the timer.
        self.deadline_ns = (
            NEVER if wait_ns < 0 else lib.fdmux_loop_now(self._c_loop) + wait_ns
        )
        self.stop()
        # Protocols called in `select` below may schedule work, which resets this.
        self.is_idle = wait_ns != 0
        ready = super().select(0)
        if ready:
            self.is_idle = False
        return ready


class GuestLoop(EventLoop):
    """The loop of a guest: it wakes the host when something is scheduled."""

    def __init__(self, selector: AskedSelector) -> None:
        super().__init__(selector)
        self._asked = selector
        self.is_hosted = False

    def call_soon(
        self,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Call soon, as asyncio does; outside of `Guest.dispatch`, wake the host."""
        handle = super().call_soon(callback, *args, context=context)
        self.wake_host()
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call later, as asyncio does; outside of `Guest.dispatch`, wake the host."""
        handle = super().call_at(when, callback, *args, context=context)
        self.wake_host()
        return handle

    def wake_host(self) -> None:
        """Make the descriptor poll readable, as the loop has something to do."""
        self._asked.is_idle = False
        if self.is_hosted and not self.is_running():
            self._asked.native.wake()

    def run_forever(self) -> None:
        """Refuse: the host runs this loop.

        Raises:
            RuntimeError: Always, while the guest is open.
        """
        self._check_unhosted("run_forever")
        super().run_forever()

    def run_until_complete(  # type: ignore[override] # whatever asyncio takes
        self, future: Awaitable[Result]
    ) -> Result:
        """Refuse, as `run_forever`; see `Guest.start`.

        Raises:
            RuntimeError: Always, while the guest is open.
        """
        self._check_unhosted("run_until_complete")
        return super().run_until_complete(future)

    def iterate(self) -> None:
        """Do one iteration; the selector stops the loop."""
        super().run_forever()

    def _check_unhosted(self, attempted: str) -> None:
        if self.is_hosted and not self.is_running():
            raise RuntimeError(
                f"{attempted} of {self!r}: it is the guest of another loop, which runs "
                "it; start coroutines with Guest.start"
            )


class Guest(GuestBase):
    """An asyncio loop inside a loop of another kind.

    The host watches `fileno` for reading, level-triggered, and calls `dispatch` each
    time it is readable. Timers, callbacks and calls from other threads make the
    descriptor readable too, so the host needs nothing else.

    >>> with fdmux.hosts.asyncio.Guest() as guest:
    ...     task = guest.start(main())
    ...     notifier = QSocketNotifier(guest.fileno(), QSocketNotifier.Type.Read)
    ...     notifier.activated.connect(guest.dispatch)
    ...     application.exec()

    Callbacks of the host may use the loop and its objects: create tasks, set results,
    write to transports. The descriptor polls readable then, and the next dispatch runs
    what they have scheduled.

    Attributes:
        loop: The loop, an `EventLoop`. It refuses to be run by itself. Its `stop` ends
            only the iteration under way.

    Threads: One thread at a time may use the guest: the host's. Other threads call the
        loop's ``call_soon_threadsafe`` or `asyncio.run_coroutine_threadsafe`. The host
        must release the GIL while it waits.
    Fork: As with any loop of asyncio: the child makes a new one.
    """

    def __init__(self) -> None:
        self._selector = AskedSelector()
        try:
            super().__init__(self._selector.native)
            self.loop: GuestLoop = GuestLoop(self._selector)
        except BaseException:
            self._selector.close()
            raise
        self._tasks: set[asyncio.Task[object]] = set()
        self._selector.stop = self.loop.stop
        self.loop.is_hosted = True
        self._native.wake()  # asyncio may have scheduled something already

    def start(
        self, main: Coroutine[object, object, Result], *, name: str | None = None
    ) -> asyncio.Task[Result]:
        """Start a coroutine in the loop, as a task.

        Args:
            main: The coroutine.
            name: The name of the task; ``None``: as asyncio names tasks.

        Returns:
            The task. The guest keeps a reference to it until it is done, so the caller
            need not. ``add_done_callback`` reports its result to the host.

        Raises:
            TypeError: ``main`` is no coroutine.
            LoopClosed: The guest is closed.
        """
        check_coroutine("start in a guest", main)
        self._check_open("start a coroutine in a guest")
        task = self.loop.create_task(main, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def dispatch(self) -> None:
        """Run what is ready without waiting: at most eight iterations of asyncio.

        Callbacks run as in any asyncio program: `asyncio.get_running_loop` returns the
        loop. Calling `dispatch` when nothing is ready does nothing.

        Raises:
            KeyboardInterrupt: A callback raised it, or `SystemExit`. The loop stays
                usable, and the descriptor readable. Other exceptions end a task, or go
                to the loop's exception handler.
            RuntimeError: Called in a callback of the loop, or in a coroutine of another
                loop that runs in this thread.
            OSError: A native function returned this error.
            LoopClosed: The guest is closed.
        """
        self._check_open("dispatch a guest")
        self._check_idle("dispatch a guest")
        try:
            for _ in range(ITERATIONS_MAX):
                self.loop.iterate()
                if self._selector.is_idle:
                    break
        except BaseException:
            self._selector.is_idle = (
                False  # callbacks after the one that raised are ready
            )
            raise
        finally:
            self._prepare_wait()

    def close(self) -> None:
        """Cancel the tasks and close the loop, as `asyncio.run` does. Idempotent.

        This blocks until the tasks and the threads of the default executor have ended;
        the host does not run meanwhile. Stop watching the descriptor first.

        Raises:
            RuntimeError: Called in a callback of the loop, or in a coroutine of another
                loop that runs in this thread. The guest stays open.
        """
        if self._is_closed:
            return
        self._check_idle("close a guest")
        self._is_closed = True
        self._selector.stop = None
        self.loop.is_hosted = False
        try:
            if not self.loop.is_closed():
                finish(self.loop)
        finally:
            self.loop.close()

    def _check_open(self, attempted: str) -> None:
        super()._check_open(attempted)
        if self.loop.is_closed():
            raise LoopClosed(f"{attempted}: its loop is closed")

    def _check_idle(self, attempted: str) -> None:
        if self.loop.is_running():
            raise RuntimeError(f"{attempted} in a callback of its own loop")
        other = asyncio_mount.running()
        if other is not None:
            raise RuntimeError(f"{attempted} while another loop runs here: {other!r}")

    def _prepare_wait(self) -> None:
        """Make the descriptor poll readable now, or when asyncio's timer is due."""
        if not self._selector.is_idle:
            self._native.wake()
            return
        deadline_ns = self._selector.deadline_ns
        if deadline_ns == NEVER:
            self._disarm_timer()
        else:
            self._arm_timer(deadline_ns)
