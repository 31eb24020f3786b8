"""A loop, a handler that records, and plain sockets to talk to endpoints."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, cast

import pytest

from fdmux.datagrams.endpoint import DatagramHandler
from fdmux.loop.event_loop import SelectorEventLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fdmux.datagrams.address import Address
    from fdmux.datagrams.endpoint import DatagramEndpoint

LONG = 10.0
LOOPBACK = ("127.0.0.1", 0)


class Recorder(DatagramHandler):
    """Records each call, and answers with what ``answer`` returns."""

    def __init__(self, answer: Callable[[bytes], bytes | None] | None = None) -> None:
        self.answer = answer
        self.received: list[tuple[bytes, Address | None]] = []
        self.errors: list[tuple[OSError, Address | None]] = []
        self.closed: list[OSError | None] = []
        self.writable = 0

    def on_datagram(
        self, _endpoint: DatagramEndpoint, data: bytes, address: Address | None
    ) -> bytes | None:
        self.received.append((data, address))
        return None if self.answer is None else self.answer(data)

    def on_error(
        self, _endpoint: DatagramEndpoint, error: OSError, address: Address | None
    ) -> None:
        self.errors.append((error, address))

    def on_writable(self, _endpoint: DatagramEndpoint) -> None:
        self.writable += 1

    def on_close(self, _endpoint: DatagramEndpoint, error: OSError | None) -> None:
        self.closed.append(error)


def run_until(loop: SelectorEventLoop, condition: Callable[[], object]) -> None:
    """Run the loop until ``condition`` holds."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        loop.run_once(0.01)


def port_of(endpoint: DatagramEndpoint) -> int:
    """Return the port that an endpoint is bound to."""
    return int(cast("tuple[str, int]", endpoint.sockname)[1])


def closed_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(LOOPBACK)
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def loop() -> Iterator[SelectorEventLoop]:
    with SelectorEventLoop() as loop:
        yield loop


@pytest.fixture
def handler() -> Recorder:
    return Recorder()


@pytest.fixture
def talker() -> Iterator[socket.socket]:
    """A plain datagram socket on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(LOOPBACK)
        sock.settimeout(LONG)
        yield sock
