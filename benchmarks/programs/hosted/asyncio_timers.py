"""Many timers of one asyncio loop, armed and then cancelled: CPU time and memory.

    python -m benchmarks.programs.hosted.asyncio_timers LOOP COUNT

Prints for each line CPU nanoseconds to arm and to cancel, and the bytes by which the
peak of the resident set has grown, all per timer. Memory that a round has given back
is reused by the next, so the runner asks a process once.

Deadlines are random, none comes due, and the order of cancelling is another one. One
turn of the loop belongs to either time: asyncio tidies up only there.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
import time
from pathlib import Path

from benchmarks.programs.hosted.hosts import run

FIRST_SECONDS = 3600.0
SEED = 1


def peak_bytes() -> int:
    """Return the peak of the resident set of this program.

    Not `ru_maxrss`: Linux carries that across exec, so it may be the runner's.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError("/proc/self/status has no VmHWM")
    return int(found[1]) * 1024


def nothing() -> None:
    """Stand for a timeout that does not happen."""


class Timers:
    """What is made ahead, so that neither its time nor its memory is measured."""

    def __init__(self, count: int) -> None:
        chance = random.Random(SEED)
        self._delays = [FIRST_SECONDS * (1 + chance.random()) for _ in range(count)]
        self._order = list(range(count))
        chance.shuffle(self._order)
        self._handles: list[asyncio.TimerHandle | None] = [None] * count

    def arm(self) -> None:
        loop, handles = asyncio.get_running_loop(), self._handles
        for index, delay in enumerate(self._delays):
            handles[index] = loop.call_later(delay, nothing)

    def cancel(self) -> None:
        handles = self._handles
        for index in self._order:
            handle = handles[index]
            if handle is not None:
                handle.cancel()
                handles[index] = None


async def measure(timers: Timers, count: int) -> tuple[float, float, float]:
    peak = peak_bytes()
    start = time.process_time_ns()
    timers.arm()
    await asyncio.sleep(0)
    armed = time.process_time_ns()
    timers.cancel()
    await asyncio.sleep(0)
    cancelled = time.process_time_ns()
    grown = peak_bytes() - peak
    return (armed - start) / count, (cancelled - armed) / count, grown / count


def main() -> None:
    name, count = sys.argv[1], int(sys.argv[2])

    async def answer_lines() -> None:
        timers = Timers(count)
        print("ready", flush=True)
        for _ in sys.stdin:
            print(*await measure(timers, count), flush=True)

    run(name, answer_lines)


if __name__ == "__main__":
    main()
