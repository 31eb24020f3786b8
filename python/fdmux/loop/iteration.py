"""Iteration: one iteration of a `SelectorEventLoop`, and all that it works on.

`SelectorEventLoop` is the public face of it. `Guest` asks it when the loop has to run
again.

Its one rule: no call is lost when a callback raises. Calls that are due or posted stay
in their queues until they run, and the selector reports a descriptor again while it is
ready.
"""

from __future__ import annotations

import collections
import errno
import math
import os
import weakref
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING

from fdmux._native import LoopClosed
from fdmux.checks import checked_timeout
from fdmux.loop.core_loop import CoreLoop
from fdmux.loop.interest import InterestTable
from fdmux.loop.timers import Handle, TimerQueue
from fdmux.loop.wakeup import WakeChannel
from fdmux.observing import SLOW

if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable, Sequence

    from fdmux._delivery import Delivery
    from fdmux._native import NativeLoop
    from fdmux.checks import Seconds
    from fdmux.loop.interest import Interest, WatchedKey
    from fdmux.observing import Observers

    ErrorHook = Callable[[Exception, object], object]

TURN = "turn"

# poll(2) and epoll_wait(2) take an int of milliseconds, at most 24.8 days. A longer
# wait ends early, as an iteration with nothing to do, and `run` waits again.
WAIT_MAX = 24 * 24 * 3600.0
# Of select(2) for a number that is not open; Windows says that it is no socket.
NOT_OPEN = (errno.EBADF, errno.ENOTSOCK)


