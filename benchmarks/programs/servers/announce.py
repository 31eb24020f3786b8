"""What every echo server does first: bind a socket, tell the port, follow the runner.

`PR_SET_PDEATHSIG` (prctl(2)) ends the server when the runner dies, however it dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket

BUFFER_SIZE = 256 * 1024
BACKLOG = 1024
CONNECTION_MAX = 10_000
DATAGRAM_BUFFER = 4 * 1024 * 1024  # as programs/native/datagram_socket.h
PR_SET_PDEATHSIG = 1


def listen() -> socket.socket:
    """Return a non-blocking listening socket on a free loopback port.

    Linux hands the option on to accepted sockets, so all servers have TCP_NODELAY.
    """
    sock = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


def announce(port: int) -> None:
    """Print the port on standard output, where the runner reads it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    print(port, flush=True)


def bind_datagrams() -> socket.socket:
    """Return a datagram socket on a free loopback port, with a large buffer."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BUFFER)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock
