"""Row `echo`: CPU time of a server process per echoed message.

All servers run side by side, idle but for the one that the load generator drives;
see servers/ and native/ for what makes them equal.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable, load_fdmux
from benchmarks.build import build
from benchmarks.instructions import instructions_per_message
from benchmarks.processes import Failed, Load, Server, cores
from benchmarks.result import Limit, Table
from benchmarks.rounds import interleave, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.options import Options

BASELINE = "epoll"
Command = list[str]


def _epoll() -> Command:
    return [str(build("epoll_echo.c"))]


def _libuv() -> Command:
    return [str(build("libuv_echo.c", "-luv"))]


def _python(module: str, *arguments: str) -> Command:
    return [sys.executable, "-m", f"benchmarks.servers.{module}", *arguments]


def _uvloop(*options: str) -> Command:
    if importlib.util.find_spec("uvloop") is None:
        raise Unavailable("uvloop is not installed")
    return _python("asyncio_protocol", "uvloop", *options)


def _on_fdmux(*arguments: str) -> Command:
    load_fdmux("Selector")
    return _python("asyncio_protocol", *arguments)


def _fdmux() -> Command:
    load_fdmux("EchoServer")
    return _python("fdmux_echo")


SERVERS: dict[str, Callable[[], Command]] = {
    BASELINE: _epoll,
    "libuv": _libuv,
    "selectors": lambda: _python("selectors_loop"),
    "fdmux": _fdmux,
    "fdmux-asyncio": lambda: _on_fdmux("fdmux"),
    "uvloop": _uvloop,
    "selector-asyncio": lambda: _on_fdmux("selector"),
    "asyncio": lambda: _python("asyncio_protocol", "asyncio"),
    "fdmux-asyncio-streams": lambda: _on_fdmux("fdmux", "streams"),
    "uvloop-streams": lambda: _uvloop("streams"),
    "asyncio-streams": lambda: _python("asyncio_protocol", "asyncio", "streams"),
}

# Of many connections: with one, nothing can be done in batches.
LIMITS = (
    Limit("selector-asyncio", 1.0, of="asyncio"),
    Limit("fdmux-asyncio", 1.1, of=BASELINE),
    Limit("fdmux-asyncio", 1.0, of="uvloop"),
    Limit("fdmux-asyncio-streams", 1.0, of="uvloop-streams"),
)
LIMITED_CONNECTIONS = 100


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
    """Start what can be started; the others do not keep these from being measured."""
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
    for size in options.sizes:
        for connections in options.connections:
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
    has_limits = load.connections >= LIMITED_CONNECTIONS
    limits = tuple(it for it in LIMITS if has_limits and it.name in samples)
    return Table("echo", situation(load), unit, BASELINE, samples, left_out, limits)


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
    return f"{load.connections} connections, messages of {load.message_size} bytes"


def _messages(connections: int, size: int) -> int:
    """Return how many messages take roughly a fifth of a second."""
    if connections == 1:
        return 4_000
    return max(2_000, 20_000 * 2_048 // (size + 1_024))
