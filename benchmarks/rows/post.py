"""Row `post`: calls that other threads hand to a loop.

How many a second four native threads can post, none lost and each thread's in order;
and how soon a sleeping loop runs a call, in C and in Python. Elapsed time here, not CPU
time: the threads are there to run at once, and the question is when. Waker and loop
share a core, since how soon an idle core wakes up is no loop's merit, and differs from
one moment to the next. See programs/native/post.h and programs/wake_latency.py.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING

from benchmarks.availability import load_fdmux, require
from benchmarks.build import build
from benchmarks.contenders import build_on_fdmux, find, start
from benchmarks.processes import cores
from benchmarks.progress import progress
from benchmarks.result import Table
from benchmarks.rounds import interleave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.contenders import Command, Program
    from benchmarks.options import Options

THREADS = 4
CALLS = 250_000
CALLS_QUICK = 10_000
WAKES = 200
WAKES_QUICK = 20

NATIVE: dict[str, Callable[[], Command]] = {
    "libuv": lambda: [str(build("post_libuv.c", "-luv", "-pthread"))],
    "fdmux": lambda: [str(build_on_fdmux("post_fdmux.c"))],
}


def _python(name: str) -> Command:
    return [sys.executable, "-m", "benchmarks.programs.wake_latency", name]


def _uvloop() -> Command:
    require("uvloop")
    return _python("uvloop")


def _fdmux() -> Command:
    load_fdmux("SelectorEventLoop")
    return _python("fdmux")


PYTHON: dict[str, Callable[[], Command]] = {
    "uvloop": _uvloop,
    "fdmux": _fdmux,
    "asyncio": lambda: _python("asyncio"),
}


def measure(options: Options) -> Iterator[Table]:
    calls = CALLS_QUICK if options.is_quick else CALLS
    wakes = WAKES_QUICK if options.is_quick else WAKES
    unit = f"elapsed ns per call, {THREADS} threads together (200: 5 million a second)"
    situation = f"{THREADS} native threads, {calls:,} calls each, none lost"
    heading = (situation, unit, "libuv")
    yield _measure(options, heading, NATIVE, (THREADS, calls), None)
    core = cores(options.is_pinned)[0]
    situation = "a native thread wakes a sleeping loop"
    unit = f"ns from post to call, median of {wakes}"
    yield _measure(options, (situation, unit, "libuv"), NATIVE, (0, wakes), core)
    situation = "call_soon_threadsafe wakes a sleeping loop"
    yield _measure(options, (situation, unit, "uvloop"), PYTHON, (wakes,), core)


def _measure(
    options: Options,
    heading: tuple[str, str, str],
    commands: dict[str, Callable[[], Command]],
    arguments: tuple[int, ...],
    core: int | None,
) -> Table:
    situation, unit, baseline = heading
    progress(f"  {situation}")
    left_out: dict[str, str] = {}
    found = find(commands, left_out)
    with contextlib.ExitStack() as stack:
        programs = start(found, arguments, core, stack)
        contenders = {
            name: functools.partial(_sample, program)
            for name, program in programs.items()
        }
        samples = interleave(contenders, options.rounds)
    return Table("post", situation, unit, baseline, samples, left_out)


def _sample(program: Program) -> float:
    (figure,) = program.run_round()
    return figure
