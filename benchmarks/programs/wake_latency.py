"""How soon a sleeping Python loop runs what a thread gave to ``call_soon_threadsafe``.

    python -m benchmarks.programs.wake_latency fdmux|uvloop|asyncio COUNT

Speaks as the programs of native/ do (native/rounds.h): ``ready``, then for each line
the median nanoseconds of COUNT wakes. The waking thread sleeps between them, so that
the loop sleeps too, and waits for each call before it makes the next.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol, cast

from benchmarks.availability import load_fdmux

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE_SECONDS = 0.0005
WAIT_SECONDS = 10.0


class Loop(Protocol):
    """What the loops have in common."""

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> object: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class _FdmuxLoop(Loop, Protocol):
    def run(self, timeout: float | None) -> object: ...


def measure(loop: Loop, count: int) -> list[int]:
    """Wake ``loop``, which another thread runs; return each latency."""
    latencies: list[int] = []
    has_run = threading.Event()
    posted_at = 0

    def note() -> None:
        latencies.append(time.perf_counter_ns() - posted_at)
        has_run.set()

    for _ in range(count):
        time.sleep(PAUSE_SECONDS)
        has_run.clear()
        posted_at = time.perf_counter_ns()
        loop.call_soon_threadsafe(note)
        if not has_run.wait(WAIT_SECONDS):
            break
    return latencies


def answer_lines(loop: Loop, count: int) -> None:
    """Measure for each line of standard input; at its end stop the loop."""
    for _ in sys.stdin:
        latencies = measure(loop, count)
        if len(latencies) < count:
            break  # the runner sees the end and no figure
        print(statistics.median(latencies), flush=True)
    loop.call_soon_threadsafe(loop.stop)


def run_forever(name: str) -> tuple[Loop, Callable[[], object]]:
    """Make the loop of that name; also return what runs it until it is stopped."""
    if name == "fdmux":
        loop = cast("Callable[[], _FdmuxLoop]", load_fdmux("SelectorEventLoop"))()
        return loop, lambda: loop.run(timeout=None)
    if name == "uvloop":
        import uvloop  # noqa: PLC0415 - only this contender needs it

        other: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        other = asyncio.new_event_loop()
    return other, other.run_forever


def main() -> None:
    name, count = sys.argv[1], int(sys.argv[2])
    loop, run = run_forever(name)
    waker = threading.Thread(target=answer_lines, args=(loop, count))
    waker.start()
    print("ready", flush=True)
    run()
    waker.join()
    loop.close()


if __name__ == "__main__":
    main()
