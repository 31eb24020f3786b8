"""programs/native/timer_lateness.c in Python: a native timer, and how late it fired."""

from __future__ import annotations

import ctypes
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.availability import load_fdmux
from benchmarks.build import build
from benchmarks.contenders import fdmux_include
from benchmarks.native_loop import reference
from benchmarks.processes import Failed

if TYPE_CHECKING:
    from benchmarks.native_loop import HasNativeLoop

NO_FD = -1


@dataclass(frozen=True)
class NativeTimer:
    """There is one for each process: it measures one loop at a time."""

    library: ctypes.CDLL

    @classmethod
    def load(cls) -> NativeTimer:
        load_fdmux("SelectorEventLoop")
        include = f"-I{fdmux_include()}"
        path = build("timer_lateness.c", "-shared", "-fPIC", include)
        library = ctypes.CDLL(str(path))
        pointer, nanoseconds = ctypes.c_void_p, ctypes.c_int64
        library.bench_lateness_start.argtypes = (
            pointer,
            pointer,
            nanoseconds,
            ctypes.c_int,
            ctypes.c_int,
        )
        library.bench_lateness_at.restype = nanoseconds
        return cls(library)

    def start(
        self, loop: HasNativeLoop, timeout_ns: int, count: int, done_fd: int = NO_FD
    ) -> None:
        """Arm it; it arms itself again until it has fired ``count`` times."""
        found = reference(loop)
        error = self.library.bench_lateness_start(
            found.api, found.loop, timeout_ns, count, done_fd
        )
        if error < 0:
            raise OSError(-error, "start the timer")

    def is_done(self) -> bool:
        return bool(self.library.bench_lateness_left() == 0)

    def median_ns(self, count: int) -> float:
        """Return how late it fired; `Failed` if it stopped, or was ever early."""
        late: list[int] = [self.library.bench_lateness_at(at) for at in range(count)]
        if not self.is_done() or min(late) < 0:
            raise Failed(f"the timer stopped, or was early by {-min(late)} ns")
        return statistics.median(late)
