"""A load generator of WebSocket echoes: every client sends once it has its answer.

    python -m benchmarks.websocket_load PORT CONNECTIONS SIZE WARMUP MESSAGES

Bare sockets and frames that were made before, so that it costs less than any server.
Every byte is compared, and messages differ from each other. ``ready`` after the
warm-up; at a line the messages are sent, and their number and the p50 and p99 of their
latency in microseconds printed. At the end of input it closes, and a byte too many
ends it with a failure.
"""

from __future__ import annotations

import base64
import hashlib
import os
import select
import socket
import struct
import sys
import time

KEY = base64.b64encode(bytes(16))
ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
KINDS = 13  # prime, so that connections and messages rarely meet in the same one
HANDSHAKE_MAX = 4096
NORMAL_CLOSURE = struct.pack(">H", 1000)
CLOSE_FRAME = b"\x88\x02" + NORMAL_CLOSURE
SECONDS = 10.0


def accept_key(key: bytes) -> bytes:
    """Return what a server must answer to this key."""
    digest = hashlib.sha1(key + ACCEPT_SUFFIX, usedforsecurity=False).digest()
    return base64.b64encode(digest)


def header(size: int, mask: bytes = b"") -> bytes:
    """Return the head of one binary frame of 126 to 65,535 bytes (RFC 6455, 5.2)."""
    return struct.pack(">BBH", 0x82, 126 | (0x80 if mask else 0), size) + mask


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return number.to_bytes(len(payload), "big")


def make_frames(size: int) -> list[tuple[bytes, bytes]]:
    """Return what is sent and what must come back, of messages that differ."""
    frames: list[tuple[bytes, bytes]] = []
    for _ in range(KINDS):
        payload, mask = os.urandom(size), os.urandom(4)
        request = header(size, mask) + apply_mask(payload, mask)
        frames.append((request, header(size) + payload))
    return frames


class Client:
    """One connection, which has at most one message under way."""

    def __init__(self, port: int, frames: list[tuple[bytes, bytes]]) -> None:
        self._frames = frames
        self._sent = 0
        self._sent_ns = 0
        self._expected = b""
        self._received = b""
        self.sock = socket.create_connection(("127.0.0.1", port), SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: " + KEY + b"\r\n\r\n"
        )
        self._shake_hands()

    def _shake_hands(self) -> None:
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            part = self.sock.recv(HANDSHAKE_MAX)
            if not part or len(answer) > HANDSHAKE_MAX:
                raise ConnectionError("the handshake was not answered")
            answer += part
        if accept_key(KEY) not in answer:
            raise ConnectionError(f"the handshake was answered with {answer!r}")

    def send(self) -> None:
        request, self._expected = self._frames[self._sent % KINDS]
        self._sent += 1
        self._received = b""
        self._sent_ns = time.perf_counter_ns()
        self.sock.sendall(request)

    def receive(self) -> int | None:
        """Take what has come; return the latency once the answer is whole."""
        part = self.sock.recv(1 << 16)
        if not part:
            raise ConnectionError("the server has closed the connection")
        self._received += part
        if len(self._received) < len(self._expected):
            return None
        if self._received != self._expected:
            raise ValueError("the answer is not what was sent")
        return time.perf_counter_ns() - self._sent_ns

    def close(self) -> None:
        """Close as RFC 6455 has it; what comes must be the answer to that alone."""
        mask = bytes(4)
        self.sock.sendall(b"\x88\x82" + mask + NORMAL_CLOSURE)
        self.sock.shutdown(socket.SHUT_WR)
        rest = b""
        while part := self.sock.recv(4096):
            rest += part
        self.sock.close()
        if rest != CLOSE_FRAME:
            raise ValueError(f"{rest!r} came after the last answer")


def run_messages(clients: list[Client], count: int) -> list[int]:
    """Send so many messages over all connections; return their latencies."""
    latencies: list[int] = []
    by_fd = {client.sock.fileno(): client for client in clients}
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    left = count
    for client in clients[:count]:
        client.send()
        left -= 1
    while len(latencies) < count:
        ready = poll.poll(SECONDS)
        if not ready:
            raise TimeoutError(f"no answer for {SECONDS} s")
        for fd, _ in ready:
            latency = by_fd[fd].receive()
            if latency is None:
                continue
            latencies.append(latency)
            if left:
                by_fd[fd].send()
                left -= 1
    poll.close()
    return latencies


def main() -> None:
    port, connections, size, warmup, messages = (int(word) for word in sys.argv[1:])
    frames = make_frames(size)
    clients = [Client(port, frames) for _ in range(connections)]
    run_messages(clients, warmup)
    print("ready", flush=True)
    for _ in sys.stdin:
        found = sorted(run_messages(clients, messages))
        p50, p99 = (found[len(found) * part // 100] / 1000 for part in (50, 99))
        print(len(found), p50, p99, flush=True)
    for client in clients:
        client.close()


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as failure:
        sys.exit(f"websocket_load: {failure}")
