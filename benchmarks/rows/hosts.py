"""Row `hosts`: native code in the loops that Python programs run, beside `add_reader`.

Ready descriptors whose handler is in C; timers of 0.2 ms; ten thousand idle watchers.
The peers do the same in the usual way: a Python callback that calls C through cffi, or
the loop's own sleep. What echo costs on these loops is in the row `echo`. See
programs/hosted/.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

from benchmarks.availability import load_fdmux, require
from benchmarks.contenders import run_interleaved
from benchmarks.processes import cores
from benchmarks.programs.hosted.extension import build_extension
from benchmarks.progress import progress
from benchmarks.result import Limit, Table
from benchmarks.rounds import column
from benchmarks.rows.chain import SPARE_DESCRIPTORS, check_descriptors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.contenders import Command
    from benchmarks.options import Options
    from benchmarks.rounds import Figures

    Commands = dict[str, Callable[[], Command]]

EVENTS = 200_000
EVENTS_QUICK = 20_000
EXPIRIES = 500
EXPIRIES_QUICK = 50
WATCHERS = 10_000
ROUNDS_MAX = 9  # of what takes a good part of a second

OURS = "asyncio on fdmux.Selector"
ON_ASYNCIO = "mounted on asyncio"
ON_UVLOOP = "mounted on uvloop"
ON_TRIO = "mounted on trio"
ASYNCIO_READER = "asyncio add_reader"
UVLOOP_READER = "uvloop add_reader"

# What runs, and how the handler is reached; see programs/hosted/events.py.
READERS = {
    ASYNCIO_READER: ("asyncio", "reader"),
    UVLOOP_READER: ("uvloop", "reader"),
    ON_ASYNCIO: ("asyncio", "native"),
    ON_UVLOOP: ("uvloop", "native"),
    OURS: ("selector", "native"),
}
FLOOR = {"epoll in C": ("asyncio", "epoll")}
TIMERS = {
    OURS: ("selector", "native"),
    ON_ASYNCIO: ("asyncio", "native"),
    ON_UVLOOP: ("uvloop", "native"),
    ON_TRIO: ("trio", "native"),
    "asyncio sleep": ("asyncio", "sleep"),
    "uvloop sleep": ("uvloop", "sleep"),
    "trio sleep": ("trio", "sleep"),
}
EVENT_LIMITS = (
    Limit(OURS, 0.2, of=ASYNCIO_READER),
    Limit(ON_ASYNCIO, 1.0, of=UVLOOP_READER),
    Limit(ON_UVLOOP, 1.0, of=UVLOOP_READER),
)
TIMER_LIMITS = tuple(
    Limit(name, 100.0) for name, (_, way) in TIMERS.items() if way == "native"
)


def measure(options: Options) -> Iterator[Table]:
    for ready in (100, 1):
        yield _measure_events(options, ready)
    yield _measure_timers(options)
    yield from _measure_watchers(options)


def _commands(
    module: str,
    contenders: Mapping[str, tuple[str, str]],
    *words: object,
    has_extension: bool = True,
) -> Commands:
    return {
        name: functools.partial(_command, module, *pair, words, has_extension)
        for name, pair in contenders.items()
    }


def _command(
    module: str, host: str, way: str, words: tuple[object, ...], has_extension: bool
) -> Command:
    if host in ("uvloop", "trio"):
        require(host)
    if way == "native":
        load_fdmux("mount")
    extension = [build_extension()] if has_extension else []
    arguments = [*extension, host, way, *(str(word) for word in words)]
    return [sys.executable, "-m", f"benchmarks.programs.hosted.{module}", *arguments]


def _rounds(
    options: Options, commands: Commands, rounds: int, left_out: dict[str, str]
) -> Figures:
    """Return the figures of each round, of those contenders that can run."""
    return run_interleaved(commands, cores(options.is_pinned)[0], rounds, left_out)


def _measure_events(options: Options, ready: int) -> Table:
    situation = f"{ready} always ready, the handler in C, none read"
    progress(f"  {situation}")
    left_out: dict[str, str] = {}
    events = EVENTS_QUICK if options.is_quick else EVENTS
    commands = _commands("events", {**READERS, **FLOOR}, ready, events)
    figures = _rounds(options, commands, options.rounds, left_out)
    unit = "CPU ns per event, all system calls included"
    limits = EVENT_LIMITS if ready == 100 else ()
    samples = column(figures, 0)
    return Table("hosts", situation, unit, ASYNCIO_READER, samples, left_out, limits)


def _measure_timers(options: Options) -> Table:
    situation = "a timer of 0.2 ms, native, or the loop's own sleep"
    progress(f"  {situation}")
    left_out: dict[str, str] = {}
    count = EXPIRIES_QUICK if options.is_quick else EXPIRIES
    commands = _commands("timers", TIMERS, count, has_extension=False)
    rounds = min(options.rounds, ROUNDS_MAX)
    figures = _rounds(options, commands, rounds, left_out)
    unit = f"us late, median of {count}; below 0: too early"
    samples = column(figures, 0, 1e-3)
    return Table("hosts", situation, unit, None, samples, left_out, TIMER_LIMITS)


def _measure_watchers(options: Options) -> Iterator[Table]:
    check_descriptors(WATCHERS + SPARE_DESCRIPTORS)
    situation = f"{WATCHERS:,} idle watchers"
    progress(f"  {situation}")
    left_out: dict[str, str] = {}
    commands = _commands("watchers", READERS, WATCHERS)
    rounds = min(options.rounds, ROUNDS_MAX)
    figures = _rounds(options, commands, rounds, left_out)
    # Later rounds get their memory from what the first has given back.
    firsts = {name: rounds[:1] for name, rounds in figures.items()}
    tables = {
        "bytes resident per watcher": column(firsts, 0),
        "CPU ns to add one": column(figures, 1),
        "CPU ns to remove one": column(figures, 2),
    }
    for unit, samples in tables.items():
        yield Table("hosts", situation, unit, ASYNCIO_READER, samples, left_out)
