"""CPU time of an event whose function, in C, calls Python; see native/hold.c.

    python -m benchmarks.programs.hosted.hold EXTENSION WAY READY EVENTS SECONDS THREADS

WAY is ``hold``, ``ensure`` or ``none``. THREADS is ``alone`` or ``beside``, where
another thread of Python computes all the time, and so wants the GIL. Prints for each
line the nanoseconds per event: CPU time of the thread that runs the loop, and elapsed;
of EVENTS, or of SECONDS.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Protocol, cast

from benchmarks.extensions import load_module
from benchmarks.processes import Failed
from benchmarks.ready_sockets import ready_sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "fdmux_benchmarks_hold"


class Extension(Protocol):
    """The functions of native/hold.c."""

    def watch(
        self, fds: list[int], function: Callable[[int], object], way: str
    ) -> None: ...
    def run(self, events: int, seconds: float) -> tuple[int, int, int]: ...


class Computing(threading.Thread):
    """Computes, and so wants the GIL, until told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.is_over = False

    def run(self) -> None:
        while not self.is_over:
            pass


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """Run a thread that computes during the block."""
    thread = Computing()
    thread.start()
    try:
        yield
    finally:
        thread.is_over = True
        thread.join()


class Calls:
    """Counts how often Python was called: as often as there were events."""

    def __init__(self) -> None:
        self.count = 0

    def note(self, _fd: int) -> None:
        self.count += 1

    def check(self, events: int) -> None:
        if self.count != events:
            raise Failed(f"{self.count} calls for {events} events")
        self.count = 0


def main() -> None:
    path, way, ready, count, seconds, company = sys.argv[1:]
    extension = cast("Extension", load_module(NAME, path))
    calls = Calls()
    with ready_sockets(int(ready)) as sockets:
        extension.watch([sock.fileno() for sock in sockets], calls.note, way)
        print("ready", flush=True)
        for _ in sys.stdin:
            with computing() if company == "beside" else contextlib.nullcontext():
                events, cpu, elapsed = extension.run(int(count), float(seconds))
            calls.check(0 if way == "none" else events)
            print(cpu / events, elapsed / events, flush=True)


if __name__ == "__main__":
    main()
