"""Guest: a `SelectorEventLoop` whose waiting is done by somebody else's loop.

Its one rule: the descriptor polls readable whenever `Guest.dispatch` has something to
do, so a host that watches it misses nothing, and a host that is idle sleeps. Sockets,
native watchers and calls from other threads are behind that descriptor anyway; what
this file adds is the loop's next Python deadline, as a timer in the core, and a wake-up
for what an exception has left behind.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

from fdmux._ffi import lib
from fdmux._native import TIMEOUT_NS_MAX, timeout_ns
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.loop.guest_base import GuestBase
from fdmux.selector import Selector

if TYPE_CHECKING:
    from fdmux._native import NativeLoop


def native_of(loop: SelectorEventLoop) -> NativeLoop:
    """Return the core loop that all of ``loop`` runs in.

    Raises:
        TypeError: Its selector is another one, whose descriptors are elsewhere.
    """
    selector = loop._table.selector  # noqa: SLF001 - the loop as its host sees it
    if not isinstance(selector, Selector):
        raise TypeError(
            f"make a guest of a loop on {selector!r}: one descriptor stands for all "
            "only in a SelectorEventLoop(fdmux.Selector())"
        )
    return loop.native


class Guest(GuestBase):
    """A `SelectorEventLoop` inside a loop of another kind: C, GLib, libuv, a game's.

    The host watches `fileno` for reading, level-triggered, and calls `dispatch` each
    time it is readable. That is all: Python's timers and calls from other threads
    make the descriptor readable as well.

    >>> with Guest() as guest:
    ...     guest.loop.register_read(sock, on_readable)
    ...     host.watch(guest.fileno(), guest.dispatch)

    Args:
        loop: What to run, on a `fdmux.Selector`; it stays the caller's. ``None`` makes
            a loop, which `close` closes.

    Attributes:
        loop: The loop; use it as ever, but do not `run` it.

    Raises:
        TypeError: ``loop`` is on another selector.
        RuntimeError: ``loop`` has a guest already.
        OSError: The selector's backend has no such descriptor (``poll``): EOPNOTSUPP.
        LoopClosed: ``loop`` is closed.

    Threads: Everything belongs to one thread at a time, the host's; other threads have
        the loop's ``call_soon_threadsafe``. The host releases the GIL while it waits.
    Fork: As `SelectorEventLoop`: the child closes the guest and makes a new one.
    """

    def __init__(self, loop: SelectorEventLoop | None = None) -> None:
        with contextlib.ExitStack() as on_failure:
            self._is_owner = loop is None
            self.loop = SelectorEventLoop() if loop is None else loop
            if self._is_owner:
                on_failure.callback(self.loop.close)
            native = native_of(self.loop)
            if self.loop.on_earlier_deadline is not None:
                raise RuntimeError(f"make a guest of {self.loop!r}: it is one already")
            self._timers = self.loop._timers  # noqa: SLF001 - the loop as its host sees it
            super().__init__(native)
            on_failure.pop_all()
        self._armed = math.inf  # for this deadline of Python's
        self._armed_ns = 0  # on the core's clock
        self._is_dispatching = False
        self.loop.on_earlier_deadline = self._arm
        self._prepare_wait()

    def dispatch(self) -> int:
        """Do one iteration of the loop without waiting.

        Native functions that are due run as well. `fdmux.current` finds the loop in
        every callback. Calling it once too often does no harm.

        Returns:
            How many callbacks ran.

        Raises:
            Exception: What a callback raised (unless the loop has an error hook). The
                loop stays usable, and the descriptor readable: what had to wait is
                called by the next dispatch.
            RuntimeError: Called in a callback of the loop, or it runs elsewhere.
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
        """Leave the host: close the loop if the guest has made it. Idempotent.

        A loop that was given can `run` by itself afterwards, or have another guest.
        Stop watching the descriptor first.

        Raises:
            RuntimeError: The loop runs right now, and is the guest's to close.
        """
        if self._is_closed:
            return
        if self._is_owner:
            self.loop.close()
        self._is_closed = True
        self.loop.on_earlier_deadline = None
        # Refused where the loop was closed by others: then there is no timer.
        lib.fdmux_timer_remove(self._c_loop, self._timer)

    def _prepare_wait(self) -> None:
        """Let the descriptor tell the truth about what Python has to do."""
        if self.loop._unusable is not None:  # noqa: SLF001 - the loop as its host sees it
            return  # closed, or a parent's: it has nothing to do any more
        self._arm()
        if self._has_work_left():
            self._native.wake()

    def _has_work_left(self) -> bool:
        """Whether calls wait that nothing in the kernel announces any more."""
        loop = self.loop
        posted, due = loop._posted, loop._due  # noqa: SLF001 - the loop as its host sees it
        return bool(posted or due)

    def _arm(self) -> None:
        """Set the timer for Python's next deadline."""
        if self._is_dispatching:
            return  # once, at its end
        deadline = self._timers.next_deadline
        if deadline == math.inf:
            if self._armed != math.inf:
                self._disarm_timer()
                self._armed = math.inf
            return
        # The loop's clock before the core's: a delay in between makes it later.
        delay = min(deadline - self.loop.time(), TIMEOUT_NS_MAX / 2e9)
        now_ns = lib.fdmux_loop_now(self._c_loop)
        if deadline == self._armed and now_ns < self._armed_ns:
            return
        self._armed = deadline
        self._armed_ns = now_ns + timeout_ns(delay)
        self._arm_timer(self._armed_ns)
