"""The core loop of a `SelectorEventLoop`, wherever it runs, and the streams in it.

A `fdmux.Selector` runs its core loop inside ``select``. For any other selector a core
loop is made when somebody asks for it, and the selector watches its descriptor. Calls
no callback of Python except the `on_close` of streams, in `CoreLoop.abort_streams`.
"""

from __future__ import annotations

import contextlib
import errno
import time
from typing import TYPE_CHECKING

from fdmux._delivery import Delivery
from fdmux._ffi import lib
from fdmux._native import (
    FEATURES,
    LoopClosed,
    NativeLoop,
    c_loop_of,
    finish_streams,
)
from fdmux.selector import Selector, is_fn_error

if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable

TIMER_IN_FD = FEATURES[lib.FDMUX_FEATURE_TIMER_IN_FD]


class CoreLoop:
    """The core loop of one `SelectorEventLoop`.

    Attributes:
        inside: The core loop that runs inside ``select`` of a `fdmux.Selector`;
            ``None`` on any other selector.
        beside: The core loop whose descriptor another selector watches; ``None`` until
            it is made.
        untimed: The same as ``beside`` if its descriptor does not become readable when
            a timer is due (the kernel has refused a timerfd), else ``None``.
        delivery: What the streams of the loop share; ``None`` until it is made.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.inside = selector.native if isinstance(selector, Selector) else None
        self.beside: NativeLoop | None = None
        self.untimed: NativeLoop | None = None
        self.delivery: Delivery | None = None

    def native(self, watch: Callable[[NativeLoop], object]) -> NativeLoop:
        """Return the core loop; make it if need be, and pass the new one to ``watch``.

        Raises:
            OSError: The kernel has no descriptors to give.
        """
        if self.inside is not None:
            return self.inside
        if self.beside is None:
            native = NativeLoop()
            try:
                watch(native)
            except BaseException:
                native.close()
                raise
            self.beside = native
            if TIMER_IN_FD not in native.stats().features:
                self.untimed = native
        return self.beside

    def add_delivery(self, native: NativeLoop) -> Delivery:
        """Make what the streams of the loop share."""
        self.delivery = Delivery(native.__fdmux_loop__())
        return self.delivery

    def end_batch(self) -> None:
        """Make a ``select`` that is calling functions return, to wait less long.

        It waits for the deadline it was given, and there is an earlier one now.
        """
        if self.inside is not None:
            lib.fdmux_py_end_batch(c_loop_of(self.inside))

    def check_beside(self, native: NativeLoop) -> None:
        """Raise if somebody else has closed it; the selector would not report that.

        Raises:
            LoopClosed: It is closed.
        """
        if lib.fdmux_loop_fd(c_loop_of(native)) == -errno.ESTALE:
            raise LoopClosed("wait for events: the loop's native loop was closed")

    def limit_untimed(self, native: NativeLoop, limit: float | None) -> float | None:
        """Return how long a selector may wait so that no native timer is late."""
        due = native.next_deadline()
        if due is None:
            return limit
        time_left = max(due - time.monotonic(), 0.0)
        return time_left if limit is None else min(limit, time_left)

    def is_function_error(self, error: OSError) -> bool:
        """Whether ``select`` failed since a native function has returned this error."""
        if self.inside is None:
            return False
        return bool(is_fn_error(c_loop_of(self.inside), -(error.errno or 0)))

    def abort_streams(self) -> None:
        """Abort every stream and call its `on_close`; the loop is about to close."""
        native = self.inside or self.beside
        if self.delivery is None or native is None:
            return
        for stream in self.delivery.streams():
            stream.abort()
        for endpoint in self.delivery.endpoints():
            endpoint.abort()
        with contextlib.suppress(LoopClosed):  # somebody else has closed it
            finish_streams(native)

    def close(self) -> None:
        """Close the core loop that was made here; a selector closes its own."""
        if self.beside is not None:
            self.beside.close()

    def abandon_after_fork(self) -> None:
        """Run in the child: leave the streams to the parent."""
        if self.delivery is not None:
            self.delivery.abandon()
