"""Streams keep every byte if each call moves only a few bytes.

Every receive and every send of the core moves 1 to 7 bytes, and now and then the kernel
says EAGAIN or EINTR for no reason. What is echoed is what was sent, to the byte.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import random
import socket
from typing import TYPE_CHECKING

import pytest

from fdmux import EchoServer, Selector, SelectorEventLoop, StreamHandler, add_stream
from fdmux._ffi import lib
from fdmux._native import backend_names

if TYPE_CHECKING:
    from tests.reliability.conftest import Bars

    from fdmux import Stream

pytestmark = pytest.mark.faults

MIB = 1 << 20
SEEDS = range(20)
LENGTHS = range(1, 8)  # bytes moved at once
TROUBLES = (errno.EAGAIN, errno.EINTR)
QUEUE = 16 * 1024  # of bytes under way
TURN = 64  # iterations with the same trouble


class Sender(StreamHandler):
    """Sends random bytes, and hashes what comes back."""

    def __init__(self, size: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._left = size
        self.missing = size
        self.sent = hashlib.sha256()
        self.received = hashlib.sha256()
        self.errors: list[Exception | None] = []

    def feed(self, stream: Stream) -> None:
        """Keep some bytes under way."""
        room = QUEUE - stream.buffered
        size = min(room, self._left)
        if size > 0:
            chunk = self._random.randbytes(size)
            self.sent.update(chunk)
            self._left -= size
            stream.write(chunk)

    def on_data(self, _stream: Stream, data: bytes) -> None:
        self.received.update(data)
        self.missing -= len(data)

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        self.errors.append(error)


def disturb(rng: random.Random) -> None:
    """Choose a length, and which call gets EAGAIN or EINTR."""
    lib.fdmux_testing_short(rng.choice(LENGTHS))
    kind = rng.choice((lib.FDMUX_CALL_RECV, lib.FDMUX_CALL_SEND))
    lib.fdmux_testing_fail(kind, rng.randrange(1, 50), rng.choice(TROUBLES), 0)


def echo(backend: str, size: int, seed: int) -> Sender:
    """Send it through an EchoServer, both ends in one loop."""
    rng = random.Random(seed)
    sender = Sender(size, seed)
    with (
        SelectorEventLoop(Selector(backend)) as loop,
        EchoServer(port=0, loop=loop) as server,
        contextlib.ExitStack() as stack,
    ):
        sock = stack.enter_context(socket.create_connection(server.address))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = add_stream(loop, sock, sender)
        while sender.missing and not sender.errors:
            disturb(rng)
            sender.feed(stream)
            loop.run(timeout=0.001, max_iterations=TURN)
        stream.abort()
        loop.run_once(0)
    return sender


def echo_all(bars: Bars, backend: str, size: int) -> None:
    senders = [echo(backend, size, seed) for seed in SEEDS]
    wrong = sum(one.sent.digest() != one.received.digest() for one in senders)
    errors = [error for one in senders for error in one.errors if error is not None]
    assert not errors
    name = f"bytes echoed 1 to 7 at once, {backend}"
    bars.at_least(size * len(SEEDS), name, sum(size - one.missing for one in senders))
    bars.at_most(0, f"streams of {len(SEEDS)} with a wrong hash, {backend}", wrong)


@pytest.mark.commit
@pytest.mark.slow
@pytest.mark.parametrize("backend", backend_names())
def test_echo_through_a_keyhole(bars: Bars, backend: str) -> None:
    echo_all(bars, backend, MIB // 64)


@pytest.mark.nightly
@pytest.mark.parametrize(("backend", "size"), [("epoll", 16 * MIB), ("poll", MIB)])
def test_sixteen_mebibytes_through_a_keyhole(
    bars: Bars, backend: str, size: int
) -> None:
    echo_all(bars, backend, size)
