"""Row `latency`: when answers come, of servers whose callback computes for 0.2 ms.

Fifty clients that ask at once, and an open loop: independent clients that together ask
half of what the callback alone would allow, whether or not they were answered. Latency
counts from when a request was due, so what waits behind a stall is in the figures. See
programs/native/latency_load.c.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from benchmarks.build import build
from benchmarks.contenders import find
from benchmarks.open_load import OpenLoad
from benchmarks.processes import Failed, cores
from benchmarks.programs.servers.busy import BUSY_NS
from benchmarks.progress import progress
from benchmarks.result import Limit, Table
from benchmarks.rounds import column, interleave_figures
from benchmarks.rows.echo import on_asyncio, on_streams, start_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.contenders import Command
    from benchmarks.options import Options
    from benchmarks.processes import Server
    from benchmarks.rounds import Figures

BASELINE = "uvloop"
CONNECTIONS = 50
MESSAGE_SIZE = 100
BURST_US = 40_000
ROUNDS_MAX = 9  # of a second or more for each contender

SERVERS: dict[str, Callable[[], Command]] = {
    "libuv": lambda: [str(build("libuv_echo.c", "-luv", f"-DECHO_BUSY_NS={BUSY_NS}"))],
    BASELINE: lambda: on_asyncio("uvloop", "busy"),
    "asyncio": lambda: on_asyncio("asyncio", "busy"),
    "fdmux-stream-server": lambda: on_streams("busy"),
    "fdmux-asyncio": lambda: on_asyncio("fdmux", "busy"),
}
OURS = ("fdmux-stream-server", "fdmux-asyncio")
LIMITS = tuple(Limit(name, 1.0, of=BASELINE) for name in OURS)


def loads(options: Options) -> dict[str, OpenLoad]:
    """Return both situations, of about a second each."""
    bursts = 5 if options.is_quick else 25
    asks = options.messages or bursts * CONNECTIONS
    shape = (CONNECTIONS, MESSAGE_SIZE, 2 * CONNECTIONS)
    gap_us = 2 * BUSY_NS // 1000  # half of what the callback allows
    rate = 1_000_000 // gap_us
    return {
        f"{CONNECTIONS} clients ask at once, every {BURST_US // 1000} ms": OpenLoad(
            "bursts", *shape, asks, BURST_US
        ),
        f"an open loop, {rate:,} requests a second": OpenLoad(
            "open", *shape, 2 * asks, gap_us
        ),
    }


def measure(options: Options) -> Iterator[Table]:
    chosen = {
        name: command
        for name, command in SERVERS.items()
        if not options.servers or name in (BASELINE, *options.servers)
    }
    left_out: dict[str, str] = {}
    found = find(chosen, left_out)
    with contextlib.ExitStack() as stack:
        servers = start_servers(found, left_out, cores(options.is_pinned)[0], stack)
        for situation, load in loads(options).items():
            progress(f"  {situation}")
            figures = _rounds(options, load, servers)
            yield from _tables(situation, load, figures, left_out)
    broken = ", ".join(found.keys() - servers.keys())
    if broken:
        raise Failed(f"{broken}: the server did not start")


def _rounds(options: Options, load: OpenLoad, servers: dict[str, Server]) -> Figures:
    """Return the figures of each round of each server."""
    core = cores(options.is_pinned)[1]
    contenders = {
        name: functools.partial(load.run, name, server.port, core)
        for name, server in servers.items()
    }
    return interleave_figures(contenders, min(options.rounds, ROUNDS_MAX))


def _tables(
    situation: str, load: OpenLoad, figures: Figures, left_out: dict[str, str]
) -> Iterator[Table]:
    limits = tuple(it for it in LIMITS if it.name in figures)
    for index, percentile in enumerate(("p10", "p50", "p99")):
        samples = column(figures, index)
        unit = f"us, {percentile} of {load.requests:,} requests a round"
        heading = (f"{situation}: {percentile}", unit, BASELINE)
        yield Table("latency", *heading, samples, left_out, limits)
    itself = f"{situation}: the load generator itself"
    unit = "us after they were due that requests left, p99; part of the above"
    yield Table("latency", itself, unit, None, column(figures, 3))
