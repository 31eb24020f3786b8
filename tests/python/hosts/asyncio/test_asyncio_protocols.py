"""Servers and clients of others on our loop: websockets, aiosmtpd, grpcio, aioquic."""

from __future__ import annotations

import asyncio
import smtplib
import socket
from typing import TYPE_CHECKING

import pytest
from tests.python.hosts.asyncio import program_servers

from fdmux.hosts.asyncio import run
from fdmux.hosts.asyncio.datagrams import DatagramTransport
from fdmux.hosts.asyncio.transport import StreamTransport

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterable

    from tests.python.hosts.asyncio.program_servers import Certificate

SOON = 20.0
BODIES = [b"x" * 10, b"y" * 300_000]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return program_servers.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.mark.parametrize("has_tls", [False, True], ids=["plain", "tls"])
def test_websockets_echo(certificate: Certificate, has_tls: bool) -> None:
    server = pytest.importorskip("websockets.asyncio.server", reason="needs websockets")
    client = pytest.importorskip("websockets.asyncio.client")

    async def echo(connection: AsyncIterable[bytes]) -> None:
        async for message in connection:
            await connection.send(message)  # type: ignore[attr-defined] # websockets is optional

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        served = {"ssl": certificate.server_context()} if has_tls else {}
        asked = {"ssl": certificate.client_context()} if has_tls else {}
        url = f"{'wss' if has_tls else 'ws'}://localhost:{port}/"
        async with (
            server.serve(echo, sock=listener, **served),
            client.connect(url, **asked, proxy=None) as connection,
        ):
            if not has_tls:
                assert isinstance(connection.transport, StreamTransport)
            for body in BODIES:
                await connection.send(body)
                assert await connection.recv() == body
            await (await connection.ping())

    run(asyncio.wait_for(main(), SOON))


class Kept:
    """Keeps the mails that aiosmtpd has taken."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []

    async def handle_DATA(  # noqa: N802 - aiosmtpd calls it so
        self, _server: object, _session: object, envelope: object
    ) -> str:
        self.mails.append(envelope.content)  # type: ignore[attr-defined] # aiosmtpd's
        return "250 OK"


def send_mails(port: int, context: ssl.SSLContext) -> None:
    """Send one mail in the clear and, after STARTTLS, the other; both are long."""
    with smtplib.SMTP("localhost", port, timeout=SOON) as client:
        client.sendmail("a@example.org", ["b@example.org"], b"plain\r\n" * 20_000)
        client.starttls(context=context)
        client.sendmail("a@example.org", ["b@example.org"], b"secret\r\n" * 20_000)


def test_aiosmtpd_takes_mails(certificate: Certificate) -> None:
    smtp = pytest.importorskip("aiosmtpd.smtp", reason="needs aiosmtpd")
    kept = Kept()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        context = certificate.server_context()
        server = await loop.create_server(
            lambda: smtp.SMTP(kept, loop=loop, tls_context=context), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        await asyncio.to_thread(send_mails, port, certificate.client_context())
        server.close()
        await server.wait_closed()

    run(asyncio.wait_for(main(), SOON))
    assert kept.mails == [b"plain\r\n" * 20_000, b"secret\r\n" * 20_000]


def test_grpcio_serves_and_asks() -> None:
    grpc = pytest.importorskip("grpc", reason="needs grpcio")
    aio = pytest.importorskip("grpc.aio")

    async def shout(request: bytes, _context: object) -> bytes:
        await asyncio.sleep(0)
        return request.upper()

    async def repeat(request: bytes, _context: object) -> AsyncIterable[bytes]:
        for _ in range(10):
            yield request

    async def main() -> None:
        server = aio.server()
        handlers = {
            "Shout": grpc.unary_unary_rpc_method_handler(shout),
            "Repeat": grpc.unary_stream_rpc_method_handler(repeat),
        }
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("test.Echo", handlers)]
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            asked = channel.unary_unary("/test.Echo/Shout")
            assert [await asked(body) for body in BODIES] == [
                body.upper() for body in BODIES
            ]
            streamed = channel.unary_stream("/test.Echo/Repeat")
            assert [it async for it in streamed(b"again")] == [b"again"] * 10
        await server.stop(None)

    run(asyncio.wait_for(main(), SOON))


def test_aioquic_echoes(certificate: Certificate) -> None:
    quic = pytest.importorskip("aioquic.asyncio", reason="needs aioquic")
    settings = pytest.importorskip("aioquic.quic.configuration").QuicConfiguration

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.write_eof()

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(echo(reader, writer)))

    tasks: set[asyncio.Future[None]] = set()

    async def main() -> None:
        served = settings(is_client=False, alpn_protocols=["echo"])
        served.load_cert_chain(certificate.path, certificate.key)
        server = await quic.serve(
            "127.0.0.1", 0, configuration=served, stream_handler=handle
        )
        assert type(server._transport) is DatagramTransport
        port = server._transport.get_extra_info("sockname")[1]
        asked = settings(alpn_protocols=["echo"], server_name="localhost")
        asked.load_verify_locations(str(certificate.path))
        async with quic.connect("127.0.0.1", port, configuration=asked) as client:
            for body in BODIES:
                reader, writer = await client.create_stream()
                writer.write(body)
                writer.write_eof()
                assert await reader.read() == body
        server.close()

    run(asyncio.wait_for(main(), SOON))
    assert all(task.done() for task in tasks)
