"""Row `programs`: what others have written on asyncio, on our loop and its peers.

Servers (uvicorn and aiohttp with wrk, websockets with a load generator of ours) and
clients (asyncpg with PostgreSQL, redis-py with Redis): CPU time of the Python process
per operation, and the p99 of what its peer, or a client itself, has waited. Every
contender runs the same program; see servers/asyncio_programs.py and
hosted/asyncio_clients.py.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable, require
from benchmarks.contenders import Program, find, start
from benchmarks.http_load import require_wrk, run_wrk
from benchmarks.processes import Failed, cores
from benchmarks.progress import progress
from benchmarks.result import Limit, Table
from benchmarks.rounds import column, interleave_figures
from benchmarks.rows.echo import on_asyncio, start_servers
from benchmarks.rows.program_peers import PEERS, start_peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.contenders import Command
    from benchmarks.options import Options
    from benchmarks.processes import Server
    from benchmarks.rounds import Figures

    Round = Callable[[], list[float]]

BASELINE = "uvloop"
LOOPS = {
    BASELINE: "uvloop",
    "asyncio": "asyncio",
    "aiofastnet-uvloop": "aiofastnet-uvloop",
    "fdmux-asyncio": "fdmux",
}
SERVERS = {
    "uvicorn": ("uvicorn", "httptools"),
    "aiohttp": ("aiohttp",),
    "websockets": ("websockets",),
}
SERVER_CONNECTIONS = (1, 100)
CLIENT_CONNECTIONS = (1, 10)
MESSAGE_SIZE = 1024
WRK_SECONDS = 1.0  # in quick rounds too: with less, a busy machine answers nothing
MESSAGES, MESSAGES_QUICK = 5_000, 500
OPERATIONS, OPERATIONS_QUICK = 3_000, 300
END_SECONDS = 15.0
OURS = "fdmux-asyncio"
CPU_MAX, P99_MAX = 0.95, 1.0  # of uvloop's
ROUNDS_MAX = 7  # a round of one program is some seconds


def measure(options: Options) -> Iterator[Table]:
    for name in SERVERS:
        yield from _measure_server(options, name)
    for name in PEERS:
        yield from _measure_client(options, name)


def _commands(
    options: Options, module: str, name: str, libraries: tuple[str, ...]
) -> Mapping[str, Callable[[], Command]]:
    """Return how to start a program on each loop that was asked for."""

    def command(loop: str) -> Command:
        require(*libraries)
        on_asyncio(loop)  # raises what is missing
        return [sys.executable, "-m", f"benchmarks.programs.{module}", loop, name]

    return {
        contender: functools.partial(command, loop)
        for contender, loop in LOOPS.items()
        if not options.servers or contender in (BASELINE, *options.servers)
    }


def _tables(
    situation: str, kind: str, figures: Figures, left_out: dict[str, str]
) -> Iterator[Table]:
    """Make the tables of rounds that are CPU time and p99."""
    for index, unit in enumerate(
        (f"{kind} CPU us per operation", "us, p99 of a round")
    ):
        samples = column(figures, index)
        limits = (Limit(OURS, (CPU_MAX, P99_MAX)[index], of=BASELINE),)
        yield Table("programs", situation, unit, BASELINE, samples, left_out, limits)


def _rounds(options: Options, contenders: Mapping[str, Round]) -> Figures:
    if options.is_quick:
        return interleave_figures(contenders, 1)
    for warm_up in contenders.values():
        warm_up()
    return interleave_figures(contenders, min(options.rounds, ROUNDS_MAX))


def _connections(options: Options, usual: tuple[int, ...]) -> tuple[int, ...]:
    return usual[-1:] if options.is_quick else usual


# ---- servers ---------------------------------------------------------------------


def _measure_server(options: Options, name: str) -> Iterator[Table]:
    left_out: dict[str, str] = {}
    commands = _commands(options, "servers.asyncio_programs", name, SERVERS[name])
    load = _load_with_messages if name == "websockets" else _load_with_wrk
    try:
        if name != "websockets":
            require_wrk()
        found = find(commands, left_out)
    except Unavailable as reason:
        left_out, found = dict.fromkeys(commands, str(reason)), {}
    with contextlib.ExitStack() as stack:
        servers = start_servers(found, left_out, cores(options.is_pinned)[0], stack)
        for connections in _connections(options, SERVER_CONNECTIONS):
            situation = f"{name}, {connections} connections"
            progress(f"  {situation}")
            contenders = {
                contender: functools.partial(load, options, connections, server)
                for contender, server in servers.items()
            }
            figures = _rounds(options, contenders)
            yield from _tables(situation, "server", figures, left_out)
    broken = ", ".join(found.keys() - servers.keys())
    if broken:
        raise Failed(f"{name} on {broken}: the server did not start")


def _load_with_wrk(options: Options, connections: int, server: Server) -> list[float]:
    before = server.cpu_nanoseconds()
    answers = run_wrk(
        server.port, connections, WRK_SECONDS, cores(options.is_pinned)[1]
    )
    used = server.cpu_nanoseconds() - before
    return [used / 1000 / answers.requests, answers.p99_us]


def _load_with_messages(
    options: Options, connections: int, server: Server
) -> list[float]:
    count = options.messages or (MESSAGES_QUICK if options.is_quick else MESSAGES)
    warmup = max(connections, count // 10)
    numbers = (server.port, connections, MESSAGE_SIZE, warmup, count)
    core = cores(options.is_pinned)[1]
    with load_websockets(server.name, numbers, core) as load:
        before = server.cpu_nanoseconds()
        messages, _p50, p99 = load.run_round()
        used = server.cpu_nanoseconds() - before
    return [used / 1000 / messages, p99]


@contextlib.contextmanager
def load_websockets(
    name: str, numbers: tuple[int, ...], core: int | None
) -> Iterator[Program]:
    """Start websocket_load.py; on the way out, insist that every byte was right."""
    words = [str(number) for number in numbers]
    command = [sys.executable, "-m", "benchmarks.websocket_load", *words]
    load = Program(f"load against {name}", command, core)
    try:
        yield load
        load.close_input()
        status = load.process.wait(END_SECONDS)
        if status != 0:
            raise Failed(f"{load.name} ended with status {status}")
    finally:
        load.end()


# ---- clients ---------------------------------------------------------------------


def _measure_client(options: Options, name: str) -> Iterator[Table]:
    left_out: dict[str, str] = {}
    commands = _commands(options, "hosted.asyncio_clients", name, (name,))
    count = options.messages or (OPERATIONS_QUICK if options.is_quick else OPERATIONS)
    core, peer_core = cores(options.is_pinned)
    found = find(commands, left_out)
    with contextlib.ExitStack() as stack:
        try:
            port = start_peer(name, peer_core, stack) if found else 0
        except Unavailable as reason:
            progress(f"  {name}: {reason}")
            left_out.update(dict.fromkeys(found, str(reason)))
            found = {}
            port = 0
        for connections in _connections(options, CLIENT_CONNECTIONS):
            situation = f"{name}, {connections} connections: {PEERS[name].operation}"
            progress(f"  {situation}")
            with contextlib.ExitStack() as clients:
                words = (port, connections, count)
                programs = start(found, words, core, clients)
                contenders = {key: it.run_round for key, it in programs.items()}
                figures = _rounds(options, contenders)
            yield from _tables(situation, "client", figures, left_out)
