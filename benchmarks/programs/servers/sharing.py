"""An echo in several processes that share a port, as docs/servers.md has it.

    python -m benchmarks.programs.servers.sharing reuse_port|inherited PROCESSES STEPS

The parent makes the listening sockets: one for each process, with ``SO_REUSEPORT``, or
one that all of them inherit. Before it answers, a process takes STEPS steps of work,
some 20 ns each: a number of steps, and not a time, so that it costs CPU time whoever
else runs meanwhile.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import fdmux
from benchmarks.programs.servers.announce import BACKLOG, announce
from benchmarks.programs.servers.fdmux_stream import LIMITS

MODULE = "benchmarks.programs.servers.sharing"


class WorkingEcho(fdmux.StreamHandler):
    """Works, then writes what it got."""

    def __init__(self, steps: int) -> None:
        self._steps = range(steps)

    def on_data(self, _stream: fdmux.Stream, data: bytes) -> bytes:
        sum(self._steps)
        return data


def work(fd: int, steps: int) -> None:
    """Serve on an inherited socket, until SIGTERM."""
    sock = socket.socket(fileno=fd)
    server = fdmux.StreamServer(sock=sock, handler=WorkingEcho(steps), limits=LIMITS)
    with server:
        announce(server.address[1])
        server.run()


def start(sock: socket.socket, steps: str) -> subprocess.Popen[bytes]:
    """Start a process, and wait until it serves."""
    fd = sock.fileno()
    command = [sys.executable, "-m", MODULE, "work", str(fd), steps]
    process = subprocess.Popen(command, pass_fds=[fd], stdout=subprocess.PIPE)
    if process.stdout is None or not process.stdout.readline():
        raise SystemExit(f"a process ended with status {process.wait()}")
    return process


def serve(kind: str, count: int, steps: str) -> None:
    """Start the processes, and end them at SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    is_shared = kind == "inherited"
    first = socket.create_server(
        ("127.0.0.1", 0), backlog=BACKLOG, reuse_port=not is_shared
    )
    address = first.getsockname()
    others = [
        first
        if is_shared
        else socket.create_server(address, backlog=BACKLOG, reuse_port=True)
        for _ in range(1, count)
    ]
    processes = [start(sock, steps) for sock in (first, *others)]
    announce(address[1])
    signal.sigwait({signal.SIGTERM})
    for process in processes:
        process.kill()
        process.wait()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        work(int(sys.argv[2]), int(sys.argv[3]))
    else:
        serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
