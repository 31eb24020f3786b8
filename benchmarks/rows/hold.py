"""Row `hold`: how functions of a loop that call Python get the GIL.

An extension watches sockets, and its function calls a Python function for each that is
ready. It takes the GIL by `fdmux_hold_gil`, once a batch, or as extensions usually do,
by `PyGILState_Ensure` in each call: alone, and beside a Python thread that computes.
See programs/native/hold.c.
"""

from __future__ import annotations

import functools
import sys
import sysconfig
from typing import TYPE_CHECKING

from benchmarks.availability import load_fdmux
from benchmarks.build import build
from benchmarks.contenders import fdmux_include, run_interleaved
from benchmarks.processes import cores
from benchmarks.progress import progress
from benchmarks.result import Limit, Table
from benchmarks.rounds import column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.contenders import Command
    from benchmarks.options import Options
    from benchmarks.rounds import Figures

READY = (1, 10, 100)
EVENTS = 100_000
EVENTS_QUICK = 10_000
SECONDS_ALONE = 10.0
# Beside another thread the GIL may be gone for 5 ms (sys.setswitchinterval) at each
# event, or at few of them: here the time ends a round.
EVENTS_BESIDE = 1_000_000_000
SECONDS_BESIDE = 0.3
ROUNDS_MAX = 9

BASELINE = "PyGILState_Ensure"
HOLD = "fdmux_hold_gil"
WAYS = {BASELINE: "ensure", HOLD: "hold", "no Python": "none"}
LIMITS = (Limit(HOLD, 1.0, of=BASELINE),)


def measure(options: Options) -> Iterator[Table]:
    for company in ("alone", "beside"):
        for ready in READY:
            yield from _measure(options, company, ready)


def _measure(options: Options, company: str, ready: int) -> Iterator[Table]:
    is_alone = company == "alone"
    where = "alone" if is_alone else "beside a thread that computes"
    situation = f"{ready} ready in a batch, {where}"
    progress(f"  {situation}")
    left_out: dict[str, str] = {}
    events = EVENTS_QUICK if options.is_quick else EVENTS
    bounds = (events, SECONDS_ALONE) if is_alone else (EVENTS_BESIDE, SECONDS_BESIDE)
    words = (ready, *bounds, company)
    commands = {
        name: functools.partial(_command, way, *(str(word) for word in words))
        for name, way in WAYS.items()
    }
    # With one core for both threads, the scheduler would decide who has the GIL.
    core = cores(options.is_pinned)[0] if is_alone else None
    rounds = min(options.rounds, ROUNDS_MAX)
    figures = run_interleaved(commands, core, rounds, left_out)
    yield from _tables(situation, figures, left_out, ready > 1, is_alone)


def _tables(
    situation: str,
    figures: Figures,
    left_out: dict[str, str],
    has_limits: bool,
    is_alone: bool,
) -> Iterator[Table]:
    limits = LIMITS if has_limits and HOLD in figures else ()
    unit = "CPU ns per event, of the loop's thread"
    samples = column(figures, 0)
    yield Table("hold", situation, unit, BASELINE, samples, left_out, limits)
    if not is_alone:
        unit = "elapsed ns per event"
        samples = column(figures, 1)
        yield Table("hold", situation, unit, BASELINE, samples, left_out, limits)


def _command(way: str, *words: str) -> Command:
    load_fdmux("NativeLoop")
    return [
        sys.executable,
        "-m",
        "benchmarks.programs.hosted.hold",
        _extension(),
        way,
        *words,
    ]


def _extension() -> str:
    """Compile it with the header alone: it links nothing of ours."""
    python = sysconfig.get_path("include")
    return str(
        build(
            *("hold.c", "-shared", "-fPIC", "-DPy_LIMITED_API=0x030A0000"),
            *(f"-I{fdmux_include()}", f"-isystem{python}"),
        )
    )
