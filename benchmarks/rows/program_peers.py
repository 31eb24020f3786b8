"""What the clients of the row `programs` talk to: PostgreSQL and Redis, started here.

Each is a child on a free port of loopback, without a disk to wait for, and is ended
with the row.
"""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable
from benchmarks.processes import Failed, Server
from benchmarks.programs.servers.postgresql import programs_folder

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

READY_SECONDS = 30.0
ANSWER_SECONDS = 5.0
POLL_SECONDS = 0.02

# What is asked first, and how the answer of a server begins that is ready. PostgreSQL
# says E (ErrorResponse) to a StartupMessage while it starts, and then R.
POSTGRESQL_HELLO = (b"\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00", b"R")
REDIS_HELLO = (b"PING\r\n", b"+PONG")


@dataclass(frozen=True)
class Peer:
    """A server of somebody else's, and what a client is to do with it."""

    operation: str
    require: Callable[[], object]
    module: str
    hello: tuple[bytes, bytes]
    needs_folder: bool


def _require_redis() -> None:
    if shutil.which("redis-server") is None:
        raise Unavailable("no redis-server (Debian: redis-server)")


PEERS = {
    "asyncpg": Peer("SELECT 1", programs_folder, "postgresql", POSTGRESQL_HELLO, True),
    "redis": Peer("GET", _require_redis, "resp_redis", REDIS_HELLO, False),
}


def start_peer(name: str, core: int | None, stack: contextlib.ExitStack) -> int:
    """Start the server that a client needs; return its port once it answers."""
    peer = PEERS[name]
    peer.require()
    folder: list[str] = []
    if peer.needs_folder:
        folder.append(stack.enter_context(tempfile.TemporaryDirectory()))
    command = [
        sys.executable,
        "-m",
        f"benchmarks.programs.servers.{peer.module}",
        *folder,
    ]
    server = Server(f"the server of {name}", command, core)
    stack.callback(server.end)
    deadline = time.monotonic() + READY_SECONDS
    while not _answers(server.port, *peer.hello):
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"{server.name} does not answer")
        time.sleep(POLL_SECONDS)
    return server.port


def _answers(port: int, hello: bytes, expected: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS) as sock:
            sock.sendall(hello)
            return sock.recv(64).startswith(expected)
    except OSError:
        return False
