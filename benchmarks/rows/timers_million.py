"""Row `timers-million`: a million timers of asyncio's loop, armed and cancelled.

CPU time of either, and how far the peak of the resident set has grown. Every sample
has a process of its own: one that has had a million timers keeps their memory. See
hosted/asyncio_timers.py.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

from benchmarks.availability import load_fdmux, require
from benchmarks.contenders import Program, find
from benchmarks.processes import cores
from benchmarks.progress import progress
from benchmarks.result import Limit, Table
from benchmarks.rounds import column, interleave_figures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.contenders import Command
    from benchmarks.options import Options

BASELINE = "uvloop"
LIMITS = (Limit("fdmux-asyncio", 1.0, of=BASELINE),)
CONTENDERS = {BASELINE: "uvloop", "asyncio": "asyncio", "fdmux-asyncio": "fdmux"}
TIMERS = 1_000_000
TIMERS_QUICK = 20_000
ROUNDS_MAX = 5  # a sample of a million takes seconds
ROUNDS_QUICK = 1
PHASES = {
    "arm": "CPU ns per timer",
    "cancel": "CPU ns per timer",
    "memory": "bytes per timer, growth of the peak of the resident set",
}


def measure(options: Options) -> Iterator[Table]:
    count = TIMERS_QUICK if options.is_quick else TIMERS
    rounds = min(options.rounds, ROUNDS_QUICK if options.is_quick else ROUNDS_MAX)
    progress(f"  {count:,} timers")
    left_out: dict[str, str] = {}
    commands = {
        name: functools.partial(_command, loop, count)
        for name, loop in CONTENDERS.items()
    }
    core = cores(options.is_pinned)[0]
    contenders = {
        name: functools.partial(_sample, name, command, core)
        for name, command in find(commands, left_out).items()
    }
    figures = interleave_figures(contenders, rounds)
    for index, (phase, unit) in enumerate(PHASES.items()):
        heading = (f"{count:,} timers, {phase}", unit, BASELINE)
        samples = column(figures, index)
        yield Table("timers-million", *heading, samples, left_out, LIMITS)


def _command(loop: str, count: int) -> Command:
    if loop == "uvloop":
        require("uvloop")
    if loop == "fdmux":
        load_fdmux("Selector")
    module = "benchmarks.programs.hosted.asyncio_timers"
    return [sys.executable, "-m", module, loop, str(count)]


def _sample(name: str, command: Command, core: int | None) -> list[float]:
    program = Program(name, command, core)
    try:
        return program.run_round()
    finally:
        program.end()
