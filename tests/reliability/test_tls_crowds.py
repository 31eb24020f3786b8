"""TLS: nothing is lost, mixed up or taken for complete, whatever clients do.

Each bar is of a server of ours in a thread, a `StreamServer` or an asyncio protocol;
the clients are Python's own sockets and asyncio's own loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import socket
import ssl
import time
from typing import TYPE_CHECKING

import pytest
from tests.reliability.test_leaks import held, repeat
from tests.tls_servers import SERVERS

from fdmux import StreamHandler, StreamServer

if TYPE_CHECKING:
    from tests.certificates import Certificates
    from tests.reliability.conftest import Bars
    from tests.tls_servers import Server, Serving

    from fdmux import Stream

LONG = 60.0
ROUNDS = 3
SIZE = 20_000  # of two records
TIMEOUT = 1.0  # of the handshake
kinds = pytest.mark.parametrize("kind", list(SERVERS))


def until_none_is_open(server: Server) -> float:
    """Wait; returns how long."""
    begun = time.monotonic()
    while server.count_open() and time.monotonic() - begun < LONG:
        time.sleep(0.002)
    assert server.count_open() == 0
    return time.monotonic() - begun


def echo_once(server: Server, context: ssl.SSLContext) -> bytes:
    address = ("127.0.0.1", server.port)
    with (
        socket.create_connection(address, LONG) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"hello")
        return tls.recv(5)


# ---- a crowd -------------------------------------------------------------------------


class Crowd:
    """Clients that are all connected before the first one talks."""

    def __init__(self, server: Server, context: ssl.SSLContext, count: int) -> None:
        self.server, self.context, self.count = server, context, count
        self.wrong = self.lost = self.open_at_once = 0

    async def run(self) -> None:
        connecting = [self.connect() for _ in range(self.count)]
        ends = [end for end in await asyncio.gather(*connecting) if end is not None]
        self.open_at_once = self.server.count_open()
        await asyncio.gather(*(self.talk(*end) for end in ends))

    async def connect(
        self,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        with contextlib.suppress(OSError):
            return await asyncio.open_connection(
                "127.0.0.1",
                self.server.port,
                ssl=self.context,
                server_hostname="localhost",
                ssl_handshake_timeout=LONG,
            )
        self.lost += 1
        return None

    async def talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        sent, received = hashlib.sha256(), hashlib.sha256()
        try:
            for _ in range(ROUNDS):
                message = secrets.token_bytes(SIZE)
                sent.update(message)
                writer.write(message)
                received.update(await reader.readexactly(SIZE))
            writer.close()
            await writer.wait_closed()
        except (OSError, EOFError):
            self.lost += 1
        else:
            self.wrong += sent.digest() != received.digest()


def check_crowd(bars: Bars, kind: str, certificates: Certificates, count: int) -> None:
    serve: Serving = SERVERS[kind]
    with serve(certificates.server_context(), LONG) as server:
        crowd = Crowd(server, certificates.client_context(), count)
        loop = asyncio.SelectorEventLoop()
        with contextlib.closing(loop):
            loop.run_until_complete(crowd.run())
        until_none_is_open(server)
    title = f"{count:,} clients with TLS, {kind}"
    bars.at_least(count, f"{title}: open at once", crowd.open_at_once)
    bars.at_most(0, f"{title}: lost", crowd.lost)
    bars.at_most(0, f"{title}: with a wrong hash", crowd.wrong)


@pytest.mark.commit
@pytest.mark.slow
@kinds
def test_a_crowd_gets_its_own_bytes(
    bars: Bars, kind: str, certificates: Certificates
) -> None:
    check_crowd(bars, kind, certificates, 100)


@pytest.mark.nightly
@kinds
def test_a_thousand_get_their_own_bytes(
    bars: Bars, kind: str, certificates: Certificates
) -> None:
    check_crowd(bars, kind, certificates, 1_000)


# ---- sessions that are cut -----------------------------------------------------------


class Notes(StreamHandler):
    """Notes how each session has ended."""

    def __init__(self) -> None:
        self.clean = self.failed = 0
        self.is_clean = False

    def on_connect(self, _stream: Stream) -> None:
        self.is_clean = False

    def on_end(self, stream: Stream) -> None:
        self.is_clean = True
        stream.close()

    def on_tls_failed(self, _stream: Stream, _error: Exception) -> None:
        self.failed += 1

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        if error is None and self.is_clean:
            self.clean += 1
        else:
            self.failed += 1


class CutSession:
    """A session of a client that sends its first ``limit`` bytes of ciphertext only."""

    def __init__(self, context: ssl.SSLContext, sock: socket.socket) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_hostname="localhost"
        )
        self.sent = 0

    def flush(self, limit: int) -> bool:
        """Send; returns whether all has gone."""
        data = self.outgoing.read()
        part = data[: max(0, limit - self.sent)]
        self.sock.sendall(part)
        self.sent += len(part)
        return len(part) == len(data)

    def run(self, limit: int) -> None:
        """Shake hands, send a message and close_notify, then end the connection."""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                if not self.flush(limit):
                    return
                self.incoming.write(self.sock.recv(65_536))
        self.tls.write(b"x" * 100)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush(limit)


def run_session(port: int, context: ssl.SSLContext, limit: int) -> int:
    """Run one; returns how many bytes it has sent."""
    with socket.create_connection(("127.0.0.1", port), LONG) as sock:
        session = CutSession(context, sock)
        session.run(limit)
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while sock.recv(65_536):
                pass
    return session.sent


def check_cut(bars: Bars, certificates: Certificates, step: int) -> None:
    notes = Notes()
    context = certificates.client_context()
    with StreamServer(
        "127.0.0.1", 0, notes, ssl=certificates.server_context()
    ) as server:
        server.run_in_thread()
        port = server.address[1]
        length = run_session(port, context, 1 << 20)
        places = range(0, length, step)
        for limit in places:
            run_session(port, context, limit)
        begun = time.monotonic()
        while server.stats.open and time.monotonic() - begun < LONG:
            time.sleep(0.002)
    title = f"sessions cut at every {step} bytes" if step > 1 else "sessions cut"
    bars.at_least(length // step, f"{title}: cut", notes.failed)
    bars.at_most(1, f"{title}: ended clean, the whole one included", notes.clean)


@pytest.mark.commit
@pytest.mark.slow
def test_a_cut_session_is_no_clean_end(bars: Bars, certificates: Certificates) -> None:
    check_cut(bars, certificates, 11)


@pytest.mark.nightly
def test_a_session_cut_at_any_byte_is_no_clean_end(
    bars: Bars, certificates: Certificates
) -> None:
    check_cut(bars, certificates, 1)


# ---- strangers -----------------------------------------------------------------------

STRANGERS = {
    "say nothing": b"",
    "speak HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "send garbage": bytes(range(256)) * 100,
    "begin a record": b"\x16\x03\x01\x40\x00\x01",
}


@pytest.mark.commit
@pytest.mark.slow
@kinds
@pytest.mark.parametrize("what", list(STRANGERS))
def test_strangers_are_gone_in_time(
    bars: Bars, kind: str, what: str, certificates: Certificates
) -> None:
    """And nobody else notices."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            SERVERS[kind](certificates.server_context(), TIMEOUT)
        )
        address = ("127.0.0.1", server.port)
        begun = time.monotonic()
        for _ in range(100):
            sock = stack.enter_context(socket.create_connection(address, LONG))
            with contextlib.suppress(ConnectionError):
                sock.sendall(STRANGERS[what])
        answer = echo_once(server, certificates.client_context())
        until_none_is_open(server)
        seconds = time.monotonic() - begun
    title = f"100 clients that {what}, {kind}"
    bars.at_least(5, f"{title}: bytes served meanwhile", len(answer))
    bars.at_most(TIMEOUT + 2, f"{title}: until all are gone", seconds, "s")


