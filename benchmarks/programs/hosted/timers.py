"""How late a timer of 0.2 ms fires: a native one, or the host's own sleep.

    python -m benchmarks.programs.hosted.timers HOST WAY COUNT

WAY is ``native`` or ``sleep``. Prints for each line the median nanoseconds of COUNT.
"""

from __future__ import annotations

import statistics
import sys
import time

from benchmarks.native_timer import NativeTimer
from benchmarks.programs.hosted.hosts import Done, mount, run, sleep

TIMEOUT_NS = 200_000


async def median_of_sleeps(count: int) -> float:
    late: list[int] = []
    for _ in range(count):
        due = time.monotonic_ns() + TIMEOUT_NS
        await sleep(TIMEOUT_NS / 1e9)
        late.append(time.monotonic_ns() - due)
    return statistics.median(late)


async def median_of_timer(timer: NativeTimer, done: Done, count: int) -> float:
    timer.start(mount(), TIMEOUT_NS, count, done.fd)
    await done.wait()
    return timer.median_ns(count)


async def answer_lines(way: str, count: int) -> None:
    """Measure for each line of standard input, until its end."""
    timer = NativeTimer.load() if way == "native" else None
    done = Done()
    print("ready", flush=True)
    for _ in sys.stdin:
        if timer is None:
            print(await median_of_sleeps(count), flush=True)
        else:
            print(await median_of_timer(timer, done, count), flush=True)


def main() -> None:
    host, way, count = sys.argv[1:]
    run(host, lambda: answer_lines(way, int(count)))


if __name__ == "__main__":
    main()
