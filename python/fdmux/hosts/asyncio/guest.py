"""Guest: asyncio inside a loop of another kind: Qt's, GLib's, libuv's, a game's.

Its one rule: the selector never blocks. It notes until when asyncio would have waited,
and lets the loop stop after that iteration; a timer of the core stands for the time
noted. So the one descriptor of the core polls readable whenever asyncio has something
to do.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from fdmux._ffi import lib
from fdmux._native import LoopClosed, timeout_ns
from fdmux.hosts.asyncio.coroutines import check_coroutine
from fdmux.hosts.asyncio.loop import EventLoop, finish
from fdmux.hosts.asyncio.selector import StreamSelector
from fdmux.loop.guest_base import GuestBase

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import TypeVarTuple

    from fdmux.selector import Pair

    Arguments = TypeVarTuple("Arguments")

Result = TypeVar("Result")

# A dispatch goes on for so long while one thing leads to another, then the host has its
# turn: what a message sets off takes asyncio three or four iterations.
ITERATIONS_MAX = 8
NEVER = -1


class AskedSelector(StreamSelector):
    """A selector that polls, and notes until when it was asked to wait.

    Attributes:
        stop: Called by each `select`: the `stop` of the loop. ``None`` lets it wait.
        deadline_ns: Until when the last `select` was asked to wait, on the core's
            clock; `NEVER`: for ever.
        is_idle: Nothing has happened since it was asked, and nothing was due.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stop: Callable[[], object] | None = None
        self.deadline_ns = NEVER
        self.is_idle = False

    def select(self, timeout: float | None = None) -> list[Pair]:  # type: ignore[explicit-any] # SelectorKey.data
        """Poll, and let the loop end with this iteration."""
        if self.stop is None:
            return super().select(timeout)
        self.is_idle = False
        wait_ns = timeout_ns(timeout)
        # Now: what native functions and protocols take in here makes no timer late.
        self.deadline_ns = (
            NEVER if wait_ns < 0 else lib.fdmux_loop_now(self._c_loop) + wait_ns
        )
        self.stop()
        # Protocols that are called in here may call for more, and take this back.
        self.is_idle = wait_ns != 0
        ready = super().select(0)
        if ready:
            self.is_idle = False
        return ready


class GuestLoop(EventLoop):
    """The loop of a guest: it tells its host of whatever is asked of it."""

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
        """Call soon, as asyncio does; outside of `Guest.dispatch` the host is told."""
        handle = super().call_soon(callback, *args, context=context)
        self.tell_host()
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call later, as asyncio does; outside of `Guest.dispatch` the host is told."""
        handle = super().call_at(when, callback, *args, context=context)
        self.tell_host()
        return handle

    def tell_host(self) -> None:
        """Let the descriptor poll readable: there is something to do."""
        self._asked.is_idle = False
        if self.is_hosted and not self.is_running():
            self._asked.native.wake()

    def run_forever(self) -> None:
        """Refuse: the host runs this loop.

        Raises:
            RuntimeError: Always, as long as the guest is open.
        """
        self._check_unhosted("run_forever")
        super().run_forever()

    def run_until_complete(  # type: ignore[override] # whatever asyncio takes
        self, future: Awaitable[Result]
    ) -> Result:
        """Refuse, as `run_forever`; see `Guest.start`.

        Raises:
            RuntimeError: Always, as long as the guest is open.
        """
        self._check_unhosted("run_until_complete")
        return super().run_until_complete(future)

    def iterate(self) -> None:
        """Do one iteration; the selector stops it."""
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
    time it is readable. That is all: timers, callbacks and calls from other threads
    make the descriptor readable as well.

    >>> with fdmux.hosts.asyncio.Guest() as guest:
    ...     task = guest.start(main())
    ...     notifier = QSocketNotifier(guest.fileno(), QSocketNotifier.Type.Read)
    ...     notifier.activated.connect(guest.dispatch)
    ...     application.exec()

    Callbacks of the host may use the loop and what belongs to it: create tasks, set
    results, write to transports. The descriptor polls readable then, and the next
    dispatch does it.

    Attributes:
        loop: The loop: an `EventLoop`, with transports on streams of C. It cannot be
            run by itself; its `stop` ends the iteration under way, and no more.

    Threads: Everything belongs to one thread at a time, the host's; other threads have
        the loop's ``call_soon_threadsafe`` and `asyncio.run_coroutine_threadsafe`. The
        host releases the GIL while it waits.
    Fork: As with any loop of asyncio: the child makes a new one.
    """

    def __init__(self) -> None:
        self._selector = AskedSelector()
        try:
            super().__init__(self._selector.native)
            self.loop = GuestLoop(self._selector)
        except BaseException:
            self._selector.close()
            raise
        self._tasks: set[asyncio.Task[object]] = set()
        self._selector.stop = self.loop.stop
        self.loop.is_hosted = True
        self._native.wake()  # whatever asyncio has begun with

    def start(
        self, main: Coroutine[object, object, Result], *, name: str | None = None
    ) -> asyncio.Task[Result]:
        """Let a coroutine run in the loop.

        Returns:
            Its task: `add_done_callback` tells the host of its result. The guest keeps
            it until then, so the caller need not.

        Raises:
            TypeError: ``main`` is no coroutine.
            LoopClosed: After `close`.
        """
        check_coroutine("start in a guest", main)
        self._check_open("start a coroutine in a guest")
        task = self.loop.create_task(main, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def dispatch(self) -> None:
        """Do what there is to do, a few iterations of asyncio at most, without waiting.

        Callbacks run as in any asyncio program: `asyncio.get_running_loop` is the loop.
        Calling it once too often does no harm.

        Raises:
            KeyboardInterrupt: Or `SystemExit`, of a callback. The loop stays usable,
                and the descriptor readable. Other exceptions end a task, or go to the
                loop's exception handler.
            RuntimeError: Called in a callback of the loop, or in a coroutine of another
                loop that runs in this thread.
            OSError: A native function returned this error.
            LoopClosed: After `close`.
        """
        self._check_open("dispatch a guest")
        self._check_idle("dispatch a guest")
        try:
            for _ in range(ITERATIONS_MAX):
                self.loop.iterate()
                if self._selector.is_idle:
                    break
        except BaseException:
            self._selector.is_idle = False  # whatever waits behind what has raised
            raise
        finally:
            self._prepare_wait()

    def close(self) -> None:
        """End it as `asyncio.run` does: cancel its tasks, close the loop. Idempotent.

        This waits for tasks to end, without the host, and for threads of the default
        executor. Stop watching the descriptor first.

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
        try:
            other = asyncio.get_running_loop()
        except RuntimeError:  # none runs in this thread, as it should be
            return
        raise RuntimeError(f"{attempted} while another loop runs here: {other!r}")

    def _prepare_wait(self) -> None:
        """Let the descriptor tell the truth about when asyncio wants to go on."""
        if not self._selector.is_idle:
            self._native.wake()
            return
        deadline_ns = self._selector.deadline_ns
        if deadline_ns == NEVER:
            self._disarm_timer()
        else:
            self._arm_timer(deadline_ns)
