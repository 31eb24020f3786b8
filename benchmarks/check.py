"""Checks the load generators themselves, against an honest server and some that lie.

A load generator that does not notice a wrong byte would crown the fastest broken
server. Each lie must end it with a failure, and the truth must add up to the byte.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable

from benchmarks.availability import Unavailable
from benchmarks.build import build
from benchmarks.open_load import OpenLoad
from benchmarks.processes import Failed, Load
from benchmarks.programs.servers.announce import listen
from benchmarks.programs.servers.asyncio_tls import make_context
from benchmarks.progress import progress
from benchmarks.rows.tls import LIBRARIES, make_certificate

Answer = Callable[[int, bytes], bytes]
Drive = Callable[[int], int]

MESSAGE_SIZE = 1000
WARMUP = 10
MESSAGES = 90
INTERVAL_US = 2000  # of the open loop: the answer has come long before


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
            # One message at a time, also after a pause in which two have come.
            while received := sock.recv(MESSAGE_SIZE, socket.MSG_WAITALL):
                self.received += len(received)
                sock.sendall(self._answer(self.received, received))
        except ConnectionError:
            pass  # the load generator left: it has noticed


class LyingTlsServer(LyingServer):
    """The same over TLS."""

    def _serve(self, sock: socket.socket) -> None:
        with tempfile.TemporaryDirectory() as folder:
            context = make_context(*make_certificate(folder))
        with (
            context.wrap_socket(sock, server_side=True) as tls,
            tls.makefile("rb") as reader,
            contextlib.suppress(ConnectionError, ssl.SSLError),  # it left: noticed
        ):
            while received := reader.read(MESSAGE_SIZE):
                self.received += len(received)
                tls.sendall(self._answer(self.received, received))


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


def closed_loop(port: int) -> int:
    """Drive with programs/native/load.c; return how many messages were measured."""
    load = Load(str(build("load.c")), 1, MESSAGE_SIZE, WARMUP, MESSAGES, None)
    with load.started("the server of the check", port) as generator:
        return generator.run_messages()


def closed_tls_loop(port: int) -> int:
    """Drive with programs/native/tls_load.c; return how many were measured."""
    program = str(build("tls_load.c", *LIBRARIES))
    load = Load(program, 1, MESSAGE_SIZE, WARMUP, MESSAGES, None)
    with load.started("the server of the check", port) as generator:
        return generator.run_messages()


def open_loop(port: int) -> int:
    """Drive with programs/native/latency_load.c; it sends one message to connect."""
    load = OpenLoad("bursts", 1, MESSAGE_SIZE, WARMUP - 1, MESSAGES, INTERVAL_US)
    load.run("the server of the check", port, None)
    return MESSAGES


def check_load_generators() -> bool:
    """Run every case and report it; return whether all went as expected."""
    results = [
        check_loop("closed loop", closed_loop),
        check_loop("open loop", open_loop),
        check_tls_loop(),
    ]
    return all(results)


def check_tls_loop() -> bool:
    """Do the same over TLS, where there are headers and the program openssl."""
    try:
        build("tls_load.c", *LIBRARIES)
        with tempfile.TemporaryDirectory() as folder:
            make_certificate(folder)
    except Unavailable as reason:
        progress(f"closed loop over TLS: left out, {reason}")
        return True
    return check_loop("closed loop over TLS", closed_tls_loop, LyingTlsServer)


def check_loop(
    name: str, drive: Drive, make_server: Callable[[Answer], LyingServer] = LyingServer
) -> bool:
    """Let a load generator drive an honest server, and one for each lie."""
    progress(f"{name}:")
    answers: dict[str, Answer] = {
        "is honest": is_honest,
        "flips a bit": flips_a_bit,
        "adds a byte at the end": adds_a_byte,
        "repeats an old message": RepeatsAnOldMessage(),
    }
    results = [
        _outcome(drive, case, make_server(answer), is_lie=answer is not is_honest)
        for case, answer in answers.items()
    ]
    return all(results)


def _outcome(drive: Drive, name: str, server: LyingServer, *, is_lie: bool) -> bool:
    server.start()
    try:
        count = drive(server.port)
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
