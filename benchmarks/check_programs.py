"""Checks the load generators of the row `programs`: do they notice lies, too?"""

from __future__ import annotations

import contextlib
import socket
import threading

from benchmarks.availability import Unavailable
from benchmarks.check import MESSAGE_SIZE, MESSAGES, WARMUP, LyingServer, check_loop
from benchmarks.http_load import require_wrk, run_wrk
from benchmarks.processes import Failed
from benchmarks.programs.servers.announce import listen
from benchmarks.progress import progress
from benchmarks.rows.programs import load_websockets
from benchmarks.websocket_load import CLOSE_FRAME, accept_key, apply_mask, header

WRK_SECONDS = 0.3
ACCEPT_SECONDS = 0.05
HONEST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
FAILING = b"HTTP/1.1 500 Error\r\nContent-Length: 2\r\n\r\nno"


class LyingWebSocket(LyingServer):
    """The same in frames of RFC 6455: ``answer`` decides what is in them."""

    def _serve(self, sock: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += sock.recv(4096)
        key = request.partition(b"Sec-WebSocket-Key: ")[2].split(b"\r\n")[0]
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
            + accept_key(key)
            + b"\r\n\r\n"
        )
        head = len(header(MESSAGE_SIZE, bytes(4)))
        with contextlib.suppress(ConnectionError):  # it left: it has noticed
            self._echo(sock, head)

    def _echo(self, sock: socket.socket, head: int) -> None:
        size = head + MESSAGE_SIZE
        while len(frame := sock.recv(size, socket.MSG_WAITALL)) == size:
            self.received += MESSAGE_SIZE
            payload = apply_mask(frame[head:], frame[head - 4 : head])
            sock.sendall(header(MESSAGE_SIZE) + self._answer(self.received, payload))
        sock.sendall(CLOSE_FRAME)


def websocket_loop(port: int) -> int:
    """Drive with websocket_load.py; return how many messages were measured."""
    arguments = (port, 1, MESSAGE_SIZE, WARMUP, MESSAGES)
    with load_websockets("the server of the check", arguments, None) as load:
        return int(load.run_round()[0])


class HttpServer(threading.Thread):
    """Gives every request the same answer, or hangs up if that is empty."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self._answer = answer
        self._is_ended = threading.Event()
        self._listener = listen()
        self._listener.settimeout(ACCEPT_SECONDS)
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        with self._listener:
            while not self._is_ended.is_set():
                try:
                    sock, _ = self._listener.accept()
                except TimeoutError:
                    continue
                with sock:
                    self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(10)
        try:
            while sock.recv(4096) and self._answer:
                sock.sendall(self._answer)
        except OSError:
            pass  # wrk ends when it is told to

    def end(self) -> None:
        self._is_ended.set()
        self.join()


def _wrk_notices(answer: bytes) -> bool:
    server = HttpServer(answer)
    server.start()
    try:
        run_wrk(server.port, 1, WRK_SECONDS, None)
    except Failed:
        return True
    finally:
        server.end()
    return False


def _check_wrk() -> bool:
    try:
        require_wrk()
    except Unavailable as reason:
        progress(f"  left out: {reason}")
        return True
    cases = {"is honest": HONEST, "answers 500": FAILING, "hangs up": b""}
    all_right = True
    for name, answer in cases.items():
        was_noticed = _wrk_notices(answer)
        is_right = was_noticed is (answer is not HONEST)
        all_right = all_right and is_right
        verdict = "as it must be" if is_right else "WRONG"
        progress(f"  a server that {name}: noticed: {was_noticed}: {verdict}")
    return all_right


def check_program_loads() -> bool:
    """Run every case, say what happened, and tell whether all went as they must."""
    results = [check_loop("WebSocket loop", websocket_loop, LyingWebSocket)]
    progress("wrk:")
    results.append(_check_wrk())
    return all(results)
