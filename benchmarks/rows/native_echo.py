"""Row `native_echo`: an echo service in C that Python hosts, beside those in C alone.

`examples/native-echo` as it stands, in a `SelectorEventLoop`: CPU time of the process
per message, as in the echo row; and in the same run how late a timer of Python's, every
10 ms in the same loop, was while the messages went through.
"""

from __future__ import annotations

import contextlib
import functools
import math
import statistics
import sys
import sysconfig
from typing import TYPE_CHECKING

from benchmarks.availability import load_fdmux
from benchmarks.build import ROOT, build
from benchmarks.contenders import fdmux_include, find
from benchmarks.instructions import instructions_per_message
from benchmarks.processes import Server, cores
from benchmarks.progress import progress
from benchmarks.result import Table
from benchmarks.rounds import interleave
from benchmarks.rows import echo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.contenders import Command
    from benchmarks.options import Options
    from benchmarks.processes import Load

SOURCES = ROOT / "examples" / "native-echo" / "src"
NAME = "fdmux"
REPORT_SECONDS = 10.0


def _fdmux() -> Command:
    load_fdmux("SelectorEventLoop")
    extension = str(_build_extension())
    return [sys.executable, "-m", "benchmarks.programs.servers.native_echo", extension]


def _build_extension() -> Path:
    """Compile the example as its setup.py does, but here and without pip."""
    python = sysconfig.get_path("include")
    return build(
        *(str(path) for path in sorted(SOURCES.glob("*.c"))),
        *("-shared", "-fPIC", "-DPy_LIMITED_API=0x030A0000"),
        *(f"-I{fdmux_include()}", f"-isystem{python}"),
    )


SERVERS: dict[str, Callable[[], Command]] = {
    echo.BASELINE: echo.SERVERS[echo.BASELINE],
    "libuv": echo.SERVERS["libuv"],
    NAME: _fdmux,
}


def measure(options: Options) -> Iterator[Table]:
    left_out: dict[str, str] = {}
    found = find(SERVERS, left_out)
    all_loads = list(echo.loads(options))
    with contextlib.ExitStack() as stack:
        core = cores(options.is_pinned)[0]
        servers = echo.start_servers(found, left_out, core, stack)
        for load in all_loads:
            yield from _measure(load, servers, left_out, options.rounds)
    if options.has_instructions:
        for load in all_loads:
            yield _count_instructions(load, found, left_out)


def _measure(
    load: Load, servers: dict[str, Server], left_out: dict[str, str], rounds: int
) -> Iterator[Table]:
    situation = echo.situation(load)
    progress(f"  {situation}")
    late: list[float] = []
    contenders = {
        name: functools.partial(load.cpu_per_message, server)
        for name, server in servers.items()
    }
    if NAME in servers:
        contenders[NAME] = functools.partial(_sample, load, servers[NAME], late)
    samples = interleave(contenders, rounds)
    unit = "server CPU us per message"
    yield Table("native_echo", situation, unit, echo.BASELINE, samples, left_out)
    unit = f"us late: a Python timer every 10 ms beside it, {len(late)} ticks"
    yield Table("native_echo", situation, unit, None, _percentiles(late), left_out)


def _sample(load: Load, server: Server, late: list[float]) -> float:
    """As `Load.cpu_per_message`; and note how late the timer was meanwhile."""
    with load.started(server.name, server.port) as generator:
        _report(server)
        before = server.cpu_nanoseconds()
        count = generator.run_messages()
        cpu = server.cpu_nanoseconds() - before
        late += _report(server)
    return cpu / 1000 / count


def _report(server: Server) -> list[float]:
    server.write_line()
    return [float(word) for word in server.read_line(REPORT_SECONDS).split()]


def _percentiles(late: list[float]) -> dict[str, list[float]]:
    if not late:
        return {}
    last = sorted(late)[math.ceil(len(late) * 0.99) - 1]
    return {"median": [statistics.median(late)], "p99": [last], "worst": [max(late)]}


def _count_instructions(
    load: Load, found: dict[str, Command], left_out: dict[str, str]
) -> Table:
    samples: dict[str, list[float]] = {}
    for name, command in found.items():
        progress(f"  instructions, {echo.situation(load)}: {name}")
        samples[name] = [instructions_per_message(name, command, load)]
    unit = "user-space instructions of the server per message"
    return Table("native_echo", echo.situation(load), unit, None, samples, left_out)
