"""Row `asyncio-calls`: CPU time of what a program asks of asyncio's loop, no I/O.

All loops live in this process and take turns. The time is that of the whole process,
so the thread that calls `call_soon_threadsafe` is in it. aiofastnet replaces only
transports, so it has no line. See loop_calls.py.
"""

from __future__ import annotations

import contextlib
import functools
import time
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable, load_fdmux, require
from benchmarks.loop_calls import OPERATIONS
from benchmarks.programs.servers.asyncio_protocol import LOOPS
from benchmarks.progress import progress
from benchmarks.result import Limit, Table
from benchmarks.rounds import interleave

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from benchmarks.loop_calls import Operation
    from benchmarks.options import Options

BASELINE = "uvloop"
CONTENDERS = {BASELINE: "uvloop", "asyncio": "asyncio", "fdmux-asyncio": "fdmux"}
LIMITS = (Limit("fdmux-asyncio", 1.0, of=BASELINE),)
COUNT = 10_000  # 3 ms of the cheapest, 0.2 s of the dearest
COUNT_QUICK = 1_000


def measure(options: Options) -> Iterator[Table]:
    left_out: dict[str, str] = {}
    count = COUNT_QUICK if options.is_quick else COUNT
    with contextlib.ExitStack() as stack:
        loops = _loops(left_out, stack)
        for situation, operation in OPERATIONS.items():
            progress(f"  {situation}")
            contenders = {
                name: functools.partial(_cpu_per_operation, operation, loop, count)
                for name, loop in loops.items()
            }
            for warm_up in contenders.values():
                warm_up()
            samples = interleave(contenders, options.rounds)
            heading = (situation, "CPU ns per operation", BASELINE)
            yield Table("asyncio-calls", *heading, samples, left_out, LIMITS)


def _loops(
    left_out: dict[str, str], stack: contextlib.ExitStack
) -> dict[str, asyncio.AbstractEventLoop]:
    """Make the loops that can be made here."""
    loops: dict[str, asyncio.AbstractEventLoop] = {}
    for name, kind in CONTENDERS.items():
        try:
            if kind == "uvloop":
                require("uvloop")
            if kind == "fdmux":
                load_fdmux("Selector")
        except Unavailable as reason:
            left_out[name] = str(reason)
            continue
        loops[name] = LOOPS[kind]()
        stack.callback(loops[name].close)
    return loops


def _cpu_per_operation(
    operation: Operation, loop: asyncio.AbstractEventLoop, count: int
) -> float:
    start = time.process_time_ns()
    operation(loop, count)
    return (time.process_time_ns() - start) / count
