"""Row `memory`: bytes for each idle io watcher in C, and for each idle connection.

Of 10,000 watchers two figures, since neither tells all: what malloc handed out
(mallinfo2, with its own overhead, arrays that grow ahead of need included), and what of
it became resident (/proc/self/statm), which is what the machine misses. Both count the
loop itself and all that the program must keep for a watcher, see
programs/native/chain.h.

Of 9,000 connections to an echo server, each of which has had one answer: by how much
the resident set of the server's process has grown. It had served one connection before.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contenders import find, start
from benchmarks.processes import Failed
from benchmarks.progress import progress
from benchmarks.result import Table
from benchmarks.rows.chain import (
    BASELINE,
    PROGRAMS,
    SPARE_DESCRIPTORS,
    check_descriptors,
)
from benchmarks.rows.echo import SERVERS, start_servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.options import Options
    from benchmarks.processes import Server

WATCHERS = 10_000
CONNECTIONS = 9_000
MESSAGE = b"m" * 1024
PATIENCE = 10.0


def measure(options: Options) -> Iterator[Table]:
    del options  # memory is the same in each round
    check_descriptors(WATCHERS + SPARE_DESCRIPTORS)
    yield from of_watchers()
    yield of_connections()


def of_watchers() -> Iterator[Table]:
    left_out: dict[str, str] = {}
    libraries = {name: PROGRAMS[name] for name in PROGRAMS if name != BASELINE}
    found = find(libraries, left_out)
    situation = f"{WATCHERS:,} idle io watchers"
    progress(f"  {situation}")
    with contextlib.ExitStack() as stack:
        programs = start(found, [WATCHERS, 0, 0, 0, 0], None, stack)
        figures = {name: program.run_round() for name, program in programs.items()}
    for index, kind in enumerate(("allocated", "resident")):
        samples = {name: [both[index] / WATCHERS] for name, both in figures.items()}
        unit = f"bytes {kind} per watcher"
        yield Table("memory", situation, unit, None, samples, left_out)


def of_connections() -> Table:
    left_out: dict[str, str] = {}
    found = find(SERVERS, left_out)
    situation = f"{CONNECTIONS:,} idle connections"
    samples: dict[str, list[float]] = {}
    for name, command in found.items():
        progress(f"  {situation}: {name}")
        with contextlib.ExitStack() as stack:
            for server in start_servers(
                {name: command}, left_out, None, stack
            ).values():
                samples[name] = [growth(server) / CONNECTIONS]
    unit = "bytes resident per connection"
    return Table("memory", situation, unit, None, samples, left_out)


def growth(server: Server) -> int:
    """Return by how many bytes the server grows with the connections."""
    exchange(server).close()
    before = resident(server.process.pid)
    clients = [exchange(server) for _ in range(CONNECTIONS)]
    grown = resident(server.process.pid) - before
    for client in clients:
        client.close()
    return grown


def exchange(server: Server) -> socket.socket:
    """Connect, and get one answer."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    client.sendall(MESSAGE)
    answer = client.recv(len(MESSAGE), socket.MSG_WAITALL)
    if answer != MESSAGE:
        raise Failed(f"{server.name} answered with {len(answer)} bytes, or others")
    return client


def resident(pid: int) -> int:
    """Return the bytes of a process that are in memory."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
