"""Row `resp`: CPU time of a Redis-protocol server per request of redis-benchmark.

The same commands (examples/resp) on `fdmux.StreamServer` and on asyncio's `Protocol`,
with Redis itself beside them. The parser in Python is the same too, but for `fdmux`:
its requests are cut by a framer in C. Each server has to give back what was
stored in it before it is timed.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import socket
import sys
import sysconfig
import time
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable, load_fdmux, require
from benchmarks.build import ROOT, build
from benchmarks.contenders import fdmux_include
from benchmarks.processes import Child, Failed, Server, cores
from benchmarks.progress import progress
from benchmarks.result import Limit, Table
from benchmarks.rounds import interleave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.options import Options

FRAMER = ROOT / "examples" / "resp" / "resp_framer.c"
BASELINE = "uvloop"
LIMITS = (Limit("fdmux", 0.8, of=BASELINE),)
CLIENTS = 50
COMMANDS = ("set", "get")
PIPELINES = (1, 16)
READY_SECONDS = 10.0
RUN_SECONDS = 60.0
Command = list[str]


def _python(module: str, *arguments: str) -> Command:
    return [sys.executable, "-m", f"benchmarks.programs.servers.{module}", *arguments]


def _uvloop() -> Command:
    require("uvloop")
    return _python("resp_protocol", "uvloop")


def _fdmux() -> Command:
    load_fdmux("StreamServer")
    python = sysconfig.get_path("include")
    framer = build(
        *(str(FRAMER), "-shared", "-fPIC", "-DPy_LIMITED_API=0x030B0000"),
        *(f"-I{fdmux_include()}", f"-isystem{python}"),
    )
    return _python("resp_fdmux", str(framer))


def _fdmux_python() -> Command:
    load_fdmux("StreamServer")
    return _python("resp_fdmux")


def _redis() -> Command:
    if shutil.which("redis-server") is None:
        raise Unavailable("no redis-server (Debian: redis-server)")
    return _python("resp_redis")


SERVERS: dict[str, Callable[[], Command]] = {
    BASELINE: _uvloop,
    "asyncio": lambda: _python("resp_protocol"),
    "fdmux": _fdmux,
    "fdmux-python": _fdmux_python,
    "redis-server": _redis,
}


def measure(options: Options) -> Iterator[Table]:
    left_out: dict[str, str] = {}
    if shutil.which("redis-benchmark") is None:
        why = "no redis-benchmark (Debian: redis-tools)"
        yield _table("everything", {}, dict.fromkeys(SERVERS, why))
        return
    with contextlib.ExitStack() as stack:
        servers = _start(options, left_out, stack)
        for pipeline in PIPELINES:
            for command in COMMANDS:
                load = functools.partial(_run, options, command, pipeline)
                yield _measure_cpu(options, load, servers, left_out)


def _table(
    situation: str, samples: dict[str, list[float]], left_out: dict[str, str]
) -> Table:
    unit = "server CPU us per request"
    limits = tuple(it for it in LIMITS if it.name in samples)
    return Table("resp", situation, unit, BASELINE, samples, left_out, limits)


def _start(
    options: Options, left_out: dict[str, str], stack: contextlib.ExitStack
) -> dict[str, Server]:
    """Start what can be started here, and see that it works."""
    servers: dict[str, Server] = {}
    core = cores(options.is_pinned)[0]
    for name, command in SERVERS.items():
        if options.servers and name not in (BASELINE, *options.servers):
            continue
        try:
            server = Server(name, command(), core)
            stack.callback(server.end)
            _prove(server)
        except (Unavailable, Failed) as reason:
            left_out[name] = str(reason)
            continue
        servers[name] = server
    return servers


def _prove(server: Server) -> None:
    """Check that the server stores a value and returns it."""
    value = b"\r\n$3\r\n\x00\xff"
    head = b"*%d\r\n$3\r\n%b\r\n$5\r\nproof\r\n"
    stored = b"$%d\r\n%b\r\n" % (len(value), value)
    request = head % (3, b"SET") + stored + head % (2, b"GET")
    wanted = b"+OK\r\n" + stored
    with _connect(server) as sock:
        sock.sendall(request)
        replies = b""
        while len(replies) < len(wanted):
            part = sock.recv(4096)
            if not part:
                break
            replies += part
    if replies != wanted:
        raise Failed(f"{server.name} answered {replies!r}")


def _connect(server: Server) -> socket.socket:
    """Connect; Redis announces its port a moment before it listens."""
    deadline = time.monotonic() + READY_SECONDS
    while server.process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", server.port), READY_SECONDS)
        time.sleep(0.01)
    raise Failed(f"{server.name} does not listen")


def _measure_cpu(
    options: Options,
    load: functools.partial[float],
    servers: dict[str, Server],
    left_out: dict[str, str],
) -> Table:
    _, command, pipeline = load.args
    situation = f"{command.upper()}, {CLIENTS} clients, pipelines of {pipeline}"
    progress(f"  {situation}")
    contenders = {name: functools.partial(load, one) for name, one in servers.items()}
    for warm_up in contenders.values():
        warm_up()
    return _table(situation, interleave(contenders, options.rounds), left_out)


def _run(options: Options, command: str, pipeline: int, server: Server) -> float:
    """Return the server's CPU microseconds per request of one redis-benchmark."""
    count = _count(options, pipeline)
    numbers = {"-p": server.port, "-c": CLIENTS, "-P": pipeline, "-n": count}
    arguments = [str(word) for pair in numbers.items() for word in pair]
    line = ["redis-benchmark", "-h", "127.0.0.1", "-t", command, "--csv", *arguments]
    before = server.cpu_nanoseconds()
    client = Child(
        f"redis-benchmark against {server.name}", line, cores(options.is_pinned)[1]
    )
    try:
        header = client.read_line(RUN_SECONDS)
        result = client.read_line(RUN_SECONDS)
        status = client.process.wait(RUN_SECONDS)
    finally:
        client.end()
    if status != 0 or not header or f'"{command.upper()}"' not in result:
        raise Failed(f"{client.name} said {result!r} and ended with status {status}")
    return (server.cpu_nanoseconds() - before) / 1000 / count


def _count(options: Options, pipeline: int) -> int:
    """Return how many requests take a few tenths of a second."""
    usual = 20_000 if pipeline == 1 else 100_000
    return options.messages or (usual // 10 if options.is_quick else usual)
