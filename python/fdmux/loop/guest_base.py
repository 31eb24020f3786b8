"""GuestBase: one descriptor that a host watches, and a timer of the core behind it.

Its one rule: the descriptor polls readable whenever there is something to do. guest.py
and hosts/asyncio/guest.py say which loop of Python is behind it, and arm the timer for
the next deadline of that loop.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from fdmux._ffi import ffi, lib
from fdmux._native import LoopClosed, c_loop_of, check

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from fdmux._native import NativeLoop


class GuestBase(abc.ABC):
    """A loop of Python for which a loop of another kind, its host, waits."""

    def __init__(self, native: NativeLoop) -> None:
        self._native = native
        self._c_loop = c_loop_of(native)
        native.fileno()  # from now on the descriptor announces deadlines as well
        self._timer = self._add_timer()
        self._is_closed = False

    def fileno(self) -> int:
        """Return the one descriptor that stands for the loop, timers included.

        It polls readable when `dispatch` has something to do. Watch it for reading,
        level-triggered. It belongs to the loop: neither read nor close it.

        Raises:
            LoopClosed: After `close`.
        """
        self._check_open("get the descriptor of a guest")
        return self._native.fileno()

    def deadline(self) -> float | None:
        """Return when `dispatch` must be called even if nothing happens.

        A host need not ask: the descriptor becomes readable at that time.

        Returns:
            A time on `time.monotonic`'s clock, of the next Python or native timer; in
            the past if there is something to do already. ``None``: there is no timer.

        Raises:
            LoopClosed: After `close`.
        """
        self._check_open("get the deadline of a guest")
        return self._native.next_deadline()

    @abc.abstractmethod
    def close(self) -> None:
        """End the guest; the host must have stopped watching the descriptor."""

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

    def _add_timer(self) -> int:
        """Add a timer without a function: it only makes the descriptor readable."""
        options = ffi.new("struct fdmux_timer_options *")
        options.struct_size = ffi.sizeof("struct fdmux_timer_options")
        options.flags = lib.FDMUX_COLLECT
        token = ffi.new("uint64_t *")
        check(lib.fdmux_timer_add(self._c_loop, options, token), "add a guest's timer")
        return token[0]

    def _arm_timer(self, deadline_ns: int) -> None:
        """Arm the timer, on the core's clock."""
        result = lib.fdmux_timer_arm(self._c_loop, self._timer, deadline_ns, 0)
        check(result, "arm a guest's timer")

    def _disarm_timer(self) -> None:
        """Cancel the timer. A loop that others have closed refuses; that is fine."""
        lib.fdmux_timer_cancel(self._c_loop, self._timer)
