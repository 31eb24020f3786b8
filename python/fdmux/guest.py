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

from fdmux._ffi import ffi, lib
from fdmux._native import TIMEOUT_NS_MAX, LoopClosed, check, timeout_ns
from fdmux.loop import SelectorEventLoop
from fdmux.selector import Selector

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from fdmux._ffi import CLoop
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


def add_timer(c_loop: CLoop) -> int:
    """Add a timer that stands for Python's; it calls nobody, it only wakes."""
    options = ffi.new("struct fdmux_timer_options *")
    options.struct_size = ffi.sizeof("struct fdmux_timer_options")
    token = ffi.new("uint64_t *")
    check(lib.fdmux_timer_add(c_loop, options, token), "add a guest's timer")
    return token[0]


class Guest:
    """A `SelectorEventLoop` inside a loop of another kind: C, GLib, libuv, a game's.

    The host watches `fileno` for reading, level-triggered, and calls `dispatch` each
    time it is readable. That is all: Python's timers and calls from other threads
    make the descriptor readable as well.

    >>> with Guest() as guest:
    ...     guest.loop.register_read(sock, on_readable)
    ...     host.watch(guest.fileno(), guest.dispatch)

    Only what is written to streams outside of `dispatch` waits for the next one: after
    having done so call `dispatch`, which never blocks.

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
            self._native = native_of(self.loop)
            self._native.fileno()
            timers = self.loop._timers  # noqa: SLF001 - the loop as its host sees it
            if timers.on_earlier is not None:
                raise RuntimeError(f"make a guest of {self.loop!r}: it is one already")
            self._timers = timers
            self._c_loop = self._native._c_loop  # noqa: SLF001 - our own handle
            self._timer = add_timer(self._c_loop)
            on_failure.pop_all()
        self._armed = math.inf  # for this deadline of Python's
        self._armed_ns = 0  # on the core's clock
        self._is_dispatching = False
        self._is_closed = False
        timers.on_earlier = self._arm
        self._prepare_wait()

    def fileno(self) -> int:
        """Return the one descriptor that stands for the loop, timers included.

        It polls readable when `dispatch` has something to do. It is the loop's: watch
        it for reading, level-triggered, and neither read nor close it.

        Raises:
            LoopClosed: After `close`.
        """
        self._check_open("get the descriptor of a guest")
        return self._native.fileno()

    def deadline(self) -> float | None:
        """Return when `dispatch` must be called even if nothing happens.

        For hosts that want to know; the descriptor becomes readable then anyhow.

        Returns:
            A time on `time.monotonic`'s clock, of the next Python or native timer; in
            the past if there is something to do already. ``None``: there is no timer.

        Raises:
            LoopClosed: After `close`.
        """
        self._check_open("get the deadline of a guest")
        return self._native.next_deadline()

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
        self._timers.on_earlier = None
        # Refused where the loop was closed by others: then there is no timer.
        lib.fdmux_timer_remove(self._c_loop, self._timer)

    def __enter__(self) -> Self:
        self._check_open("enter a guest")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self, attempted: str) -> None:
        if self._is_closed:
            raise LoopClosed(f"{attempted}: it is closed")

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
        hub = loop._hub  # noqa: SLF001 - the loop as its host sees it
        posted, due = loop._posted, loop._due  # noqa: SLF001 - the same
        return bool(posted or due or (hub is not None and hub.ops))

    def _arm(self) -> None:
        """Set the timer for Python's next deadline."""
        if self._is_dispatching:
            return  # once, at its end
        deadline = self._timers.next_deadline
        if deadline == math.inf:
            if self._armed != math.inf:
                lib.fdmux_timer_cancel(self._c_loop, self._timer)
                self._armed = math.inf
            return
        # The loop's clock before the core's: a delay in between makes it later.
        delay = min(deadline - self.loop.time(), TIMEOUT_NS_MAX / 2e9)
        now_ns = lib.fdmux_loop_now(self._c_loop)
        if deadline == self._armed and now_ns < self._armed_ns:
            return
        self._armed = deadline
        self._armed_ns = now_ns + timeout_ns(delay)
        check(
            lib.fdmux_timer_arm(self._c_loop, self._timer, self._armed_ns, 0),
            "arm a guest's timer",
        )
