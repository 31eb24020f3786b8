"""Streams with TLS whose peers cut, change and drip what they send; and a crowd."""

from __future__ import annotations

import errno
import gc
import hashlib
import random
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from tests.python.streams.recorder import Recorder, run_until
from tests.python.streams.tls_ends import TlsEnd

from fdmux._delivery import TlsSession
from fdmux._ffi import lib
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.client import add_stream, connect_stream
from fdmux.streams.limits import ServerLimits, StreamLimits
from fdmux.streams.server import StreamServer
from fdmux.streams.stream import StreamHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.certificates import Certificates

    from fdmux.streams.stream import Stream

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.slow]

SECRET = b"attack at dawn"


@pytest.fixture
def loop() -> Iterator[SelectorEventLoop]:
    with SelectorEventLoop() as loop:
        yield loop


class LimitedEnd(TlsEnd):
    """A server's end that sends so many bytes, then the end of its socket.

    Attributes:
        left: How many bytes it still sends.
        change: The place of a byte that it changes; negative for none.
    """

    left = 1 << 30
    change = -1

    def send(self) -> None:
        data = bytearray(self.outgoing.read())
        if 0 <= self.change < len(data):
            data[self.change] ^= 0x55
        self.change -= len(data)
        part = data[: self.left]
        self.left -= len(part)
        try:
            self.sock.sendall(part)
            if len(part) < len(data):
                self.sock.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the stream has given up


def hold_session(
    loop: SelectorEventLoop, certificates: Certificates, left: int, change: int = -1
) -> tuple[Recorder, bool]:
    """A client's session: a handshake, a message, an end; returns what it saw, and
    whether everything was sent."""
    ours, theirs = socket.socketpair()
    handler = Recorder()
    with theirs:
        stream = add_stream(loop, ours, handler)
        context = certificates.client_context()
        stream.start_tls(context, server_hostname="localhost")
        peer = LimitedEnd(theirs, certificates.server_context(), server_side=True)
        peer.left, peer.change = left, change
        has_spoken = False
        for _ in range(1000):
            loop.run_once(0)
            if handler.errors:
                break
            try:
                peer.turn()
                if peer.is_connected and not has_spoken:
                    has_spoken = True
                    peer.tls.write(SECRET)
                    say_goodbye(peer)
                    peer.send()
            except ssl.SSLError:
                peer.send()
                theirs.shutdown(socket.SHUT_WR)
        return handler, peer.left > 0


def say_goodbye(peer: TlsEnd) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()


def test_a_session_may_be_cut_anywhere(
    loop: SelectorEventLoop, certificates: Certificates
) -> None:
    """Only a whole one ends without an error. (The length of a session varies by the
    length of a signature, so there is no fixed last byte.)"""
    left, cuts = 0, 0
    while True:
        handler, is_whole = hold_session(loop, certificates, left)
        if is_whole:
            break
        (error,) = handler.errors
        assert isinstance(error, (ssl.SSLError, ConnectionError)), left
        assert handler.data in {b"", SECRET}
        assert "end" not in handler.calls
        left += 29
        cuts += 1
    assert handler.errors == [None]
    assert handler.data == SECRET
    assert cuts > 30


def test_changed_bytes_are_noticed(
    loop: SelectorEventLoop, certificates: Certificates
) -> None:
    for place in range(0, 1200, 23):
        handler, _ = hold_session(loop, certificates, 1 << 30, place)
        assert isinstance(handler.errors[0], (OSError, TimeoutError)), place
        assert handler.data in {b"", SECRET}


def test_garbage_never_does_more_than_fail(
    loop: SelectorEventLoop, certificates: Certificates
) -> None:
    generator = random.Random(7)
    handler = Recorder()
    tls = certificates.server_context()
    hello = first_flight(certificates)
    with StreamServer("127.0.0.1", 0, handler, ssl=tls, loop=loop) as server:
        for _ in range(100):
            data = bytearray(hello)
            for _ in range(generator.randrange(1, 20)):
                data[generator.randrange(len(data))] = generator.randrange(256)
            data = data[: generator.randrange(1, len(data) + 200)]
            with socket.create_connection(server.address) as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                count = len(handler.errors)
                run_until(loop, lambda count=count: len(handler.errors) > count)  # type: ignore[misc] # bound to this round
        assert server.stats.failed_handshakes == 100
    assert set(handler.calls) == {"tls failed"}


