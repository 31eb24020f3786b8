"""Row `echo`: CPU time of a server process per echoed message.

All servers run side by side, idle but for the one that the load generator drives;
see programs/servers/ and programs/native/ for what makes them equal.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable, load_fdmux, require
from benchmarks.build import build
from benchmarks.instructions import instructions_per_message
from benchmarks.processes import Failed, Load, Server, cores
from benchmarks.progress import progress
from benchmarks.result import Limit, Table
from benchmarks.rounds import interleave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.options import Options

BASELINE = "epoll"
Command = list[str]


def _epoll() -> Command:
    return [str(build("epoll_echo.c"))]


def _libuv() -> Command:
    return [str(build("libuv_echo.c", "-luv"))]


def on_python(module: str, *arguments: str) -> Command:
    """Return the command of a program in programs/servers/."""
    return [sys.executable, "-m", f"benchmarks.programs.servers.{module}", *arguments]


def on_asyncio(loop: str, *kind: str) -> Command:
    """Return the command of programs/servers/asyncio_protocol.py on that loop."""
    require(*(name for name in ("uvloop", "aiofastnet") if name in loop.split("-")))
    if loop in ("fdmux", "selector"):
        load_fdmux("Selector")
    return on_python("asyncio_protocol", loop, *kind)


def on_streams(*kind: str) -> Command:
    """Return the command of programs/servers/fdmux_stream.py."""
    load_fdmux("StreamServer")
    return on_python("fdmux_stream", *kind)


def _fdmux() -> Command:
    load_fdmux("EchoServer")
    return on_python("fdmux_echo")


SERVERS: dict[str, Callable[[], Command]] = {
    BASELINE: _epoll,
    "libuv": _libuv,
    "selectors": lambda: on_python("selectors_loop"),
    "fdmux": _fdmux,
    "fdmux-stream-server": on_streams,
    "fdmux-asyncio": lambda: on_asyncio("fdmux"),
    "uvloop": lambda: on_asyncio("uvloop"),
    "aiofastnet": lambda: on_asyncio("aiofastnet"),
    "aiofastnet-uvloop": lambda: on_asyncio("aiofastnet-uvloop"),
    "selector-asyncio": lambda: on_asyncio("selector"),
    "asyncio": lambda: on_asyncio("asyncio"),
    "fdmux-asyncio-streams": lambda: on_asyncio("fdmux", "streams"),
    "uvloop-streams": lambda: on_asyncio("uvloop", "streams"),
    "asyncio-streams": lambda: on_asyncio("asyncio", "streams"),
}

# Connections, and bytes of a message; and what `EchoServer` may cost there at most, in
# times bare epoll.
AT_MOST = {
    (1, 1024): 1.12,
    (100, 1024): 1.04,
    (1000, 1024): 1.08,
    (100, 16384): 1.05,
    (100, 102400): 1.10,
}
ASYNCIO_MORE = 0.03  # what a `Protocol` on our loop may cost beyond that
SITUATIONS = tuple(AT_MOST)
CONNECTIONS = (1, 100, 1000)
SIZE = 1024

FAST_LOOPS = ("uvloop", "aiofastnet", "aiofastnet-uvloop")
LIMITS = (
    *(Limit("fdmux", 1.0, of=peer) for peer in (*FAST_LOOPS, "selectors")),
    *(Limit("fdmux-asyncio", 1.0, of=peer) for peer in FAST_LOOPS),
    Limit("fdmux-asyncio-streams", 0.85, of="uvloop-streams"),
    Limit("selector-asyncio", 1.0, of="asyncio"),
)
# With one connection, a selector can save nothing by batches.
ONLY_OF_MANY = ("selector-asyncio",)
MANY_CONNECTIONS = 100


def commands(options: Options) -> tuple[dict[str, Command], dict[str, str]]:
    """Return the command of each server that can run, and why the others cannot."""
    found: dict[str, Command] = {}
    left_out: dict[str, str] = {}
    for name, command in SERVERS.items():
        if options.servers and name not in (BASELINE, *options.servers):
            continue
        try:
            found[name] = command()
        except Unavailable as reason:
            left_out[name] = str(reason)
    return found, left_out


def measure(options: Options) -> Iterator[Table]:
    found, left_out = commands(options)
    all_loads = list(loads(options))
    with contextlib.ExitStack() as stack:
        servers = start_servers(found, left_out, cores(options.is_pinned)[0], stack)
        for load in all_loads:
            yield _measure_cpu(load, servers, left_out, options.rounds)
        working = {name: found[name] for name in servers}
    if options.has_instructions:
        for load in all_loads:
            yield _count_instructions(load, working, left_out)
    broken = ", ".join(found.keys() - servers.keys())
    if broken:
        raise Failed(f"{broken}: the server did not start")


def start_servers(
    found: dict[str, Command],
    left_out: dict[str, str],
    core: int | None,
    stack: contextlib.ExitStack,
) -> dict[str, Server]:
    """Start each server that can be started; note why the others cannot."""
    servers: dict[str, Server] = {}
    for name, command in found.items():
        try:
            servers[name] = Server(name, command, core)
        except Failed as failure:
            left_out[name] = str(failure)
            continue
        stack.callback(servers[name].end)
    return servers


def loads(options: Options) -> Iterator[Load]:
    program = str(build("load.c"))
    for connections, size in options.situations:
        messages = options.messages or _messages(connections, size)
        warmup = max(connections, messages // 10)
        core = cores(options.is_pinned)[1]
        yield Load(program, connections, size, warmup, messages, core)


def _measure_cpu(
    load: Load, servers: dict[str, Server], left_out: dict[str, str], rounds: int
) -> Table:
    progress(f"  {situation(load)}")
    contenders = {
        name: functools.partial(load.cpu_per_message, server)
        for name, server in servers.items()
    }
    samples = interleave(contenders, rounds)
    unit = "server CPU us per message"
    limits = tuple(it for it in limits_of(load) if it.name in samples)
    return Table("echo", situation(load), unit, BASELINE, samples, left_out, limits)


def limits_of(load: Load) -> Iterator[Limit]:
    found = AT_MOST.get((load.connections, load.message_size))
    if found is not None:
        yield Limit("fdmux", found, of=BASELINE)
        yield Limit("fdmux-asyncio", found + ASYNCIO_MORE, of=BASELINE)
    for limit in LIMITS:
        if load.connections >= MANY_CONNECTIONS or limit.name not in ONLY_OF_MANY:
            yield limit


def _count_instructions(
    load: Load, found: dict[str, Command], left_out: dict[str, str]
) -> Table:
    samples: dict[str, list[float]] = {}
    for name, command in found.items():
        progress(f"  instructions, {situation(load)}: {name}")
        samples[name] = [instructions_per_message(name, command, load)]
    unit = "user-space instructions of the server per message"
    # Bare epoll needs some dozens, so a ratio to it would say nothing.
    return Table("echo", situation(load), unit, "selectors", samples, left_out)


def situation(load: Load) -> str:
    connections = (
        "1 connection" if load.connections == 1 else f"{load.connections} connections"
    )
    return f"{connections}, messages of {load.message_size} bytes"


def _messages(connections: int, size: int) -> int:
    """Return how many messages take roughly a fifth of a second."""
    if connections == 1:
        return 4_000
    return max(2_000, 20_000 * 2_048 // (size + 1_024))
