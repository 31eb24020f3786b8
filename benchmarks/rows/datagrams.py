"""Row `datagrams`: CPU time of a server process per echoed datagram; sends with GSO.

The servers run side by side, idle but for the one that the load generator drives; see
programs/native/datagram_echo.c for the floor, one socket with batches of 64.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable, load_fdmux, require
from benchmarks.build import build
from benchmarks.contenders import run_interleaved
from benchmarks.processes import Failed, Load, cores
from benchmarks.progress import progress
from benchmarks.result import Limit, Table
from benchmarks.rounds import interleave
from benchmarks.rows.echo import start_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.options import Options
    from benchmarks.processes import Server

    Command = list[str]

BASELINE = "mmsg"
SITUATIONS = ((1, 64), (1, 1200), (100, 64), (100, 1200))
MANY = 100
MESSAGES = 40_000
MESSAGES_QUICK = 4_000
SENDS = 3_000
FAST_LOOPS = ("uvloop", "aiofastnet-uvloop")

# What an echo with many clients may cost, in times C with the same system calls.
ENDPOINT_AT_MOST = 1.12
ASYNCIO_AT_MOST = 1.25
FAST_AT_MOST = 0.65  # and of the fast loops
SEGMENTS_AT_MOST = 1.05


def _on_endpoint(kind: str) -> Command:
    load_fdmux("DatagramEndpoint")
    module = "benchmarks.programs.servers.fdmux_datagrams"
    return [sys.executable, "-m", module, kind]


def _on_asyncio(loop: str) -> Command:
    require(*(name for name in ("uvloop", "aiofastnet") if name in loop.split("-")))
    if loop == "fdmux":
        load_fdmux("Selector")
    module = "benchmarks.programs.servers.asyncio_datagrams"
    return [sys.executable, "-m", module, loop]


SERVERS: dict[str, Callable[[], Command]] = {
    BASELINE: lambda: [str(build("datagram_echo.c"))],
    "fdmux": lambda: _on_endpoint("many"),
    "fdmux-each": lambda: _on_endpoint("one"),
    "fdmux-asyncio": lambda: _on_asyncio("fdmux"),
    "uvloop": lambda: _on_asyncio("uvloop"),
    "aiofastnet-uvloop": lambda: _on_asyncio("aiofastnet-uvloop"),
    "asyncio": lambda: _on_asyncio("asyncio"),
}


def measure(options: Options) -> Iterator[Table]:
    found: dict[str, Command] = {}
    left_out: dict[str, str] = {}
    for name, command in SERVERS.items():
        try:
            found[name] = command()
        except Unavailable as reason:
            left_out[name] = str(reason)
    with contextlib.ExitStack() as stack:
        core = cores(options.is_pinned)[0]
        servers = start_servers(found, left_out, core, stack)
        for clients, size in SITUATIONS:
            yield _measure_echo(options, servers, left_out, clients, size)
    broken = ", ".join(found.keys() - servers.keys())
    if broken:
        raise Failed(f"{broken}: the server did not start")
    yield _measure_segments(options)


def _measure_echo(
    options: Options,
    servers: dict[str, Server],
    left_out: dict[str, str],
    clients: int,
    size: int,
) -> Table:
    number = "1 client" if clients == 1 else f"{clients} clients"
    situation = f"{number}, datagrams of {size} bytes"
    progress(f"  {situation}")
    messages = MESSAGES_QUICK if options.is_quick else MESSAGES
    if clients == 1:
        messages //= 4
    core = cores(options.is_pinned)[1]
    program = str(build("datagram_load.c"))
    load = Load(program, clients, size, max(clients, messages // 10), messages, core)
    contenders = {
        name: functools.partial(load.cpu_per_message, server)
        for name, server in servers.items()
    }
    samples = interleave(contenders, options.rounds)
    unit = "server CPU us per datagram"
    limits = tuple(it for it in _limits(clients) if it.name in samples)
    return Table("datagrams", situation, unit, BASELINE, samples, left_out, limits)


def _limits(clients: int) -> Iterator[Limit]:
    if clients < MANY:
        yield Limit("fdmux", 1.0, of="uvloop")
        yield Limit("fdmux-each", 1.0, of="uvloop")
        yield Limit("fdmux-asyncio", 1.0, of="uvloop")
        return
    yield Limit("fdmux", ENDPOINT_AT_MOST, of=BASELINE)
    yield Limit("fdmux-each", ENDPOINT_AT_MOST, of=BASELINE)
    yield Limit("fdmux-asyncio", ASYNCIO_AT_MOST, of=BASELINE)
    for peer in FAST_LOOPS:
        yield Limit("fdmux", FAST_AT_MOST, of=peer)
        yield Limit("fdmux-asyncio", FAST_AT_MOST, of=peer)


def _measure_segments(options: Options) -> Table:
    progress("  64 KiB with segments")
    count = str(SENDS // 10 if options.is_quick else SENDS)
    left_out: dict[str, str] = {}
    commands: dict[str, Callable[[], Command]] = {
        "sendmsg": lambda: [str(build("datagram_segments.c")), count],
        "fdmux": lambda: _segments(count),
    }
    core = cores(options.is_pinned)[0]
    figures = run_interleaved(commands, core, options.rounds, left_out)
    samples = {name: [float(it[0]) for it in found] for name, found in figures.items()}
    unit = "CPU us per 64 KiB sent as 1,200-byte segments"
    limits = (Limit("fdmux", SEGMENTS_AT_MOST, of="sendmsg"),)
    return Table("datagrams", "GSO", unit, "sendmsg", samples, left_out, limits)


def _segments(count: str) -> Command:
    load_fdmux("DatagramEndpoint")
    return [sys.executable, "-m", "benchmarks.programs.fdmux_segments", count]
