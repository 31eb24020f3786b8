"""An HTTP/3 server and its client, of aioquic's public parts, for any asyncio loop."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

if TYPE_CHECKING:
    from aioquic.quic.events import QuicEvent
    from tests.python.hosts.asyncio.program_servers import Certificate

    Answer = tuple[list[tuple[bytes, bytes]], int, str]  # headers, bytes, SHA-256

MIB = 1 << 20


def content(length: int) -> bytes:
    """Bytes of which no two parts are alike."""
    return hashlib.shake_128(b"http3").digest(length)


class Peer(QuicConnectionProtocol):
    """Collects what arrives on each stream; `finished` gets it at its end."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        self.http = H3Connection(self._quic)
        self.headers: dict[int, list[tuple[bytes, bytes]]] = {}
        self.bodies: dict[int, bytearray] = {}

    def quic_event_received(self, event: QuicEvent) -> None:
        for it in self.http.handle_event(event):
            self.collect(it)

    def collect(self, event: H3Event) -> None:
        if not isinstance(event, DataReceived | HeadersReceived):
            return
        body = self.bodies.setdefault(event.stream_id, bytearray())
        if isinstance(event, HeadersReceived):
            self.headers[event.stream_id] = event.headers
        else:
            body += event.data
        if event.stream_ended:
            self.finished(event.stream_id)

    def say(self, stream: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.http.send_headers(stream, headers)
        self.http.send_data(stream, body, end_stream=True)
        self.transmit()

    def finished(self, stream: int) -> None:
        raise NotImplementedError


class Server(Peer):
    """GET /N: N bytes. POST: what was sent, backwards."""

    def finished(self, stream: int) -> None:
        asked = dict(self.headers[stream])
        body = bytes(self.bodies[stream])[::-1]
        if asked[b":method"] == b"GET":
            body = content(int(asked[b":path"][1:]))
        length = str(len(body)).encode()
        self.say(stream, [(b":status", b"200"), (b"content-length", length)], body)


class Client(Peer):
    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        self.waiters: dict[int, asyncio.Future[Answer]] = {}

    async def ask(self, method: bytes, path: bytes, body: bytes = b"") -> Answer:
        stream = self._quic.get_next_available_stream_id()
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiters[stream] = waiter
        name = [(b":scheme", b"https"), (b":authority", b"localhost")]
        self.say(stream, [(b":method", method), (b":path", path), *name], body)
        return await waiter

    def finished(self, stream: int) -> None:
        body = bytes(self.bodies.pop(stream))
        answer = (self.headers.pop(stream), len(body), hashlib.sha256(body).hexdigest())
        self.waiters.pop(stream).set_result(answer)


async def exchange(certificate: Certificate) -> tuple[list[Answer], type]:
    """Ask over many streams at once; return the answers and the server's transport."""
    served = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    served.load_cert_chain(certificate.path, certificate.key)
    server = await serve("127.0.0.1", 0, configuration=served, create_protocol=Server)
    transport = server._transport
    port = transport.get_extra_info("sockname")[1]
    asked = QuicConfiguration(alpn_protocols=H3_ALPN, server_name="localhost")
    asked.load_verify_locations(str(certificate.path))
    async with connect(
        "127.0.0.1", port, configuration=asked, create_protocol=Client
    ) as client:
        assert isinstance(client, Client)
        small = [client.ask(b"GET", b"/%d" % size) for size in range(1, 3000, 200)]
        answers = await asyncio.gather(
            client.ask(b"GET", b"/%d" % (4 * MIB)),
            client.ask(b"POST", b"/", content(2 * MIB)),
            *small,
        )
    server.close()
    return answers, type(transport)
