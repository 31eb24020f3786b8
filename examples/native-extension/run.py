"""Run the UDP service in a SelectorEventLoop, beside Python's own sockets.

Prints what happened; exits with 1 at the first wrong result.
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import udp_digest

from fdmux import SelectorEventLoop, current

if TYPE_CHECKING:
    from collections.abc import Callable

REQUESTS = [f"request {number}".encode() * (number % 7) for number in range(50)]
TOO_LONG = bytes(1025)


def check(is_so: bool, text: str) -> None:
    """Print a result that is right; with a wrong one, end the program."""
    if not is_so:
        sys.exit(f"WRONG   {text}")
    print(f"ok      {text}")


def digest(data: bytes) -> bytes:
    """Compute in Python what the service should answer."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return b"%016x" % value


def run_until(loop: SelectorEventLoop, is_done: Callable[[], bool]) -> None:
    """Run the loop until a condition holds, 10 s at most."""
    deadline = time.monotonic() + 10
    while not is_done():
        if time.monotonic() > deadline:
            sys.exit("WRONG   nothing happened for 10 s")
        loop.run_once(timeout=0.01)


def exchange(loop: SelectorEventLoop, port: int) -> None:
    """Ask the service from Python, while Python's own sockets talk to each other."""
    answers: list[bytes] = []
    bounces: list[bytes] = []
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    left, right = socket.socketpair()
    with client, left, right:
        client.connect(("127.0.0.1", port))

        def on_answer(sock: socket.socket) -> None:
            answers.append(sock.recv(64))
            if len(answers) < len(REQUESTS):
                sock.send(REQUESTS[len(answers)])

        def on_bounce(sock: socket.socket) -> None:
            bounces.append(sock.recv(64))
            sock.send(b"ball")

        loop.register_read(client, on_answer)
        loop.register_read(left, on_bounce)
        loop.register_read(right, lambda sock: sock.send(sock.recv(64)))
        client.send(REQUESTS[0])
        left.send(b"ball")
        run_until(loop, lambda: len(answers) == len(REQUESTS))
        for sock in (client, left, right):
            loop.unregister(sock)
    check(answers == list(map(digest, REQUESTS)), f"{len(answers)} answers from C")
    check(set(bounces) == {b"ball"}, f"{len(bounces)} messages between Python sockets")


def provoke_error(loop: SelectorEventLoop, port: int) -> None:
    """A negative result of the C callback is an OSError when the loop runs."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.send(TOO_LONG)
        try:
            run_until(loop, lambda: False)
        except OSError as error:
            check(error.errno == errno.EMSGSIZE, f"an error from C: {error}")
        client.send(b"still there?")
        loop.register_read(client, lambda _sock: loop.stop())
        loop.run(timeout=10)
        loop.unregister(client)
        check(client.recv(64) == digest(b"still there?"), "the service goes on")


def attach_without_a_loop(loop: SelectorEventLoop) -> None:
    """In a callback the service finds the loop itself, with fdmux.current()."""
    found: list[udp_digest.Service] = []
    loop.call_later(0, lambda: found.append(udp_digest.attach()))
    run_until(loop, lambda: bool(found))
    exchange(loop, found[0].port())
    found[0].close()
    check(found[0].has_ended(), "close() ended the second service, not the loop")


def refuse() -> None:
    """Objects without a loop, and closed loops, are refused; nothing is left."""
    try:
        udp_digest.attach(socket)
    except TypeError as error:
        check("host must be" in str(error), f"refused: {error}")
    with SelectorEventLoop() as loop:
        native = loop.native
    try:
        udp_digest.attach(native)
    except OSError as error:
        check(error.errno == errno.ESTALE, f"refused: {error}")
    try:
        current()
    except RuntimeError:
        check(True, "no current loop outside of a callback")


def resources() -> tuple[int, int]:
    """Count the threads and descriptors of this process, those of C code included."""
    process = Path("/proc/self")
    return len(list((process / "task").iterdir())), len(
        list((process / "fd").iterdir())
    )


def main() -> None:
    """Run every part in one loop, then close the loop before the service."""
    before = resources()
    with SelectorEventLoop() as loop:
        service = udp_digest.attach(loop)
        exchange(loop, service.port())
        provoke_error(loop, service.port())
        attach_without_a_loop(loop)
        run_until(loop, lambda: service.counts()["ticks"] >= 3)
        check(not service.has_ended(), f"counted in C: {service.counts()}")
    check(service.has_ended(), "closing the loop ended the service")
    refuse()
    deadline = time.monotonic() + 1
    while resources() != before and time.monotonic() < deadline:
        time.sleep(0.001)  # /proc shows a thread for a moment after it was joined
    after = resources()
    check(after == before, f"threads and descriptors before {before}, after {after}")


main()
