"""Row `tls`: an echo over TLS: CPU time per message and per handshake, memory.

The baseline is OpenSSL in C, on the socket itself; see programs/native/tls_epoll.c. All
servers have one certificate (P-256), and whatever their OpenSSL chooses: TLS 1.3.
"""

from __future__ import annotations

import contextlib
import functools
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable, load_fdmux, require
from benchmarks.build import build
from benchmarks.contenders import build_on_fdmux
from benchmarks.processes import Failed, Load, LoadGenerator, Server, cores
from benchmarks.progress import progress
from benchmarks.result import Limit, Table
from benchmarks.rounds import interleave
from benchmarks.rows import echo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.options import Options

BASELINE = "openssl"
LIBRARIES = ("-lssl", "-lcrypto")
HANDSHAKES = 300
IDLE_CONNECTIONS = 1_000
# In times OpenSSL in C, in every situation.
AT_MOST = {"fdmux-c": 1.05, "fdmux": 1.05, "fdmux-asyncio": 1.08}
Command = list[str]


def _python(module: str, *arguments: str) -> Command:
    return [sys.executable, "-m", f"benchmarks.programs.servers.{module}", *arguments]


def _fdmux() -> Command:
    load_fdmux("EchoServer")
    return _python("fdmux_echo_tls")


def _on_asyncio(loop: str) -> Command:
    require(*(name for name in ("uvloop", "aiofastnet") if name in loop.split("-")))
    if loop == "fdmux":
        load_fdmux("Selector")
    return _python("asyncio_tls", loop)


# Each gets the paths of the certificate and its key as last arguments.
SERVERS: dict[str, Callable[[], Command]] = {
    BASELINE: lambda: [str(build("tls_epoll.c", *LIBRARIES))],
    "fdmux-c": lambda: [str(build_on_fdmux("tls_fdmux.c", *LIBRARIES))],
    "fdmux": _fdmux,
    "fdmux-asyncio": lambda: _on_asyncio("fdmux"),
    "uvloop": lambda: _on_asyncio("uvloop"),
    "aiofastnet": lambda: _on_asyncio("aiofastnet"),
    "aiofastnet-uvloop": lambda: _on_asyncio("aiofastnet-uvloop"),
    "asyncio": lambda: _on_asyncio("asyncio"),
}


def measure(options: Options) -> Iterator[Table]:
    found, left_out = _commands(options)
    with contextlib.ExitStack() as stack:
        pair = make_certificate(stack.enter_context(tempfile.TemporaryDirectory()))
        commands = {name: [*command, *pair] for name, command in found.items()}
        yield _measure_memory(commands, left_out, options)
        core = cores(options.is_pinned)[0]
        servers = echo.start_servers(commands, left_out, core, stack)
        for load in _loads(options):
            yield _measure_messages(load, servers, left_out, options.rounds)
        for kind in ("full", "resumed"):
            yield _measure_handshakes(kind, servers, left_out, options)
    broken = ", ".join(found.keys() - servers.keys())
    if broken:
        raise Failed(f"{broken}: the server did not start")


def make_certificate(folder: str) -> tuple[str, str]:
    """Make a self-signed certificate; return its path and that of its key."""
    if shutil.which("openssl") is None:
        raise Unavailable("there is no program openssl to make a certificate")
    certificate, key = Path(folder, "certificate.pem"), Path(folder, "key.pem")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    request = ["req", "-x509", "-subj", "/CN=localhost", "-days", "1"]
    subprocess.run(
        ["openssl", *request, *curve, *files], capture_output=True, check=True
    )
    return str(certificate), str(key)


def _commands(options: Options) -> tuple[dict[str, Command], dict[str, str]]:
    found: dict[str, Command] = {}
    left_out: dict[str, str] = {}
    for name, command in SERVERS.items():
        if options.servers and name not in (BASELINE, *options.servers):
            continue
        try:
            found[name] = command()
        except Unavailable as reason:
            left_out[name] = str(reason)
    if BASELINE not in found:
        raise Unavailable(left_out[BASELINE])
    return found, left_out


# ---- messages ------------------------------------------------------------------------


def _loads(options: Options) -> Iterator[Load]:
    for load in echo.loads(options):
        yield Load(
            str(build("tls_load.c", *LIBRARIES)),
            load.connections,
            load.message_size,
            load.warmup,
            load.messages,
            load.core,
        )