# ---- leaks ---------------------------------------------------------------------------

CYCLES = 400
# The loop's thread may not be done with the last client yet; one of each would be more.
ONE_CLIENT_BLOCKS = 300
ONE_CLIENT_BYTES = 100_000


@pytest.mark.commit
@pytest.mark.slow
@kinds
@pytest.mark.parametrize("is_failing", [False, True], ids=["echoed", "failed"])
def test_nothing_is_left(
    bars: Bars, kind: str, is_failing: bool, certificates: Certificates
) -> None:
    context = certificates.client_context()
    with SERVERS[kind](certificates.server_context(), LONG) as server:
        address = ("127.0.0.1", server.port)

        def echo() -> None:
            assert echo_once(server, context) == b"hello"
            until_none_is_open(server)

        def fail() -> None:
            with socket.create_connection(address, LONG) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                while sock.recv(1000):
                    pass
            until_none_is_open(server)

        cycle = fail if is_failing else echo
        repeat(cycle, CYCLES)
        held()  # makes what it needs itself
        before = held()
        repeat(cycle, CYCLES)
        after = held()
    what = "handshake failed" if is_failing else "connected, echoed, closed"
    title = f"{CYCLES} x TLS, {kind}, {what}"
    left = [now - then for now, then in zip(after, before, strict=True)]
    bars.at_most(0, f"{title}: descriptors, registrations left", left[0] + left[1])
    bars.at_most(ONE_CLIENT_BLOCKS, f"{title}: blocks of Python left", left[2])
    bars.at_most(ONE_CLIENT_BYTES, f"{title}: bytes of the C heap left", left[3], "B")
