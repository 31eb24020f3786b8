"""How connections with TLS begin and end: on asyncio's transports, and on ours."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct

import pytest
from tests.python.hosts.asyncio.asyncio_ends import (
    BIG,
    Loop,
    Recorder,
    run,
    tcp_pair,
    turns,
)
from tests.python.hosts.asyncio.asyncio_tls_ends import (
    KINDS,
    Contexts,
    Peer,
    connect,
    is_ours,
    make_contexts,
    make_tls_loop,
)

loop = pytest.fixture(params=KINDS)(make_tls_loop)
contexts = pytest.fixture(make_contexts)
SHORT = 0.1


class Told:
    """What the loop's exception handler was told."""

    def __init__(self, loop: Loop) -> None:
        self.messages: list[str] = []
        loop.set_exception_handler(
            lambda _loop, context: self.messages.append(str(context["message"]))
        )


# The beginning ------------------------------------------------------------------------


@pytest.mark.parametrize("server_side", [True, False])
def test_connection_is_made_after_the_handshake(
    loop: Loop, contexts: Contexts, server_side: bool
) -> None:
    async def main() -> None:
        transport, protocol, peer = await connect(contexts, server_side=server_side)
        assert protocol.events == ["made"]
        assert protocol.transport is transport
        assert "SSL" in type(transport).__name__
        await peer.write(b"question")
        await protocol.until(lambda: protocol.data == b"question")
        transport.write(b"answer")
        assert await peer.read() == b"answer"
        assert b"answer" not in peer.received
        transport.abort()
        assert await protocol.lost is None

    run(loop, main())


@pytest.mark.parametrize("server_side", [True, False])
def test_extra_info_has_every_key(
    loop: Loop, contexts: Contexts, server_side: bool
) -> None:
    async def main() -> None:
        transport, protocol, peer = await connect(contexts, server_side=server_side)
        found = transport.get_extra_info
        sslobject = found("ssl_object")
        assert isinstance(sslobject, ssl.SSLObject)
        assert sslobject.server_side == server_side
        context = contexts.server if server_side else contexts.client
        assert found("sslcontext") is context
        assert found("peercert") == sslobject.getpeercert()
        assert bool(found("peercert")) is not server_side
        assert found("cipher") == sslobject.cipher()
        assert found("compression", "a default") is None
        assert found("socket").getsockname() == found("sockname")
        assert found("peername") == peer.sock.getsockname()
        assert found("nothing", "a default") == "a default"
        transport.abort()
        await protocol.lost
        assert found("ssl_object") is sslobject or not is_ours(loop)

    run(loop, main())


