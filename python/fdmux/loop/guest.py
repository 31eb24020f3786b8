"""Guest: a `SelectorEventLoop` inside a loop of another kind, which waits for it.

Sockets, native watchers and calls from other threads make the descriptor of the guest
readable by themselves. This file adds two things: a timer of the core for the loop's
next Python timer, and a wake-up for calls that an exception has left in their queues.
So a host that watches the descriptor misses nothing, and sleeps while there is nothing
to do.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

from fdmux._ffi import lib
from fdmux._native import TIMEOUT_NS_MAX, timeout_ns
from fdmux.loop.event_loop import SelectorEventLoop, check_loop, iteration_of
from fdmux.loop.guest_base import GuestBase

if TYPE_CHECKING:
    from fdmux._native import NativeLoop
    from fdmux.loop.iteration import Iteration


def native_of(iteration: Iteration) -> NativeLoop:
    """Return the core loop, if all of the loop runs in it.

    Raises:
        TypeError: The loop has another selector, which watches its descriptors.
        LoopClosed: The loop is closed.
    """
    if iteration.core.inside is None:
        raise TypeError(
            f"make a Guest of a loop on {iteration.table.selector!r}: its selector "
            "must be a fdmux.Selector, since no other has one descriptor for everything"
        )
    return iteration.native()


class Guest(GuestBase):
    """A `SelectorEventLoop` inside a loop of another kind: C, GLib, libuv, a game's.

    The host watches `fileno` for reading, level-triggered, and calls `dispatch` each
    time it is readable. The host need not do more: Python's timers and calls from other
    threads make the descriptor readable as well.

    >>> with Guest() as guest:
    ...     guest.loop.register_read(sock, on_readable)
    ...     host.watch(guest.fileno(), guest.dispatch)

    Args:
        loop: The loop to run, on a `fdmux.Selector`; the caller closes it. ``None``
            makes a loop, which `close` closes.

    Attributes:
        loop: The loop. Register and call in it as usual, but do not `run` it.

    Raises:
        TypeError: ``loop`` is not a `SelectorEventLoop`, or has another selector.
        RuntimeError: ``loop`` has a guest already.
        OSError: The selector's backend has no such descriptor (``poll``): EOPNOTSUPP.
        LoopClosed: ``loop`` is closed.

    Threads: Only the host's thread may use it; other threads have the loop's
        ``call_soon_threadsafe``. The host must release the GIL while it waits.
    Fork: As `SelectorEventLoop`: the child closes the guest and makes a new one.
    """

    def __init__(self, loop: SelectorEventLoop | None = None) -> None:
        with contextlib.ExitStack() as on_failure:
            self._is_owner = loop is None
            if loop is None:
                self.loop: SelectorEventLoop = SelectorEventLoop()
                on_failure.callback(self.loop.close)
            else:
                check_loop(loop)
                self.loop = loop
            self._iteration = iteration_of(self.loop)
            native = native_of(self._iteration)
            if self._iteration.on_earlier_deadline is not None:
                raise RuntimeError(f"make a Guest of {self.loop!r}: it has one already")
            super().__init__(native)
            on_failure.pop_all()
        self._armed = math.inf  # the Python deadline that the timer is armed for
        self._armed_ns = 0  # the same on the core's clock
        self._is_dispatching = False
        self._iteration.on_earlier_deadline = self._arm
        self._prepare_wait()

    def dispatch(self) -> int:
        """Run one iteration of the loop without waiting.

        Native functions that are due run as well. In every callback `fdmux.current`
        returns the core loop. A call with nothing to do does no harm.

        Returns:
            How many callbacks ran.

        Raises:
            Exception: A callback raised it, and the loop has no error hook. The loop
                stays usable. If calls are left, the descriptor stays readable, and the
                next dispatch makes them.
            RuntimeError: Called in a callback of the loop, or the loop runs in another
                thread.
            LoopClosed: After `close`.
        """
        self._check_open("dispatch a guest")
        self._is_dispatching = True
        try:
            return self.loop.run_once(0)
        finally:
            self._is_dispatching = False
            self._prepare_wait()

    def close(self) -> None:
        """End the guest, and close the loop if the guest has made it. Idempotent.

        Stop watching the descriptor first. A loop that was given can `run` by itself
        afterwards, or have another guest.

        Raises:
            RuntimeError: The loop is running, and the guest has made it.
        """
        if self._is_closed:
            return
        if self._is_owner:
            self.loop.close()
        self._is_closed = True
        self._iteration.on_earlier_deadline = None
        # A loop that others have closed has no timer any more, and refuses.
        lib.fdmux_timer_remove(self._c_loop, self._timer)

    def _prepare_wait(self) -> None:
        """Arm the timer, and make the descriptor readable if calls are left."""
        iteration = self._iteration
        if iteration.unusable is not None:  # closed, or the parent's
            return
        self._arm()
        if iteration.posted or iteration.due:  # no descriptor announces these any more
            self._native.wake()

    def _arm(self) -> None:
        """Arm the core's timer for the next Python timer."""
        if self._is_dispatching:  # `dispatch` does it once, at its end
            return
        deadline = self._iteration.timers.next_deadline
        if deadline == math.inf:
            if self._armed != math.inf:
                self._disarm_timer()
                self._armed = math.inf
            return
        # Read the loop's clock before the core's: then a delay between the two makes
        # the timer later, never earlier.
        delay = min(deadline - self.loop.time(), TIMEOUT_NS_MAX / 2e9)
        now_ns = lib.fdmux_loop_now(self._c_loop)
        if deadline == self._armed and now_ns < self._armed_ns:
            return
        self._armed = deadline
        self._armed_ns = now_ns + timeout_ns(delay)
        self._arm_timer(self._armed_ns)
