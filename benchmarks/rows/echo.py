"""Row `echo`: CPU time of a server process per echoed message.

All servers run side by side, idle but for the one that the load generator drives;
see servers/ and native/ for what makes them equal.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable, load_fdmux
from benchmarks.build import build
from benchmarks.instructions import instructions_per_message
from benchmarks.processes import Failed, Load, Server
from benchmarks.result import Table
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


def _uvloop() -> Command:
    if importlib.util.find_spec("uvloop") is None:
        raise Unavailable("uvloop is not installed")
    return _python("asyncio_protocol", "uvloop")


def _fdmux() -> Command:
    load_fdmux("EchoServer")
    return _python("fdmux_echo")


SERVERS: dict[str, Callable[[], Command]] = {
    BASELINE: _epoll,
    "libuv": _libuv,
    "selectors": lambda: _python("selectors_loop"),
    "fdmux": _fdmux,
    "uvloop": _uvloop,
    "asyncio": lambda: _python("asyncio_protocol"),
}


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
    loads = list(_loads(options))
    with contextlib.ExitStack() as stack:
        servers = _start(found, left_out, _cores(options)[0], stack)
        for load in loads:
            yield _measure_cpu(load, servers, left_out, options.rounds)
        working = {name: found[name] for name in servers}
    if options.has_instructions:
        for load in loads:
            yield _count_instructions(load, working, left_out)
    broken = ", ".join(found.keys() - servers.keys())
    if broken:
        raise Failed(f"{broken}: the server did not start")


def _start(
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


def _loads(options: Options) -> Iterator[Load]:
    program = str(build("load.c"))
    for size in options.sizes:
        for connections in options.connections:
            messages = options.messages or _messages(connections, size)
            warmup = max(connections, messages // 10)
            core = _cores(options)[1]
            yield Load(program, connections, size, warmup, messages, core)


def _measure_cpu(
    load: Load, servers: dict[str, Server], left_out: dict[str, str], rounds: int
) -> Table:
    progress(f"  {_situation(load)}")
    contenders = {
        name: functools.partial(load.cpu_per_message, server)
        for name, server in servers.items()
    }
    samples = interleave(contenders, rounds)
    unit = "server CPU us per message"
    return Table("echo", _situation(load), unit, BASELINE, samples, left_out)


def _count_instructions(
    load: Load, found: dict[str, Command], left_out: dict[str, str]
) -> Table:
    samples: dict[str, list[float]] = {}
    for name, command in found.items():
        progress(f"  instructions, {_situation(load)}: {name}")
        samples[name] = [instructions_per_message(name, command, load)]
    unit = "user-space instructions of the server per message"
    # Bare epoll needs some dozens, so a ratio to it would say nothing.
    return Table("echo", _situation(load), unit, "selectors", samples, left_out)


def _situation(load: Load) -> str:
    return f"{load.connections} connections, messages of {load.message_size} bytes"


def _messages(connections: int, size: int) -> int:
    """Return how many messages take roughly a fifth of a second."""
    if connections == 1:
        return 4_000
    return max(2_000, 20_000 * 2_048 // (size + 1_024))


def _cores(options: Options) -> tuple[int | None, int | None]:
    """Return a core for the servers and another for the load generator."""
    cores = sorted(os.sched_getaffinity(0))
    if not options.is_pinned or len(cores) < 2:
        return None, None
    return cores[0], cores[-1]
