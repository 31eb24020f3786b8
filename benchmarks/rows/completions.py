"""Row `completions`: what it costs a task of asyncio to await one native result.

Completed through the queue, as a native thread does, or by a function of the loop, with
futures that a callback of the loop resolves as the measure. See
programs/native/completions.c.
"""

from __future__ import annotations

import functools
import sys
import sysconfig
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable, load_fdmux
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

TASKS = 100
RESULTS = 1000
RESULTS_QUICK = 50
LOOPS = ("asyncio", "uvloop", "fdmux")

BASELINE = "future, resolved in a callback"
QUEUE = "Completion, through the queue"
FUNCTION = "Completion, fdmux_complete"
WAYS = {BASELINE: "future", QUEUE: "queue", FUNCTION: "function"}
# On the other loops the futures are cheaper, and the rest costs the same.
LIMITS = {
    "asyncio": (Limit(QUEUE, 2.0, of=BASELINE), Limit(FUNCTION, 2.0, of=BASELINE))
}


def measure(options: Options) -> Iterator[Table]:
    for loop in LOOPS:
        situation = f"{TASKS} tasks on {loop}"
        progress(f"  {situation}")
        left_out: dict[str, str] = {}
        count = RESULTS_QUICK if options.is_quick else RESULTS
        commands = {
            name: functools.partial(_command, way, loop, str(TASKS), str(count))
            for name, way in WAYS.items()
        }
        core = cores(options.is_pinned)[0]
        figures = run_interleaved(commands, core, options.rounds, left_out)
        limits = LIMITS.get(loop, ()) if len(figures) == len(WAYS) else ()
        yield Table(
            *("completions", situation, "CPU ns per result", BASELINE),
            *(column(figures, 0), left_out, limits),
        )


def _command(way: str, loop: str, *words: str) -> Command:
    load_fdmux("aio")
    if loop == "uvloop":
        _need_uvloop()
    program = "benchmarks.programs.hosted.completions"
    return [sys.executable, "-m", program, _extension(), way, loop, *words]


def _need_uvloop() -> None:
    try:
        __import__("uvloop")
    except ImportError as error:
        raise Unavailable("uvloop is not installed") from error


def _extension() -> str:
    """Compile it with the header alone: it links nothing of ours."""
    python = sysconfig.get_path("include")
    return str(
        build(
            *("completions.c", "-shared", "-fPIC", "-DPy_LIMITED_API=0x030B0000"),
            *(f"-I{fdmux_include()}", f"-isystem{python}"),
        )
    )
