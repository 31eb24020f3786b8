"""TLS by asyncio's own protocol, on our transports and on its own."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING, cast

import pytest

from fdmux.hosts.asyncio import EventLoop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Contexts = tuple[ssl.SSLContext, ssl.SSLContext]

SOON = 20.0


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    """Contexts of a server and a client, with a certificate made for them."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the program openssl (Debian: openssl)")
    directory: Path = tmp_path_factory.mktemp("certificate")
    key, certificate = str(directory / "key.pem"), str(directory / "certificate.pem")
    command = [openssl, "req", "-x509", "-nodes", "-days", "2"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=certificate)


@pytest.fixture(params=["stock", "ours"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.SelectorEventLoop() if request.param == "stock" else EventLoop()
    try:
        yield loop
    finally:
        loop.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_echo_over_tls(
    loop: asyncio.AbstractEventLoop, contexts: Contexts, size: int
) -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=contexts[0])
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(
            *address, ssl=contexts[1], server_hostname="localhost"
        )
        assert writer.get_extra_info("ssl_object").version().startswith("TLS")
        for part in (b"a" * size, b"b" * size):
            writer.write(part)
            assert await reader.readexactly(size) == part
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), SOON))


def test_wrong_name_is_refused(
    loop: asyncio.AbstractEventLoop, contexts: Contexts
) -> None:
    async def main() -> None:
        loop.set_exception_handler(lambda *_: None)
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=contexts[0])
        address = server.sockets[0].getsockname()
        with pytest.raises(ssl.SSLCertVerificationError, match="example"):
            await asyncio.open_connection(
                *address, ssl=contexts[1], server_hostname="example.org"
            )
        server.close()
        await server.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), SOON))


class Upgrader(asyncio.Protocol):
    """A server's side: answers one plain line, then speaks TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.is_tls = False
        self.early = b""  # data that came with the end of the handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.is_tls:
            self.transport.write(data.upper())
        elif data == b"upgrade\n":
            self.transport.write(b"go on\n")
            self.upgrading = asyncio.ensure_future(self.upgrade())
        else:
            self.early += data

    async def upgrade(self) -> None:
        transport = await asyncio.get_running_loop().start_tls(
            self.transport, self, self.context, server_side=True
        )
        assert transport is not None
        self.transport, self.is_tls = transport, True
        self.data_received(self.early)


class Line(asyncio.Protocol):
    """Keeps the data that it receives."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.received.put_nowait(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.lost.set()


def test_start_tls_goes_on_with_the_same_connection(
    loop: asyncio.AbstractEventLoop, contexts: Contexts
) -> None:
    async def main() -> None:
        server = await loop.create_server(lambda: Upgrader(contexts[0]), "127.0.0.1", 0)
        plain, protocol = await loop.create_connection(
            Line, *server.sockets[0].getsockname()
        )
        plain.write(b"upgrade\n")
        assert await protocol.received.get() == b"go on\n"
        transport = await loop.start_tls(
            plain, protocol, contexts[1], server_hostname="localhost"
        )
        assert transport is not None
        transport.write(b"text")
        assert await protocol.received.get() == b"TEXT"
        transport.close()
        await protocol.lost.wait()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), SOON))
