"""Tour: a server with a slow client, and many clients in one thread."""

from __future__ import annotations

import hashlib
import socket
from random import Random

from fdmux import (
    ClientPool,
    EchoServer,
    connect_with_timeout,
    read_with_timeout,
    wait_readable,
    wait_writable,
)
from fdmux.commands.tour.expect import PATIENCE, expect

SIZE = 8 * 1024 * 1024  # more than the kernel's buffers hold with a client like this
BUFFER_SIZE = 64 * 1024
STALLED_AFTER = 0.05  # a server that still reads makes room much sooner


def slow_client() -> str:
    """A client sends 8 MiB and reads nothing at first: it gets every byte back."""
    data = Random(0).randbytes(SIZE)  # noqa: S311 - a pattern, not a secret
    with EchoServer(port=0) as server:
        server.run_in_thread()
        with connect_with_timeout(*server.address) as sock:
            sock.setblocking(False)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)
            sent = send_until_stalled(sock, data)
            other_is_served(server)
            echoed = exchange_rest(sock, data, sent)
    expect(echoed == hashlib.sha256(data).digest(), "the bytes came back changed")
    return f"{SIZE:,} bytes equal, {sent:,} of them sent before reading"


def send_until_stalled(sock: socket.socket, data: bytes) -> int:
    """Send without reading until the server takes no more; return how much."""
    sent = 0
    while sent < len(data) and wait_writable([sock], STALLED_AFTER):
        sent += sock.send(memoryview(data)[sent:])
    return sent


def other_is_served(server: EchoServer) -> None:
    """Check that the slow client does not hold up another one."""
    with connect_with_timeout(*server.address) as sock:
        sock.sendall(b"hello")
        read_with_timeout(sock, 5)


def exchange_rest(sock: socket.socket, data: bytes, sent: int) -> bytes:
    """Send the rest while reading everything; return the hash of what arrived."""
    digest = hashlib.sha256()
    received = 0
    while received < len(data):
        if sent < len(data) and wait_writable([sock], timeout=0):
            sent += sock.send(memoryview(data)[sent:])
        expect(bool(wait_readable([sock], PATIENCE)), f"nothing after {received}")
        piece = sock.recv(262_144)
        expect(piece != b"", f"the stream ended after {received} bytes")
        digest.update(piece)
        received += len(piece)
    return digest.digest()


def pool() -> str:
    """One thread, four connections, a hundred messages, replies in order."""
    messages = [f"message {number}\n".encode() for number in range(100)]
    with EchoServer(port=0) as server:
        server.run_in_thread()
        with ClientPool(*server.address, size=4, timeout=5) as pool:
            replies = pool.exchange(messages, reply=b"\n")
            connection_count = pool.connection_count
    expect(replies == messages, "the replies are not the messages, in order")
    return f"{len(replies)} replies in order over {connection_count} connections"
