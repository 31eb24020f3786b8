"""What the peer of a connection does, on a plain blocking socket."""

from __future__ import annotations

import socket
import struct

Pair = tuple[socket.socket, socket.socket]


def receive(sock: socket.socket, count: int) -> bytes:
    """Receive ``count`` bytes; fewer if the stream ends before."""
    data = bytearray()
    while len(data) < count and (chunk := sock.recv(count - len(data))):
        data += chunk
    return bytes(data)


def reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN (a Unix socket: at once)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
