"""Checks the load generator itself, against a server that is honest and some that lie.

A load generator that does not notice a wrong byte would crown the fastest broken
server. Each lie must end it with a failure, and the truth must add up to the byte.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.build import build
from benchmarks.processes import Failed, Load
from benchmarks.rounds import progress
from benchmarks.servers.announce import BUFFER_SIZE, listen

if TYPE_CHECKING:
    import socket

Answer = Callable[[int, bytes], bytes]

MESSAGE_SIZE = 1000
WARMUP = 10
MESSAGES = 90


class LyingServer(threading.Thread):
    """Serves one connection; ``answer`` decides what comes back."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer
        self._listener = listen()
        self._listener.setblocking(True)
        self._listener.settimeout(30)
        self.port: int = self._listener.getsockname()[1]
        self.received = 0

    def run(self) -> None:
        with self._listener:
            sock, _ = self._listener.accept()
        with sock:
            sock.settimeout(30)
            self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            while received := sock.recv(BUFFER_SIZE):
                self.received += len(received)
                sock.sendall(self._answer(self.received, received))
        except ConnectionError:
            pass  # the load generator left: it has noticed


def is_honest(_total: int, received: bytes) -> bytes:
    return received


def flips_a_bit(total: int, received: bytes) -> bytes:
    is_due = total == 50 * MESSAGE_SIZE
    return received[:-1] + bytes([received[-1] ^ 1]) if is_due else received


def adds_a_byte(total: int, received: bytes) -> bytes:
    is_due = total == (WARMUP + MESSAGES) * MESSAGE_SIZE
    return received + b"x" if is_due else received


class RepeatsAnOldMessage:
    """Right length, right bytes, wrong message."""

    def __init__(self) -> None:
        self._first = b""

    def __call__(self, total: int, received: bytes) -> bytes:
        self._first = self._first or received
        return self._first if total == 50 * MESSAGE_SIZE else received


def check_load_generator() -> bool:
    """Run every case, say what happened, and tell whether all went as they must."""
    results = [
        _outcome("is honest", is_honest, is_lie=False),
        _outcome("flips a bit", flips_a_bit, is_lie=True),
        _outcome("adds a byte at the end", adds_a_byte, is_lie=True),
        _outcome("repeats an old message", RepeatsAnOldMessage(), is_lie=True),
    ]
    return all(results)


def _outcome(name: str, answer: Answer, *, is_lie: bool) -> bool:
    server = LyingServer(answer)
    server.start()
    load = Load(str(build("load.c")), 1, MESSAGE_SIZE, WARMUP, MESSAGES, None)
    try:
        with load.started(f"a server that {name}", server.port) as generator:
            count = generator.run_messages()
    except Failed:
        was_noticed = True
    else:
        was_noticed = False
    server.join()
    is_right = was_noticed is is_lie
    if not is_lie and not was_noticed:
        expected = (WARMUP + count) * MESSAGE_SIZE
        is_right = count == MESSAGES and server.received == expected
    verdict = "as it must be" if is_right else "WRONG"
    progress(f"  a server that {name}: noticed: {was_noticed}: {verdict}")
    return is_right