class Iteration:
    """What a loop works on, and the order in which one iteration serves it.

    Attributes:
        table: The watched descriptors, and the selector that watches them.
        core: The core loop.
        wake: Ends a wait from another thread or a signal handler.
        timers: The calls that wait for their time.
        due: The calls whose time has come, until they have run.
        posted: The calls from other threads, until they have run.
        clock: What timers go by, in seconds.
        on_earlier_deadline: A guest's function, called when a new timer comes before
            all others.
        at_close: Are called first when the loop is closed; each removes itself.
        turn: Holds `TURN` while somebody runs or closes the loop; see running.py.
        slow_callback_duration: What is slow in debug mode, in seconds.
        is_stopping: `stop` was called, and the run it ends has not returned yet.
        is_one_batch: The run under way is a single batch for the streams.
        observers: Those of a loop that is or was observed; see observed.py.
        unusable: Why the loop cannot be used any more; ``None``: it can.
    """

    # Slots, since an observed loop has another class: to change that of an object with
    # a dictionary makes each access to its attributes slower.
    __slots__ = (
        "__weakref__",
        "_error_hook",
        "_wakes_seen",
        "at_close",
        "clock",
        "core",
        "due",
        "is_one_batch",
        "is_stopping",
        "observers",
        "on_earlier_deadline",
        "posted",
        "slow_callback_duration",
        "table",
        "timers",
        "turn",
        "unusable",
        "wake",
    )
    # In debug mode there are others; see debug.py.
    table_type = InterestTable
    timers_type = TimerQueue
    posted_type: type[collections.deque[Handle]] = collections.deque

    def __init__(
        self,
        selector: selectors.BaseSelector,
        error_hook: ErrorHook | None,
        clock: Callable[[], float],
    ) -> None:
        self.core = CoreLoop(selector)
        self.table = self.table_type(selector)
        self.wake = WakeChannel(self.core.inside)
        try:
            self.table.add(self.wake.reader, EVENT_READ, self._on_wake)
        except BaseException:
            self.wake.close()
            raise
        self.timers = self.timers_type()
        self.timers.on_earlier = self._on_earlier_deadline
        self.due: collections.deque[Handle] = collections.deque()
        self.posted: collections.deque[Handle] = self.posted_type()
        self.clock = clock
        self.on_earlier_deadline: Callable[[], object] | None = None
        self.at_close: set[Callable[[], object]] = set()
        self.turn: dict[str, object] = {}
        self.slow_callback_duration = SLOW
        self.is_stopping = False
        self.is_one_batch = False
        self.observers: Observers | None = None
        self.unusable: str | None = None
        self._error_hook = error_hook
        self._wakes_seen = 0
        live_iterations.add(self)

    def note_slow_callback_duration(self) -> None:
        """Use the new value; only debug mode does."""

    def check_usable(self) -> None:
        """Raise if the loop cannot be used any more.

        Raises:
            LoopClosed: It is closed, or belongs to the parent process.
        """
        if self.unusable is not None:
            raise LoopClosed(self.unusable)

    def native(self) -> NativeLoop:
        """Return the core loop; the first call makes it, except on a `fdmux.Selector`.

        Raises:
            LoopClosed: After `close`.
            OSError: The kernel has no descriptors to give.
        """
        self.check_usable()
        return self.core.native(self._watch_native)

    def delivery(self) -> Delivery:
        """Return what the streams of the loop share; the first call makes it.

        Raises:
            LoopClosed: After `close`.
        """
        self.check_usable()
        delivery = self.core.delivery
        if delivery is None:
            delivery = self.core.add_delivery(self.native())
            delivery.is_one_batch = self.is_one_batch
            if TURN in self.turn:  # this is a callback of the loop
                delivery.enter()
        return delivery

    # One iteration, and many -----------------------------------------------------

    def run_many(self, limit: float | None, left: float) -> None:
        """Run ``left`` iterations, or until `is_stopping`."""
        with self.wake.woken_by_signals():
            while left > 0:
                self.run(limit)
                left -= 1
                if self.is_stopping:
                    return

    def run(self, limit: float | None) -> int:
        """Run one iteration, with a wait of ``limit`` seconds at most.

        Returns:
            How many callbacks ran.

        Raises:
            LoopClosed: The loop was closed, or a callback has forked and this is the
                child.
            Exception: A callback raised it, and there is no error hook.
        """
        if self.unusable is not None:
            raise LoopClosed(self.unusable)
        core = self.core
        delivery = core.delivery
        calls_before = 0 if delivery is None else delivery.call_count
        ready = self._wait(limit)
        count = self._deliver(ready) if ready else 0
        if core.delivery is not None:
            count += core.delivery.call_count - calls_before
        if self._wakes_seen:
            count -= self._wakes_seen
            self._wakes_seen = 0
        timers = self.timers
        # Without timers the clock is not read: that saves time in each iteration.
        if timers.next_deadline != math.inf and timers.next_deadline <= self.clock():
            self.due.extend(timers.take_due(self.clock()))
        if self.due:
            count += self._make_calls(self.due)
        if self.posted:
            count += self._make_calls(self.posted)
        return count

    def _wait(self, limit: float | None) -> Sequence[tuple[WatchedKey, int]]:
        """Select, for no longer than until the next timer."""
        limit = self._bound(limit)
        core = self.core
        if core.beside is not None:
            core.check_beside(core.beside)
        table = self.table
        if table.has_ghosts:
            table.replace_selector()
        try:
            if core.untimed is None:
                return table.selector.select(limit)
            return self._wait_untimed(core.untimed, limit)
        except OSError as error:
            if self._took_error_of_native(error):
                return ()
            # select(2) fails as a whole for one closed descriptor.
            if error.errno in NOT_OPEN and table.drop_closed():
                return ()
            raise
        except LoopClosed:
            self.check_usable()  # a callback has forked, and this is the child
            raise

    def _bound(self, limit: float | None) -> float | None:
        """Return how long to wait at most: not at all if there are calls to make."""
        if self.is_stopping or self.posted or self.due:
            return 0.0
        deadline = self.timers.next_deadline
        if deadline != math.inf:
            time_left = max(deadline - self.clock(), 0.0)
            if time_left < (WAIT_MAX if limit is None else limit):
                return time_left
        return limit

    def _wait_untimed(
        self, native: NativeLoop, limit: float | None
    ) -> Sequence[tuple[WatchedKey, int]]:
        """Select, then dispatch the core loop, whose descriptor announces no timer."""
        ready = self.table.selector.select(self.core.limit_untimed(native, limit))
        native.dispatch(0)
        return ready

    def _took_error_of_native(self, error: OSError) -> bool:
        """Pass an error that a native function has returned to the error hook."""
        if self._error_hook is None or not self.core.is_function_error(error):
            return False
        self._error_hook(error, self.core.inside)
        return True

    def _deliver(self, ready: Sequence[tuple[WatchedKey, int]]) -> int:
        """Call the callbacks of one batch. The hot path: no lookup, no new object."""
        count = len(ready)  # one callback each, corrected below
        events_left = iter(ready)
        while True:
            interest: Interest | None = None
            events = 0
            try:
                for key, events in events_left:
                    interest = key.data
                    fileno = interest.fileno
                    if fileno is not None and fileno() != interest.fd:
                        self.table.drop(interest)
                        count -= 1
                    elif events == 1:  # EVENT_READ alone, as most are
                        callback = interest.on_read
                        if callback is not None:
                            callback(interest.reader)
                        else:
                            count -= 1
                    else:
                        count += call_both(interest, events) - 1
                return count  # noqa: TRY300 - the loop ends here, not the try
            except Exception as error:
                if self._error_hook is None:
                    raise
                self._error_hook(error, interest and interest.source_of(events))

    def _make_calls(self, calls: collections.deque[Handle]) -> int:
        """Make the calls that wait now; those they add are for the next iteration."""
        count = 0
        for _ in range(len(calls)):
            handle = calls.popleft()
            try:
                count += handle.run()
            except Exception as error:
                if self._error_hook is None:
                    raise
                count += 1
                self._error_hook(error, handle.source)
        return count

    def _on_earlier_deadline(self) -> None:
        self.core.end_batch()
        if self.on_earlier_deadline is not None:
            self.on_earlier_deadline()

    def _on_wake(self, _reader: object) -> None:
        self._wakes_seen += 1
        self.wake.drain()

    def _watch_native(self, native: NativeLoop) -> None:
        self.table.add(native, EVENT_READ, self._on_native)

    def _on_native(self, _native: object) -> None:
        self._wakes_seen += 1  # not a callback of the user's
        if self.core.beside is not None:
            self.core.beside.dispatch(0)

    # The end ---------------------------------------------------------------------

    def close(self) -> None:
        """Close the selector and all that was made for the loop. Idempotent."""
        self.unusable = "the loop is closed"
        while self.at_close:
            self.at_close.pop()()
        self.core.abort_streams()
        self.wake.close()
        self.table.selector.close()
        self.core.close()
        self.table.abandon()
        self.posted.clear()
        self.due.clear()
        self.timers.on_earlier = None  # handles keep the queue, but not this object
        self.timers = TimerQueue()

    def abandon_after_fork(self) -> None:
        """Run in the child: leave everything that is shared with the parent alone."""
        if self.unusable is None:
            self.unusable = (
                "the loop belongs to the parent process; make a new one after fork"
            )
        self.table.abandon()
        self.core.abandon_after_fork()
        self.at_close.clear()
        self.posted.clear()
        self.due.clear()
        self.wake.abandon_after_fork()
        self.turn = {}  # another thread may have held the old one


