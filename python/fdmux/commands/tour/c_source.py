"""The native code that the tour puts beside Python's sockets.

It owns a pipe, a timer and a thread, all in C (csrc/python/demo.c), and only counts.
The one rule: its memory outlives the loop it was started in, so close that first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fdmux._ffi import ffi, lib
from fdmux._native import check
from fdmux.commands.tour.expect import expect

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from fdmux._ffi import CDemo
    from fdmux._native import NativeLoop


class Counts(NamedTuple):
    """What the C code has seen.

    Source:  struct fdmux_py_demo_counts in csrc/python/demo.h
    """

    bytes: int
    ticks: int
    calls: int
    in_order: int
    dropped: int
    destroyed: int


# The counts when the C code is done: bytes, ticks and calls, all of them in order.
ALL_DONE = (
    lib.FDMUX_PY_DEMO_CALLS,
    lib.FDMUX_PY_DEMO_TICKS,
    lib.FDMUX_PY_DEMO_CALLS,
    lib.FDMUX_PY_DEMO_CALLS,
)


class CSource:
    """Native code to be started in one loop, and freed on exit."""

    def __init__(self) -> None:
        self._demo: CDemo | None = None
        self._native: NativeLoop | None = None  # keeps the C loop's memory

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._demo is not None:
            check(
                lib.fdmux_py_demo_stop(self._demo), "stop the C code in a closed loop"
            )

    def start(self, native: NativeLoop) -> None:
        """Register the pipe and the timer of the C code, and start its thread."""
        made = ffi.new("struct fdmux_py_demo **")
        c_loop = native._c_loop  # noqa: SLF001 - our own handle
        check(lib.fdmux_py_demo_start(c_loop, made), "start the C code of the demo")
        self._demo = made[0]
        self._native = native

    def counts(self) -> Counts:
        """Return what has happened so far."""
        if self._demo is None:
            return Counts(0, 0, 0, 0, 0, 0)
        counts = ffi.new("struct fdmux_py_demo_counts *")
        lib.fdmux_py_demo_count(self._demo, counts)
        return Counts(*(getattr(counts, name) for name in Counts._fields))

    def is_done(self) -> bool:
        """Whether the C code has done all that it does while the loop runs."""
        return self.counts()[:4] == ALL_DONE

    def check_ended(self) -> str:
        """Check that it is done and that `destroyed` has run; say what it did."""
        counts = self.counts()
        expect(self.is_done(), f"the C code was not done: {counts}")
        expect(counts.destroyed == 2, f"not told of the loop's end: {counts}")
        return (
            f"in C {counts.bytes} bytes, {counts.ticks} ticks, "
            f"{counts.calls} posted calls"
        )