def _measure_messages(
    load: Load, servers: dict[str, Server], left_out: dict[str, str], rounds: int
) -> Table:
    progress(f"  {echo.situation(load)}")
    contenders = {
        name: functools.partial(load.cpu_per_message, server)
        for name, server in servers.items()
    }
    samples = interleave(contenders, rounds)
    unit = "server CPU us per message"
    limits = tuple(_limits(samples))
    return Table("tls", echo.situation(load), unit, BASELINE, samples, left_out, limits)


def _limits(samples: dict[str, list[float]]) -> Iterator[Limit]:
    for name, at_most in AT_MOST.items():
        if name in samples:
            yield Limit(name, at_most, of=BASELINE)
            yield from _limits_of_peers(name, samples)


def _limits_of_peers(name: str, samples: dict[str, list[float]]) -> Iterator[Limit]:
    for peer in echo.FAST_LOOPS:
        if peer in samples:
            yield Limit(name, 1.0, of=peer)


# ---- handshakes ----------------------------------------------------------------------


@dataclass(frozen=True)
class Handshakes:
    """Connections one after the other: handshake, one byte echoed, close."""

    program: str
    kind: str
    core: int | None

    def cpu_per_handshake(self, server: Server) -> float:
        """Return the server's CPU microseconds per connection."""
        command = [self.program, str(server.port), str(HANDSHAKES), self.kind]
        generator = LoadGenerator(f"handshakes with {server.name}", command, self.core)
        try:
            generator.await_ready()
            before = server.cpu_nanoseconds()
            count = generator.run_messages()
            cpu = server.cpu_nanoseconds() - before
            generator.finish()
        finally:
            generator.end()
        return cpu / 1000 / count


def _measure_handshakes(
    kind: str, servers: dict[str, Server], left_out: dict[str, str], options: Options
) -> Table:
    progress(f"  handshakes, {kind}")
    program = str(build("tls_handshakes.c", *LIBRARIES))
    handshakes = Handshakes(program, kind, cores(options.is_pinned)[1])
    contenders = {
        name: functools.partial(handshakes.cpu_per_handshake, server)
        for name, server in servers.items()
    }
    samples = interleave(contenders, options.rounds)
    limits = tuple(
        limit
        for name in ("fdmux", "fdmux-asyncio")
        if name in samples
        for limit in _limits_of_peers(name, samples)
    )
    unit = "server CPU us per connection, accept, echo and close included"
    situation = f"handshakes, {kind}, one connection at a time"
    return Table("tls", situation, unit, BASELINE, samples, left_out, limits)


# ---- memory --------------------------------------------------------------------------


def _measure_memory(
    commands: dict[str, Command], left_out: dict[str, str], options: Options
) -> Table:
    """Measure in a new process each: one that had connections keeps their memory."""
    situation = f"{IDLE_CONNECTIONS:,} idle connections"
    progress(f"  {situation}")
    core = cores(options.is_pinned)[0]
    samples = {}
    for name, command in commands.items():
        with contextlib.suppress(
            Failed
        ):  # told when the servers of the other tables start
            samples[name] = [_resident_per_connection(Server(name, command, core))]
    unit = "bytes resident per connection, after one message of 1 KiB each"
    limits = tuple(
        Limit(name, 1.0, of="asyncio")
        for name in ("fdmux", "fdmux-asyncio")
        if name in samples and "asyncio" in samples
    )
    return Table("tls", situation, unit, BASELINE, samples, left_out, limits)


def _resident_per_connection(server: Server) -> float:
    program = str(build("tls_load.c", *LIBRARIES))
    try:
        with _idle(program, 1).started(server.name, server.port) as generator:
            generator.run_messages()
            before = _resident_bytes(server)
        load = _idle(program, IDLE_CONNECTIONS)
        with load.started(server.name, server.port) as generator:
            growth = _resident_bytes(server) - before
            generator.run_messages()
    finally:
        server.end()
    return growth / IDLE_CONNECTIONS


def _idle(program: str, connections: int) -> Load:
    return Load(program, connections, echo.SIZE, connections, connections, None)


def _resident_bytes(server: Server) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()
