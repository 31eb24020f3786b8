"""What peers do, on plain sockets; and an address that does not answer."""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Pair = tuple[socket.socket, socket.socket]


def receive(sock: socket.socket, count: int) -> bytes:
    """Receive ``count`` bytes; fewer if the stream ends before."""
    data = bytearray()
    while len(data) < count and (chunk := sock.recv(count - len(data))):
        data += chunk
    return bytes(data)


def reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN (a Unix socket: at once)."""
    shape = "HH" if sys.platform == "win32" else "ii"  # of struct linger
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(shape, 1, 0))
    sock.close()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Choose a port for a program that cannot be told to let the kernel choose.

    Below those that the kernel gives to whoever asks for any (ip(7),
    ip_local_port_range), and not by `random`, which is seeded alike in each process
    of a test run: so nobody else is likely to take it meanwhile.
    """
    while True:
        port = 20000 + secrets.randbelow(12000)
        with contextlib.suppress(OSError), socket.socket(type=kind) as sock:
            sock.bind(("127.0.0.1", port))
            return port


def send_at_once(*socks: socket.socket) -> None:
    """Have the ends of a pair send without delay: Windows makes pairs of TCP."""
    for sock in socks:
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@contextlib.contextmanager
def deaf_address(host: str = "127.0.0.1") -> Iterator[tuple[str, int]]:
    """Listen with a full backlog: the kernel drops each SYN to this address."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((host, 0)))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()
