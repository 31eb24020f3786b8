"""Row `timers`: a million timers armed, cancelled and expired; and how late they fire.

First in C, where each program also counts the timers that fired before their time: one
of fdmux is an error. Then a timer of 0.2 ms with a function in C, in a loop that Python
runs. See programs/native/timers.h and programs/native/timer_lateness.c.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol, cast

from benchmarks.availability import Unavailable, load_fdmux
from benchmarks.build import build
from benchmarks.contenders import build_on_fdmux, find, start
from benchmarks.native_timer import NativeTimer
from benchmarks.processes import Failed, cores
from benchmarks.progress import progress
from benchmarks.result import Table
from benchmarks.rounds import interleave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.contenders import Command, Program
    from benchmarks.options import Options

BASELINE = "libuv"
TIMERS = 1_000_000
TIMERS_QUICK = 50_000
ROUNDS_MAX = 7  # a round of a million takes seconds
TIMEOUT_NS = 200_000
EXPIRIES = 500
EXPIRIES_QUICK = 50
HOST_SECONDS = 20.0

PROGRAMS: dict[str, Callable[[], Command]] = {
    BASELINE: lambda: [str(build("timers_libuv.c", "-luv"))],
    "fdmux": lambda: [str(build_on_fdmux("timers_fdmux.c"))],
}


class _Loop(Protocol):
    def __fdmux_loop__(self) -> object: ...
    def run_once(self, timeout: float) -> int: ...
    def close(self) -> None: ...


class _MakeLoop(Protocol):
    def __call__(self) -> _Loop: ...


def measure(options: Options) -> Iterator[Table]:
    yield from _measure_cost(options)
    yield _measure_lateness(options)


# ---- in C ------------------------------------------------------------------------


def _measure_cost(options: Options) -> Iterator[Table]:
    left_out: dict[str, str] = {}
    found = find(PROGRAMS, left_out)
    count = TIMERS_QUICK if options.is_quick else TIMERS
    progress(f"  {count:,} timers")
    figures: dict[str, list[list[float]]] = {name: [] for name in found}
    with contextlib.ExitStack() as stack:
        programs = start(found, [count], cores(options.is_pinned)[0], stack)
        for _ in range(min(options.rounds, ROUNDS_MAX)):
            for name, program in programs.items():
                figures[name].append(_checked_round(program))
    for situation, phases in _phases(count):
        samples = {
            name: [sum(one[phase] for phase in phases) for one in rounds]
            for name, rounds in figures.items()
        }
        yield Table(
            "timers", situation, "CPU ns per timer", BASELINE, samples, left_out
        )
    early = {name: [one[3] for one in rounds] for name, rounds in figures.items()}
    situation = f"{count:,} timers, fired before their time"
    yield Table("timers", situation, "timers", None, early, left_out)


def _phases(count: int) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (f"{count:,} timers, arm + cancel + expire", (0, 1, 2)),
        (f"{count:,} timers, arm", (0,)),
        (f"{count:,} timers, cancel", (1,)),
        (f"{count:,} timers, expire", (2,)),
    ]


def _checked_round(program: Program) -> list[float]:
    figures = program.run_round()
    if program.name == "fdmux" and figures[3] > 0:
        raise Failed(f"{figures[3]:.0f} timers of fdmux fired before their time")
    return figures


# ---- in a loop that Python runs ---------------------------------------------------


def _measure_lateness(options: Options) -> Table:
    situation = f"a native timer of {TIMEOUT_NS / 1e6} ms under a Python host"
    progress(f"  {situation}")
    left_out: dict[str, str] = {}
    samples: dict[str, list[float]] = {}
    count = EXPIRIES_QUICK if options.is_quick else EXPIRIES
    try:
        timer = NativeTimer.load()
        name = "fdmux.SelectorEventLoop"
        contenders = {name: lambda: _median_lateness(timer, count)}
        samples = interleave(contenders, min(options.rounds, ROUNDS_MAX))
    except Unavailable as reason:
        left_out["fdmux"] = str(reason)
    unit = f"us late, median of {count} expiries"
    return Table("timers", situation, unit, None, samples, left_out)


def _median_lateness(timer: NativeTimer, count: int) -> float:
    """Return how many microseconds after its time the timer fired."""
    loop = cast("_MakeLoop", load_fdmux("SelectorEventLoop"))()
    with contextlib.closing(loop):
        timer.start(loop, TIMEOUT_NS, count)
        for _ in range(count):
            if timer.is_done():
                break
            loop.run_once(timeout=HOST_SECONDS)
    return timer.median_ns(count) / 1000