def wait_limit(timeout: Seconds | None) -> float | None:
    """Turn what users pass into what ``select`` takes.

    Negative means 0; ``None``, ``inf`` and anything above `WAIT_MAX` mean no limit.

    Raises:
        ValueError: ``timeout`` is NaN.
        TypeError: ``timeout`` is not a real number.
    """
    if type(timeout) is int and 0 <= timeout <= WAIT_MAX:  # usual, and fast
        return timeout
    seconds = checked_timeout(timeout)
    return None if seconds > WAIT_MAX else max(seconds, 0.0)


def call_both(interest: Interest, events: int) -> int:
    """Call the callbacks for ``events`` that are not `EVENT_READ` alone.

    Returns:
        How many were called.
    """
    count = 0
    callback = interest.on_read
    if events & EVENT_READ and callback is not None:
        callback(interest.reader)
        count = 1
    callback = interest.on_write  # read only now: `on_read` may have removed it
    if events & EVENT_WRITE and callback is not None:
        callback(interest.writer)
        count += 1
    return count


live_iterations: weakref.WeakSet[Iteration] = weakref.WeakSet()


def abandon_after_fork() -> None:
    """Detach every loop of the parent from the child."""
    for iteration in list(live_iterations):
        iteration.abandon_after_fork()


if hasattr(os, "register_at_fork"):  # where there is a fork
    os.register_at_fork(after_in_child=abandon_after_fork)
