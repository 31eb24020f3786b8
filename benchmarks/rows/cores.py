"""Row `cores`: requests per second of one process, and of two that share a port.

A process of programs/servers/sharing.py answers each request; the load generator is
that of the row echo. Nothing is pinned: with two cores, the load generator takes a part
of what the second process could have. So there is also a situation in which an answer
needs work.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable, load_fdmux
from benchmarks.build import build
from benchmarks.processes import Load
from benchmarks.progress import progress
from benchmarks.result import Table
from benchmarks.rounds import interleave
from benchmarks.rows.echo import start_servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.options import Options

BASELINE = "1 process"
SERVERS = {
    BASELINE: ("reuse_port", "1"),
    "2 with reuse_port": ("reuse_port", "2"),
    "2 with one socket": ("inherited", "2"),
}
CONNECTIONS = 100
SIZE = 1024
# Steps of work for each answer, how much that is, and requests of a sample.
SITUATIONS = ((0, "no work", 20_000), (5_000, "some 0.1 ms of work", 5_000))


def measure(options: Options) -> Iterator[Table]:
    load_fdmux("StreamServer")
    if len(os.sched_getaffinity(0)) < 2:
        raise Unavailable("needs two cores")
    for steps, work, requests in SITUATIONS:
        yield _measure(options, steps, work, requests)


def _measure(options: Options, steps: int, work: str, requests: int) -> Table:
    situation = f"{CONNECTIONS} connections, {work}"
    progress(f"  {situation}")
    module = "benchmarks.programs.servers.sharing"
    commands = {
        name: [sys.executable, "-m", module, *words, str(steps)]
        for name, words in SERVERS.items()
    }
    messages = requests // 10 if options.is_quick else requests
    warmup = max(CONNECTIONS, messages // 10)
    load = Load(str(build("load.c")), CONNECTIONS, SIZE, warmup, messages, None)
    left_out: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        servers = start_servers(commands, left_out, None, stack)
        contenders = {
            name: functools.partial(load.elapsed_per_message, server)
            for name, server in servers.items()
        }
        samples = interleave(contenders, options.rounds)
    unit = "elapsed us per request; a million divided by it is requests per second"
    return Table("cores", situation, unit, BASELINE, samples, left_out)