def first_flight(certificates: Certificates) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = certificates.client_context().wrap_bio(
        incoming, outgoing, server_hostname="localhost"
    )
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.faults
def test_bytes_may_come_and_go_one_by_one(
    loop: SelectorEventLoop, certificates: Certificates
) -> None:
    tls, handler, echo = certificates.server_context(), Recorder(), Recorder()
    echo.answer = lambda _, data: data
    lib.fdmux_testing_short(1)
    with StreamServer("127.0.0.1", 0, echo, ssl=tls, loop=loop) as server:
        context = certificates.client_context()
        client = connect_stream(loop, server.address, handler, ssl=context)
        client.write(SECRET)
        for _ in range(30):
            if handler.data == SECRET:
                break
            run_a_while(loop)
        assert handler.data == SECRET
        client.close()
        for _ in range(10):
            run_a_while(loop)
    assert handler.errors == echo.errors == [None]


def run_a_while(loop: SelectorEventLoop) -> None:
    for _ in range(1000):
        loop.run_once(0)


# A crowd ---------------------------------------------------------------------------

CROWD = 300
SIZE = 40_000


class Hashes(StreamHandler[bytearray]):
    """Answers 40,000 bytes with their hash."""

    def on_connect(self, stream: Stream[bytearray]) -> None:
        stream.data = bytearray()

    def on_data(self, stream: Stream[bytearray], data: bytes) -> bytes | None:
        stream.data += data
        is_whole = len(stream.data) == SIZE
        return hashlib.sha256(stream.data).digest() if is_whole else None


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    import resource  # noqa: PLC0415 - Windows has none, but the other tests

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_a_crowd_gets_its_own_answers(
    loop: SelectorEventLoop, certificates: Certificates
) -> None:
    tls, context = certificates.server_context(), certificates.client_context()
    limits = ServerLimits(connection_max=CROWD)
    with StreamServer(
        "127.0.0.1", 0, Hashes(), ssl=tls, loop=loop, limits=limits
    ) as server:
        clients = []
        for number in range(CROWD):
            handler = Recorder()
            client = connect_stream(loop, server.address, handler, ssl=context)
            client.write(payload(number))
            clients.append((handler, client))
        run_until(loop, lambda: all(len(handler.data) == 32 for handler, _ in clients))
        for number, (handler, client) in enumerate(clients):
            assert handler.data == hashlib.sha256(payload(number)).digest()
            client.close()
        run_until(loop, lambda: not server.stats.open)
        run_until(loop, lambda: all(handler.errors for handler, _ in clients))
    assert all(handler.errors == [None] for handler, _ in clients)
    stats = server.stats
    assert (stats.accepted, stats.errors, stats.failed_handshakes) == (CROWD, 0, 0)
    assert stats.bytes_in == CROWD * SIZE


def payload(number: int) -> bytes:
    return number.to_bytes(4, "big") * (SIZE // 4)


@pytest.mark.faults
def test_sessions_leave_nothing_behind(certificates: Certificates) -> None:
    """Neither blocks of the core nor objects of Python, however a session ends."""
    with SelectorEventLoop() as loop:
        hold_session(loop, certificates, 1 << 30)  # allocates what a loop keeps
        before = what_is_held()
        for left in (0, 200, 700, 1 << 30):
            for _ in range(10):
                hold_session(loop, certificates, left)
        assert what_is_held() == before


def what_is_held() -> tuple[int, int]:
    gc.collect()
    sessions = sum(isinstance(it, TlsSession) for it in gc.get_objects())
    return lib.fdmux_testing_allocations(), sessions


def test_a_reader_that_stops_bounds_the_queue(
    loop: SelectorEventLoop, certificates: Certificates
) -> None:
    """The limit counts ciphertext and what waits for it."""
    ours, theirs = socket.socketpair()
    handler = Recorder()
    with theirs:
        stream = add_stream(loop, ours, handler, limits=StreamLimits())
        stream.start_tls(certificates.server_context(), server_side=True)
        peer = TlsEnd(
            theirs, certificates.client_context(), server_hostname="localhost"
        )
        peer.connect(loop)
        run_until(loop, lambda: handler.calls)
        for _ in range(100):
            stream.write(bytes(60_000))
            assert stream.buffered <= 256 * 1024
        run_until(loop, lambda: handler.errors)
    (error,) = handler.errors
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOBUFS
