"""Shared by the tests of transports: a transport with a recording protocol, and a
plain socket at the other end.

Its one rule: each test runs on asyncio's own loop too, so that both behave the same.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

from fdmux.hosts.asyncio import EventLoop
from fdmux.hosts.asyncio.transport import StreamTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    import pytest

    Event = object

Loop = asyncio.SelectorEventLoop

SOON = 10.0
BIG = 4 << 20  # far more than the kernel takes
KERNEL_SIZE = 64 * 1024
BOTH = ["stock", "ours"]


def make_loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    """Make a loop of either kind; a fixture, with `BOTH` as its params."""
    loop = asyncio.SelectorEventLoop() if request.param == "stock" else EventLoop()
    try:
        yield loop
    finally:
        loop.close()


def run(loop: Loop, main: Coroutine[object, object, None]) -> None:
    loop.run_until_complete(asyncio.wait_for(main, SOON))


class Recorder(asyncio.Protocol):
    """A protocol that records its calls, and lets a test wait for them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.data = b""
        self.keeps_open = False
        self.lost: asyncio.Future[Exception | None] = (
            asyncio.get_running_loop().create_future()
        )
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.note("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.data += data
        self.note("data")

    def eof_received(self) -> bool:
        self.note("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.note("lost")
        self.lost.set_result(exc)

    def note(self, event: Event) -> None:
        self.events.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a call of the protocol has made the condition true."""
        while not condition():
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_SIZE)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_SIZE)
    return accepted, client


async def connect(
    make: Callable[[], asyncio.BaseProtocol] = Recorder,
) -> tuple[asyncio.Transport, Recorder, socket.socket]:
    """Return a transport, its protocol, and the socket at the other end."""
    near, far = tcp_pair()
    transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(
        make, near
    )
    is_ours = isinstance(asyncio.get_running_loop(), EventLoop)
    assert isinstance(transport, StreamTransport) == is_ours
    return transport, cast("Recorder", protocol), far


class Linked(Recorder):
    """A protocol that knows the transport of another connection."""

    other: asyncio.Transport


async def connect_two(
    make: Callable[[], Linked],
) -> list[tuple[asyncio.Transport, Recorder, socket.socket]]:
    """Return two connections whose protocols know each other's transport."""
    ends = [await connect(make), await connect(make)]
    for (transport, _, _), (_, protocol, _) in zip(ends, ends[::-1], strict=True):
        cast("Linked", protocol).other = transport
    return ends


async def receive_all(far: socket.socket) -> bytes:
    parts = []
    while part := await asyncio.get_running_loop().sock_recv(far, 1 << 20):
        parts.append(part)
    return b"".join(parts)


async def turns(count: int = 3) -> None:
    """Let the loop run some iterations."""
    for _ in range(count):
        await asyncio.sleep(0)


class Buffered(asyncio.BufferedProtocol):
    """A protocol with a buffer of four bytes."""

    def __init__(self, size: int = 4) -> None:
        self.buffer = bytearray(size)
        self.data = b""
        self.updates: list[int] = []
        self.lost: asyncio.Future[Exception | None] = (
            asyncio.get_running_loop().create_future()
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        assert sizehint == -1
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.updates.append(nbytes)
        self.data += self.buffer[:nbytes]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


async def receive_size(far: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += await asyncio.get_running_loop().sock_recv(far, 1 << 20)
    return found