def test_write_eof_is_not_there(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        transport, _, _ = await connect(contexts)
        assert not transport.can_write_eof()
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        with pytest.raises(TypeError, match="expecting a bytes-like instance, got str"):
            transport.write("text")  # type: ignore[arg-type] # wrong on purpose
        transport.abort()
        await turns()

    run(loop, main())


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
def test_timeouts_are_positive(loop: Loop, contexts: Contexts, name: str) -> None:
    async def main() -> None:
        near, far = tcp_pair()
        with far, near, pytest.raises(ValueError, match=f"{name} should be a positive"):
            await loop.connect_accepted_socket(
                Recorder, near, ssl=contexts.server, **{name: 0}
            )

    run(loop, main())


@pytest.mark.parametrize("loop", KINDS[1:], indirect=True)
def test_context_of_no_use_closes_the_socket(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        near, far = tcp_pair()
        with far, pytest.raises(ssl.SSLError, match="server"):
            await loop.connect_accepted_socket(Recorder, near, ssl=contexts.client)
        assert near.fileno() == -1

    run(loop, main())


def test_handshake_takes_no_longer_than_its_timeout(
    loop: Loop, contexts: Contexts
) -> None:
    made: list[Recorder] = []

    def make() -> Recorder:
        made.append(Recorder())
        return made[0]

    async def main() -> None:
        near, far = tcp_pair()
        wanted = "SSL handshake is taking longer than 0.1 seconds"
        with far, pytest.raises(ConnectionAbortedError, match=wanted):
            await loop.connect_accepted_socket(
                make, near, ssl=contexts.server, ssl_handshake_timeout=SHORT
            )
        await turns()
        assert made[0].events == []

    run(loop, main())


def test_handshake_that_ends_is_a_reset(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        near, far = tcp_pair()
        far.close()
        with pytest.raises(ConnectionResetError):
            await loop.connect_accepted_socket(Recorder, near, ssl=contexts.server)

    run(loop, main())


def test_garbage_instead_of_a_handshake_is_an_ssl_error(
    loop: Loop, contexts: Contexts
) -> None:
    async def main() -> None:
        near, far = tcp_pair()
        far.send(b"GET / HTTP/1.1\r\n\r\n" * 10)
        with far, pytest.raises(ssl.SSLError, match="HTTP_REQUEST"):
            await loop.connect_accepted_socket(Recorder, near, ssl=contexts.server)

    run(loop, main())


def test_cancelled_handshake_closes_the_socket(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        near, far = tcp_pair()
        task = loop.create_task(
            loop.connect_accepted_socket(Recorder, near, ssl=contexts.server)
        )
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        near.close()
        with far:
            assert await loop.sock_recv(far, 1) == b""

    run(loop, main())


def test_true_is_a_context_for_clients(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        near, far = tcp_pair()
        with near, far, pytest.raises(ValueError, match="valid SSLContext"):
            await loop.connect_accepted_socket(Recorder, near, ssl=True)
        near, far = tcp_pair()
        peer = Peer(far, contexts.server, server_side=True)
        shaking = asyncio.ensure_future(peer.shake_hands())
        with pytest.raises(ssl.SSLCertVerificationError):
            await loop.create_connection(
                Recorder, sock=near, ssl=True, server_hostname="localhost"
            )
        shaking.cancel()
        await asyncio.gather(shaking, return_exceptions=True)
        far.close()

    run(loop, main())


class Raiser(Recorder):
    """A protocol that raises in one of its methods."""

    raises_in = ""

    def note(self, event: object) -> None:
        super().note(event)
        if event == self.raises_in:
            raise ZeroDivisionError


class MadeRaiser(Raiser):
    raises_in = "made"


class DataRaiser(Raiser):
    raises_in = "data"


class EofRaiser(Raiser):
    raises_in = "eof"


def test_connection_made_that_raises_loses_the_connection(
    loop: Loop, contexts: Contexts
) -> None:
    async def main() -> None:
        told = Told(loop)
        with pytest.raises(ZeroDivisionError):
            await connect(contexts, MadeRaiser)
        assert len(told.messages) == 1

    run(loop, main())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (DataRaiser, "Fatal error on SSL protocol"),
        (EofRaiser, "Error calling eof_received()"),
    ],
)
def test_protocol_that_raises_loses_the_connection(
    loop: Loop, contexts: Contexts, make: type[Recorder], message: str
) -> None:
    async def main() -> None:
        told = Told(loop)
        _, protocol, peer = await connect(contexts, make)
        await peer.write(b"x")
        await protocol.until(lambda: protocol.data == b"x")
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.unwrap()
        await peer.flush()  # close_notify
        assert isinstance(await protocol.lost, ZeroDivisionError)
        assert told.messages == [message]

    run(loop, main())


# The end ------------------------------------------------------------------------------


def test_close_sends_everything_and_waits_for_the_peer(
    loop: Loop, contexts: Contexts
) -> None:
    async def main() -> None:
        transport, protocol, peer = await connect(contexts)
        transport.write(b"x" * BIG)
        transport.close()
        assert transport.is_closing()
        assert await peer.read_exactly(BIG) == b"x" * BIG
        assert await peer.read() == b""  # close_notify
        assert not protocol.lost.done()
        await peer.unwrap()
        assert await protocol.lost is None
        assert [e for e in protocol.events if e not in {"pause", "resume"}] == [
            "made",
            "eof",
            "lost",
        ]

    run(loop, main())


def test_close_waits_no_longer_than_its_timeout(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        transport, protocol, _ = await connect(contexts, ssl_shutdown_timeout=SHORT)
        transport.close()
        error = await protocol.lost
        assert isinstance(error, TimeoutError)
        assert str(error) == "SSL shutdown timed out"
        assert protocol.events == ["made", "lost"]

    run(loop, main())


def test_close_is_over_when_the_socket_ends(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        transport, protocol, peer = await connect(contexts)
        transport.close()
        assert await peer.read() == b""
        peer.sock.close()
        assert await protocol.lost is None
        assert protocol.events == ["made", "eof", "lost"]

    run(loop, main())


def test_close_notify_is_answered(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        transport, protocol, peer = await connect(contexts)
        await peer.write(b"last")
        await peer.unwrap()  # returns when it is answered
        assert await protocol.lost is None
        assert protocol.events == ["made", "data", "eof", "lost"]
        assert transport.is_closing()

    run(loop, main())


def test_eof_received_cannot_keep_the_connection(
    loop: Loop, contexts: Contexts, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        _, protocol, peer = await connect(contexts)
        protocol.keeps_open = True
        await peer.unwrap()
        assert await protocol.lost is None

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(loop, main())
    assert "returning true from eof_received() has no effect" in caplog.text


def test_what_eof_received_writes_is_sent(loop: Loop, contexts: Contexts) -> None:
    class LastWord(Recorder):
        def eof_received(self) -> bool:
            self.transport.write(b"bye")
            return super().eof_received()

    async def main() -> None:
        _, _, peer = await connect(contexts, LastWord)
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.unwrap()
        assert await peer.read() == b"bye"

    run(loop, main())


def test_abort_sends_nothing(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        transport, protocol, peer = await connect(contexts)
        await turns()
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.read(1)
        transport.abort()
        assert transport.is_closing()
        transport.abort()
        assert await protocol.lost is None
        assert protocol.events == ["made", "lost"]
        await turns()
        with pytest.raises(ssl.SSLEOFError):
            await peer.read()

    run(loop, main())


def test_writes_after_close_are_dropped(
    loop: Loop, contexts: Contexts, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        transport, _, peer = await connect(contexts)
        transport.write(b"all")
        transport.close()
        for _ in range(7):
            transport.write(b"dropped")
            transport.write(b"")
        assert await peer.read() == b"all"
        assert await peer.read() == b""
        transport.abort()
        await turns()

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(loop, main())
    assert "SSL connection is closed" in caplog.text


def test_reset_is_what_it_is_without_tls(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        _, protocol, peer = await connect(contexts)
        linger = struct.pack("ii", 1, 0)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        peer.sock.close()
        assert isinstance(await protocol.lost, ConnectionResetError)
        assert protocol.events == ["made", "lost"]

    run(loop, main())


def test_broken_record_is_an_ssl_error(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        _, protocol, peer = await connect(contexts)
        record = bytearray(peer.encrypt(b"text"))
        record[-1] ^= 1
        await loop.sock_sendall(peer.sock, record)
        error = await protocol.lost
        assert isinstance(error, ssl.SSLError)
        assert error.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
        assert protocol.events == ["made", "lost"]

    run(loop, main())


def test_end_without_close_notify_is_an_end(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        _, protocol, peer = await connect(contexts)
        await peer.write(b"all")
        peer.sock.shutdown(socket.SHUT_WR)
        assert await protocol.lost is None
        assert protocol.data == b"all"
        assert protocol.events == ["made", "data", "eof", "lost"]

    run(loop, main())


@pytest.mark.parametrize("left", [1, 4, 5, 20])
def test_end_inside_a_record_is_no_end(
    loop: Loop, contexts: Contexts, left: int
) -> None:
    """asyncio's own protocol calls it one, so that a reader takes a part for all."""

    async def main() -> None:
        _, protocol, peer = await connect(contexts)
        await peer.write(b"first")
        await loop.sock_sendall(peer.sock, peer.encrypt(b"second")[:left])
        peer.sock.shutdown(socket.SHUT_WR)
        error = await protocol.lost
        assert protocol.data == b"first"
        if is_ours(loop):
            assert isinstance(error, ssl.SSLEOFError)
            assert error.args[1] == "EOF occurred in violation of protocol"
            assert protocol.events == ["made", "data", "lost"]
        else:
            assert error is None

    run(loop, main())


def test_reader_of_a_cut_stream_gets_the_error(loop: Loop, contexts: Contexts) -> None:
    if not is_ours(loop):
        pytest.skip("asyncio's reader gets an end")

    async def main() -> None:
        near, far = tcp_pair()
        peer = Peer(far, contexts.server, server_side=True)
        (reader, writer), _ = await asyncio.gather(
            asyncio.open_connection(
                sock=near, ssl=contexts.client, server_hostname="localhost"
            ),
            peer.shake_hands(),
        )
        await loop.sock_sendall(peer.sock, peer.encrypt(b"text")[:10])
        with far:
            far.shutdown(socket.SHUT_WR)
            with pytest.raises(ssl.SSLEOFError):
                await reader.read()
        writer.close()

    run(loop, main())


def test_peer_that_writes_no_more_gets_the_whole_answer(
    loop: Loop, contexts: Contexts
) -> None:
    class Answerer(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.write(b"x" * BIG)

    async def main() -> None:
        _, protocol, peer = await connect(contexts, Answerer)
        await peer.write(b"question")
        peer.sock.shutdown(socket.SHUT_WR)
        assert await peer.read_exactly(BIG) == b"x" * BIG
        assert await protocol.lost is None

    run(loop, main())


def test_debug_mode_logs_the_handshake(
    loop: Loop, contexts: Contexts, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        loop.set_debug(True)
        transport, protocol, _ = await connect(contexts)
        transport.abort()
        await protocol.lost
        loop.set_debug(False)

    with caplog.at_level(logging.DEBUG, "asyncio"):
        run(loop, main())
    assert "starts SSL handshake" in caplog.text
    assert "SSL handshake took" in caplog.text


@pytest.mark.parametrize("loop", ["openssl", "python"], indirect=True)
@pytest.mark.parametrize("name", ["close", "abort"])
def test_end_asked_for_by_another_thread_is_refused_and_changes_nothing(
    loop: Loop, contexts: Contexts, name: str
) -> None:
    async def main() -> None:
        transport, protocol, peer = await connect(contexts)
        with pytest.raises(RuntimeError, match="another thread"):
            await asyncio.to_thread(getattr(transport, name))
        assert not transport.is_closing()
        await peer.write(b"as before")
        await protocol.until(lambda: protocol.data == b"as before")
        transport.abort()
        await protocol.lost

    run(loop, main())
