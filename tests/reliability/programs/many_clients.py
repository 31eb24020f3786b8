"""A program: many clients of an echo service, all open at once, all hashed.

    python many_clients.py PORT CLIENTS ROUNDS SIZE SEED

Prints `open` when all are connected, and waits for a line; sends ROUNDS messages of
SIZE random bytes on each connection and reads them back; a random half of the clients
ends its stream after its last message and expects the server's end. Prints what it
found as JSON, and keeps the connections until a line or the end of standard input.
Plain sockets and epoll: nothing of fdmux is here, so nothing of it can hide a fault.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import resource
import select
import socket
import sys
import time

STALL = 60.0
# A listener's queue is short; an overflow costs a second until the kernel tries again.
CONNECTS_PER_CHECK = 64
CHUNK = 65536


class Client:
    """One connection: what it sent, what came back."""

    def __init__(self, address: tuple[str, int], *, ends_early: bool) -> None:
        self.sock = socket.create_connection(address, timeout=STALL)
        self.ends_early = ends_early
        self.sent = hashlib.sha256()
        self.received = hashlib.sha256()
        self.unsent = memoryview(b"")
        self.awaited = 0
        self.has_end = False
        self.is_reset = False

    def check_accepted(self) -> None:
        """Echo one byte: then the server has accepted all earlier clients."""
        self.sock.sendall(b"?")
        self.sent.update(b"?")
        self.received.update(self.sock.recv(1))

    @property
    def is_served(self) -> bool:
        return not self.awaited

    def start(self, message: bytes) -> None:
        self.unsent = memoryview(message)
        self.awaited = len(message)
        self.send()

    def send(self) -> None:
        try:
            count = self.sock.send(self.unsent)
        except BlockingIOError:
            return
        self.sent.update(self.unsent[:count])
        self.unsent = self.unsent[count:]

    def receive(self) -> None:
        try:
            data = self.sock.recv(CHUNK)
        except BlockingIOError:
            return
        self.received.update(data)
        self.awaited -= len(data)  # below 0: more came back than was sent
        self.has_end = not data


@dataclasses.dataclass
class Verdict:
    """What the clients found; all but the first two should be 0."""

    bytes_sent: int = 0
    seconds: float = 0.0
    wrong: int = 0
    lost: int = 0
    reset: int = 0
    unended: int = 0


class Crowd:
    """All clients, and the epoll set they are in."""

    def __init__(self, address: tuple[str, int], count: int, seed: str) -> None:
        self._random = random.Random(seed)
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        early = set(self._random.sample(range(count), count // 2))
        for index in range(count):
            client = Client(address, ends_early=index in early)
            if index % CONNECTS_PER_CHECK == 0:
                client.check_accepted()
            client.sock.setblocking(False)
            self._clients[client.sock.fileno()] = client
            self._epoll.register(client.sock, select.EPOLLIN)

    def run(self, rounds: int, size: int) -> Verdict:
        verdict = Verdict()
        start = time.monotonic()
        for number in range(rounds):
            self._round(size, is_last=number == rounds - 1)
            verdict.bytes_sent += size * len(self._clients)
        verdict.seconds = time.monotonic() - start
        for client in self._clients.values():
            judge(client, verdict)
        return verdict

    def _round(self, size: int, *, is_last: bool) -> None:
        waiting = set(self._clients)
        for fd, client in self._clients.items():
            client.start(self._random.randbytes(size))
            if client.unsent:
                self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
            elif is_last and client.ends_early:
                client.sock.shutdown(socket.SHUT_WR)
        while waiting:
            ready = self._epoll.poll(STALL)
            if not ready:
                return  # what waits still is lost
            for fd, events in ready:
                if self._serve(fd, events, is_last=is_last):
                    waiting.discard(fd)

    def _serve(self, fd: int, events: int, *, is_last: bool) -> bool:
        """Move bytes; returns whether this client's round is over."""
        client = self._clients[fd]
        try:
            if events & select.EPOLLOUT:
                client.send()
                if not client.unsent:
                    self._sent_all(fd, client, is_last=is_last)
            client.receive()
        except ConnectionResetError:
            client.is_reset = True
        if client.is_reset or client.has_end:
            self._epoll.unregister(fd)
            return True
        return client.is_served and not (is_last and client.ends_early)

    def _sent_all(self, fd: int, client: Client, *, is_last: bool) -> None:
        self._epoll.modify(fd, select.EPOLLIN)
        if is_last and client.ends_early:
            client.sock.shutdown(socket.SHUT_WR)


def judge(client: Client, verdict: Verdict) -> None:
    """Count the outcome of one client."""
    if not client.has_end and not client.is_reset:
        client.receive()  # late, doubled or early bytes would be here
    verdict.reset += client.is_reset
    verdict.lost += client.awaited > 0
    verdict.wrong += client.sent.digest() != client.received.digest()
    verdict.unended += client.has_end != client.ends_early


def main() -> None:
    port, count, rounds, size = map(int, sys.argv[1:5])
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd(("127.0.0.1", port), count, sys.argv[5])
    print("open", flush=True)  # noqa: T201 - the answer
    sys.stdin.readline()
    verdict = crowd.run(rounds, size)
    print(json.dumps(dataclasses.asdict(verdict)), flush=True)  # noqa: T201 - the answer
    sys.stdin.readline()


if __name__ == "__main__":
    main()
