"""Row `observe`: what an observer costs, by servers with and without one.

With ``--instructions``, callgrind counts what a message costs each of them. To show
that a loop without an observer pays nothing, run that with two versions of fdmux, and
compare the lines of the servers that are not observed.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable
from benchmarks.instructions import instructions_per_message
from benchmarks.processes import Failed, Load, Server, cores
from benchmarks.progress import progress
from benchmarks.result import Limit, Table
from benchmarks.rounds import interleave
from benchmarks.rows.echo import (
    Command,
    loads,
    on_asyncio,
    on_python,
    on_streams,
    situation,
    start_servers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from benchmarks.options import Options

    class Commands(Protocol):
        """Returns the command of a server; with "observed", of one that is."""

        def __call__(self, *kind: str) -> Command: ...


AT_MOST = 1.03
SIZE_MAX = 1024  # with larger messages the kernel's share hides the cost
OBSERVED = "observed"


def _on_callbacks(*kind: str) -> Command:
    return on_python("fdmux_callbacks", *kind)


def _on_asyncio(*kind: str) -> Command:
    return on_asyncio("fdmux", *kind)


KINDS: dict[str, Commands] = {
    "streams": on_streams,
    "asyncio": _on_asyncio,
    "callbacks": _on_callbacks,
}


def measure(options: Options) -> Iterator[Table]:
    for kind, command in KINDS.items():
        try:
            found = {kind: command(), f"{kind}, {OBSERVED}": command(OBSERVED)}
        except Unavailable as reason:
            progress(f"  {kind}: {reason}")
            continue
        yield from _measure_kind(kind, found, options)


def _measure_kind(
    kind: str, found: dict[str, Command], options: Options
) -> Iterator[Table]:
    left_out: dict[str, str] = {}
    chosen = [load for load in loads(options) if load.message_size <= SIZE_MAX]
    with contextlib.ExitStack() as stack:
        servers = start_servers(found, left_out, cores(options.is_pinned)[0], stack)
        if left_out:
            raise Failed(f"{', '.join(left_out)}: the server did not start")
        for load in chosen:
            yield _measure_cpu(kind, load, servers, options.rounds)
    if options.has_instructions:
        for load in chosen:
            yield _count_instructions(kind, load, found)


def _measure_cpu(
    kind: str, load: Load, servers: dict[str, Server], rounds: int
) -> Table:
    progress(f"  {kind}, {situation(load)}")
    contenders = {
        name: functools.partial(load.cpu_per_message, server)
        for name, server in servers.items()
    }
    samples = interleave(contenders, rounds)
    limits = (Limit(f"{kind}, {OBSERVED}", AT_MOST, of=kind),)
    unit = "server CPU us per message"
    return Table("observe", situation(load), unit, kind, samples, {}, limits)


def _count_instructions(kind: str, load: Load, found: dict[str, Command]) -> Table:
    samples: dict[str, list[float]] = {}
    for name, command in found.items():
        progress(f"  instructions, {situation(load)}: {name}")
        samples[name] = [instructions_per_message(name, command, load)]
    unit = "user-space instructions of the server per message"
    return Table("observe", situation(load), unit, kind, samples)
