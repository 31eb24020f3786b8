"""Shared by the tests of TLS: a transport with TLS, and TLS by hand at the other end.

Its one rule: each test runs on asyncio's own loop too, and on both ways by which ours
moves the bytes, so that all three behave the same.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, cast

import pytest
from tests.python.hosts.asyncio.asyncio_ends import Loop, Recorder, tcp_pair

from fdmux.hosts.asyncio import EventLoop
from fdmux.hosts.asyncio.tls import SSLTransport
from fdmux.streams import tls_library

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from tests.certificates import Certificates

KINDS = ["stock", "openssl", "python"]
CHUNK = 1 << 16


def make_tls_loop(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Loop]:
    """Make a loop of each kind; a fixture, with `KINDS` as its params."""
    if request.param == "stock":
        loop = asyncio.SelectorEventLoop()
    else:
        monkeypatch.setenv(tls_library.ENVIRONMENT, request.param)
        tls_library.choose.cache_clear()
        if tls_library.choose().is_direct != (request.param == "openssl"):
            pytest.skip("cannot call OpenSSL here")
        loop = EventLoop()
    try:
        yield loop
    finally:
        loop.close()
        tls_library.choose.cache_clear()


def is_ours(loop: asyncio.AbstractEventLoop) -> bool:
    return isinstance(loop, EventLoop)


class Peer:
    """TLS by hand on a socket: it does only what a test says.

    Attributes:
        received: Every byte of the socket, as it came.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=server_side,
            server_hostname=None if server_side else "localhost",
        )
        self.received = b""
        self.is_ended = False  # the socket

    async def flush(self) -> None:
        if self.outgoing.pending:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(self.sock, self.outgoing.read())

    async def receive(self) -> None:
        await self.flush()
        data = await asyncio.get_running_loop().sock_recv(self.sock, CHUNK)
        self.received += data
        self.is_ended = not data
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    async def shake_hands(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.receive()
            else:
                return await self.flush()

    async def read(self) -> bytes:
        """Return some bytes; none after close_notify."""
        while True:
            try:
                return self.tls.read(CHUNK)
            except ssl.SSLWantReadError:
                await self.receive()
            except ssl.SSLZeroReturnError:
                return b""

    async def read_exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            found += await self.read()
        assert len(found) == size
        return found

    async def write(self, data: bytes) -> None:
        self.tls.write(data)
        await self.flush()

    def encrypt(self, data: bytes) -> bytes:
        """Return the record for ``data``, instead of sending it."""
        self.tls.write(data)
        return self.outgoing.read()

    async def unwrap(self) -> None:
        """Send close_notify, and wait for the transport's."""
        while True:
            try:
                self.tls.unwrap()
            except ssl.SSLWantReadError:
                await self.receive()
            else:
                return await self.flush()


class Contexts:
    """A context for each side, with a certificate for localhost.

    Attributes:
        sockets: What is closed when the test is over.
    """

    def __init__(self, certificates: Certificates) -> None:
        self.sockets: list[socket.socket] = []
        self.server = certificates.server_context()
        self.client = certificates.client_context()


def make_contexts(certificates: Certificates) -> Iterator[Contexts]:
    """Make them; a fixture."""
    contexts = Contexts(certificates)
    yield contexts
    for sock in contexts.sockets:
        sock.close()


async def connect(
    contexts: Contexts,
    make: Callable[[], asyncio.BaseProtocol] = Recorder,
    *,
    server_side: bool = True,
    ssl_shutdown_timeout: float | None = None,
) -> tuple[asyncio.Transport, Recorder, Peer]:
    """Return a transport with TLS, its protocol, and the peer, after the handshake."""
    loop = asyncio.get_running_loop()
    near, far = tcp_pair()
    contexts.sockets.append(far)
    if server_side:
        peer = Peer(far, contexts.client)
        making = loop.connect_accepted_socket(
            make,
            near,
            ssl=contexts.server,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
    else:
        peer = Peer(far, contexts.server, server_side=True)
        making = loop.create_connection(
            make,
            sock=near,
            ssl=contexts.client,
            server_hostname="localhost",
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
    (transport, protocol), _ = await asyncio.gather(making, peer.shake_hands())
    assert isinstance(transport, SSLTransport) == is_ours(loop)
    return transport, cast("Recorder", protocol), peer
