"""Bytes over TLS: flow control, pauses, sendfile, and TLS that starts in the middle."""

from __future__ import annotations

import asyncio
import errno
import io
import itertools
import socket
import ssl
import threading
from asyncio import sslproto
from typing import TYPE_CHECKING, cast

import pytest
from tests.python.hosts.asyncio.asyncio_ends import (
    BIG,
    Buffered,
    Loop,
    Recorder,
    run,
    turns,
)
from tests.python.hosts.asyncio.asyncio_ends import (
    connect as connect_plain,
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

from fdmux._ffi import lib
from fdmux.hosts.asyncio.sendfile import BLOCK_SIZE
from fdmux.hosts.asyncio.tls import SSLTransport

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path
    from typing import NoReturn

loop = pytest.fixture(params=KINDS)(make_tls_loop)
contexts = pytest.fixture(make_contexts)
SHORT = 0.2


# Flow control -------------------------------------------------------------------------


def test_limits_are_asyncios(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        transport, _, _ = await connect(contexts)
        default = (128 * 1024, 512 * 1024)
        assert transport.get_write_buffer_limits() == default
        transport.set_write_buffer_limits(high=4000)
        assert transport.get_write_buffer_limits() == (1000, 4000)
        transport.set_write_buffer_limits(low=10)
        assert transport.get_write_buffer_limits() == (10, 40)
        transport.set_write_buffer_limits()
        assert transport.get_write_buffer_limits() == default
        transport.abort()
        await turns()

    run(loop, main())


def test_protocol_is_paused_and_resumed(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        transport, protocol, peer = await connect(contexts)
        transport.write(b"x" * BIG)
        await turns()
        # asyncio's does not count what the transport below has queued.
        assert protocol.events == ["made", "pause"][: 1 + is_ours(loop)]
        transport.write(b"x" * BIG)
        await turns()
        assert protocol.events == ["made", "pause"]
        assert transport.get_write_buffer_size() > 0
        assert await peer.read_exactly(2 * BIG) == b"x" * (2 * BIG)
        await protocol.until(lambda: "resume" in protocol.events)
        assert protocol.events == ["made", "pause", "resume"]
        assert transport.get_write_buffer_size() == 0
        transport.abort()
        await protocol.lost

    run(loop, main())


def test_queue_counts_what_a_callback_has_written(
    loop: Loop, contexts: Contexts
) -> None:
    """asyncio's transport has a second queue below, whose bytes it does not count."""
    if not is_ours(loop):
        pytest.skip("asyncio counts otherwise")

    class Writer(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            before = self.transport.get_write_buffer_size()
            self.transport.write(b"y" * 1000)
            self.note(self.transport.get_write_buffer_size() - before)

    async def main() -> None:
        transport, protocol, peer = await connect(contexts, Writer)
        transport.write(b"x" * BIG)
        await turns()
        await peer.write(b"a")
        await protocol.until(lambda: len(protocol.events) > 3)
        assert protocol.events[:3] == ["made", "pause", "data"]
        assert 1000 < cast("int", protocol.events[3]) < 1100  # one record
        transport.set_write_buffer_limits(high=BIG * 2)
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        await protocol.lost

    run(loop, main())


def test_paused_transport_reads_nothing_ahead(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        transport, protocol, peer = await connect(contexts)
        transport.pause_reading()
        assert not transport.is_reading()
        size = 4 * BIG  # more than the kernel takes, at both ends
        writing = asyncio.ensure_future(peer.write(b"x" * size))
        await asyncio.sleep(0.1)
        assert not writing.done()  # the kernel's buffers are full
        assert protocol.data == b""
        transport.resume_reading()
        await writing
        await protocol.until(lambda: len(protocol.data) == size)
        transport.abort()
        await protocol.lost

    run(loop, main())


def test_end_waits_while_paused(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        transport, protocol, peer = await connect(contexts)
        transport.pause_reading()
        await peer.write(b"last")
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.unwrap()
        await peer.flush()
        peer.sock.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.05)
        assert protocol.events == ["made"]
        transport.resume_reading()
        assert await protocol.lost is None
        assert protocol.events == ["made", "data", "eof", "lost"]

    run(loop, main())


class AnySize(Buffered):
    """asyncio's TLS passes the size of what waits as the hint, and not -1."""

    wanted = 0
    is_complete: asyncio.Future[None]

    async def until_received(self, size: int) -> None:
        self.wanted, self.is_complete = size, asyncio.Future()
        self.buffer_updated(0)
        await self.is_complete

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        if self.wanted and len(self.data) == self.wanted:
            self.is_complete.set_result(None)

    def get_buffer(self, sizehint: int) -> bytearray:
        del sizehint
        return self.buffer


@pytest.mark.parametrize("size", [1, 4, 70_000])
def test_buffered_protocol_gets_everything(
    loop: Loop, contexts: Contexts, size: int
) -> None:
    async def main() -> None:
        _, protocol, peer = await connect(contexts, lambda: AnySize(size))
        buffered = cast("AnySize", protocol)
        data = bytes(range(256)) * 8
        await peer.write(data)
        await buffered.until_received(len(data))
        assert buffered.data == data
        buffered.transport.abort()
        await buffered.lost

    run(loop, main())


def test_bytes_arrive_one_by_one(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        transport, protocol, peer = await connect(contexts)
        for byte in peer.encrypt(b"text"):
            await loop.sock_sendall(peer.sock, bytes([byte]))
            await turns(1)
        await protocol.until(lambda: protocol.data == b"text")
        transport.abort()
        await protocol.lost

    run(loop, main())


@pytest.mark.parametrize("size", [100, 16 * 1024, 1_000_000])
def test_sendfile_reads_the_file(
    loop: Loop, contexts: Contexts, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(250)) * (size // 250 + 1))

    async def main() -> None:
        transport, protocol, peer = await connect(contexts)
        with path.open("rb") as file:
            sending = asyncio.ensure_future(loop.sendfile(transport, file, 10, size))
            assert await peer.read_exactly(size) == path.read_bytes()[10 : size + 10]
            assert await sending == size
            assert file.tell() == size + 10
            with pytest.raises(RuntimeError, match="fallback is disabled"):
                await loop.sendfile(transport, file, fallback=False)
        assert transport.get_protocol() is protocol
        await peer.write(b"on")
        await protocol.until(lambda: protocol.data == b"on")
        transport.abort()
        await protocol.lost

    run(loop, main())


def test_sendfile_fails_with_the_connection(
    loop: Loop, contexts: Contexts, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * BIG * 4)

    async def main() -> None:
        transport, protocol, _ = await connect(contexts)
        with path.open("rb") as file:
            sending = asyncio.ensure_future(loop.sendfile(transport, file))
            while not transport.get_write_buffer_size():  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
            transport.abort()
            with pytest.raises(ConnectionError):
                await sending
            assert 0 < file.tell() < BIG * 4
        await protocol.lost

    run(loop, main())


class SlowFile(io.BytesIO):
    """Its second block comes when the test allows it; tells when it is asked for."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(bytes(3 * BLOCK_SIZE))
        self.loop = loop
        self.asked, self.allowed = asyncio.Event(), threading.Event()

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() == BLOCK_SIZE:
            self.loop.call_soon_threadsafe(self.asked.set)
            assert self.allowed.wait(5)
        return super().read(size)


@pytest.mark.parametrize("loop", KINDS[1:], indirect=True)
def test_cancelled_sendfile_waits_for_the_thread_that_reads(
    loop: Loop, contexts: Contexts
) -> None:
    async def main() -> None:
        transport, protocol, peer = await connect(contexts)
        file = SlowFile(loop)
        sending = asyncio.ensure_future(loop.sendfile(transport, file))
        await peer.read_exactly(BLOCK_SIZE)
        await file.asked.wait()
        sending.cancel()
        await turns()
        assert not sending.done()
        file.allowed.set()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert file.tell() == BLOCK_SIZE
        assert transport.get_protocol() is protocol
        transport.abort()
        await protocol.lost

    run(loop, main())


def test_whole_file_is_sent_without_a_count(
    loop: Loop, contexts: Contexts, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(250)) * 4000)

    async def main() -> None:
        transport, protocol, peer = await connect(contexts)
        with path.open("rb") as file:
            sending = asyncio.ensure_future(loop.sendfile(transport, file))
            assert await peer.read_exactly(1_000_000) == path.read_bytes()
            assert await sending == file.tell() == 1_000_000
        transport.abort()
        await protocol.lost

    run(loop, main())


def test_unix_sockets(loop: Loop, contexts: Contexts, tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        path = str(tmp_path / "socket")
        server = await asyncio.start_unix_server(echo, path, ssl=contexts.server)
        reader, writer = await asyncio.open_unix_connection(
            path, ssl=contexts.client, server_hostname="localhost"
        )
        writer.write(b"line\n")
        assert await reader.read() == b"line\n"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(loop, main())


# TLS that starts in the middle --------------------------------------------------------


async def upgrade(
    transport: asyncio.Transport, protocol: Recorder, peer: Peer, contexts: Contexts
) -> asyncio.Transport:
    loop = asyncio.get_running_loop()
    upgraded, _ = await asyncio.gather(
        loop.start_tls(transport, protocol, contexts.server, server_side=True),
        peer.shake_hands(),
    )
    assert upgraded is not None
    return upgraded


def test_start_tls_encrypts_from_now_on(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        plain, protocol, far = await connect_plain()
        contexts.sockets.append(far)
        plain.write(b"go on\n")
        assert await loop.sock_recv(far, 100) == b"go on\n"
        peer = Peer(far, contexts.client)
        upgraded = await upgrade(plain, protocol, peer, contexts)
        assert protocol.events == ["made"]
        assert isinstance(upgraded.get_extra_info("ssl_object"), ssl.SSLObject)
        assert isinstance(upgraded, SSLTransport) == is_ours(loop)
        upgraded.write(b"secret")
        assert await peer.read() == b"secret"
        assert b"secret" not in peer.received
        await peer.write(b"answer")
        await protocol.until(lambda: protocol.data == b"answer")
        await peer.unwrap()
        assert await protocol.lost is None

    run(loop, main())


def test_old_reference_encrypts_too(loop: Loop, contexts: Contexts) -> None:
    """asyncio's old transport would send plaintext between the records."""
    if not is_ours(loop):
        pytest.skip("asyncio sends plaintext")

    async def main() -> None:
        plain, protocol, far = await connect_plain()
        contexts.sockets.append(far)
        peer = Peer(far, contexts.client)
        starting = asyncio.ensure_future(upgrade(plain, protocol, peer, contexts))
        await turns()
        plain.write(b"secret")  # during the handshake
        await starting
        assert await peer.read() == b"secret"
        assert b"secret" not in peer.received
        plain.abort()
        await protocol.lost

    run(loop, main())


def test_new_protocol_gets_the_data(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        plain, first, far = await connect_plain()
        contexts.sockets.append(far)
        second = Recorder()
        peer = Peer(far, contexts.client)
        upgraded = await upgrade(plain, second, peer, contexts)
        assert upgraded.get_protocol() is second
        await peer.write(b"data")
        await second.until(lambda: second.data == b"data")
        upgraded.abort()
        assert await second.lost is None
        assert first.events == ["made"]
        assert second.events == ["data", "lost"]

    run(loop, main())


def test_start_tls_takes_what_a_reader_has_read(loop: Loop, contexts: Contexts) -> None:
    """Older versions of asyncio leave it in the reader, and the handshake hangs."""
    if not is_ours(loop):
        pytest.skip("depends on the version")

    done = loop.create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        while not reader._buffer:  # type: ignore[attr-defined] # private # noqa: ASYNC110 - what the test is about
            await asyncio.sleep(0.001)
        assert hasattr(writer, "start_tls")
        await writer.start_tls(contexts.server)
        writer.write(await reader.readline())
        writer.close()
        await writer.wait_closed()
        done.set_result(None)

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        sock = socket.create_connection(server.sockets[0].getsockname())
        contexts.sockets.append(sock)
        peer = Peer(sock, contexts.client)
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        hello = peer.outgoing.read()
        await loop.sock_sendall(sock, b"STARTTLS\n" + hello[:50])
        await asyncio.sleep(0.01)
        await loop.sock_sendall(sock, hello[50:])
        await peer.shake_hands()
        await peer.write(b"line\n")
        assert await peer.read() == b"line\n"
        await peer.unwrap()
        await done
        server.close()
        await server.wait_closed()

    run(loop, main())


def test_cut_handshake_fails_start_tls(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        plain, protocol, far = await connect_plain()
        starting = asyncio.ensure_future(
            loop.start_tls(plain, protocol, contexts.server, server_side=True)
        )
        await turns()
        far.close()
        with pytest.raises(ConnectionResetError):
            await starting
        assert isinstance(await protocol.lost, ConnectionResetError)

    run(loop, main())


def test_handshake_of_start_tls_has_a_timeout(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        plain, protocol, far = await connect_plain()
        with far, pytest.raises(ConnectionAbortedError, match="taking longer than"):
            await loop.start_tls(
                plain,
                protocol,
                contexts.server,
                server_side=True,
                ssl_handshake_timeout=SHORT,
            )
        await turns()
        if is_ours(loop):  # asyncio's never learns of the end
            assert isinstance(await protocol.lost, ConnectionAbortedError)

    run(loop, main())


def test_start_tls_refuses_what_cannot_be(loop: Loop, contexts: Contexts) -> None:
    async def main() -> None:
        plain, protocol, far = await connect_plain()
        with pytest.raises(TypeError, match="sslcontext is expected"):
            await loop.start_tls(plain, protocol, None)  # type: ignore[arg-type] # wrong on purpose
        if is_ours(loop):  # asyncio waits for the end of the timeout
            plain.close()
            with pytest.raises(ConnectionAbortedError, match="is closing"):
                await loop.start_tls(plain, protocol, contexts.server)
        plain.abort()
        await protocol.lost
        far.close()

    run(loop, main())


@pytest.mark.parametrize("loop", KINDS[1:], indirect=True)
def test_start_tls_with_a_context_of_no_use_closes(
    loop: Loop, contexts: Contexts
) -> None:
    async def main() -> None:
        plain, protocol, far = await connect_plain()
        with pytest.raises(ssl.SSLError, match="server"):
            await loop.start_tls(plain, protocol, contexts.client, server_side=True)
        plain.write(b"dropped")
        await protocol.lost
        with far:
            assert await loop.sock_recv(far, 100) == b""

    run(loop, main())


@pytest.mark.parametrize("loop", KINDS[1:], indirect=True)
def test_interrupt_in_start_tls_leaves_no_plain_transport(
    loop: Loop, contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_transport: SSLTransport) -> NoReturn:
        raise KeyboardInterrupt

    async def main() -> None:
        await loop.start_tls(plain, protocol, contexts.server, server_side=True)

    async def look() -> None:
        plain.write(b"dropped")
        await protocol.lost
        with far:
            assert await loop.sock_recv(far, 100) == b""

    plain, protocol, far = loop.run_until_complete(connect_plain())
    monkeypatch.setattr(SSLTransport, "_open_or_raise", interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(main())
    run(loop, look())


@pytest.mark.faults
@pytest.mark.parametrize("is_persistent", [0, 1])
@pytest.mark.parametrize("kind", ["MEMORY", "SEND", "RECV", "EPOLL_CTL"])
@pytest.mark.parametrize("loop", KINDS[1:], indirect=True)
def test_failing_call_after_start_tls_lets_no_plaintext_out(
    loop: Loop, contexts: Contexts, kind: str, is_persistent: int
) -> None:
    """Let each allocation or system call fail, once or from then on."""
    faulty = getattr(lib, f"FDMUX_CALL_{kind}")
    error = errno.ENOMEM if kind == "MEMORY" else errno.ENOBUFS
    secret = b"attack at dawn"

    async def session(nth: int) -> tuple[bytes, bool]:
        """Returns what was sent, and whether a call has failed."""
        plain, protocol, far = await connect_plain()
        peer = Peer(far, contexts.client)
        await turns()
        lib.fdmux_testing_fail(faulty, nth, error, is_persistent)
        starting = asyncio.ensure_future(
            loop.start_tls(plain, protocol, contexts.server, server_side=True)
        )
        await turns(1)
        plain.write(secret)
        reading = asyncio.ensure_future(read_answer(peer))
        await asyncio.wait({starting, reading}, timeout=SHORT)
        is_reached = lib.fdmux_testing_calls() >= nth
        lib.fdmux_testing_fail(0, 0, 0, 0)
        plain.abort()
        await asyncio.gather(starting, reading, return_exceptions=True)
        far.close()
        return peer.received, is_reached

    async def read_answer(peer: Peer) -> None:
        await peer.shake_hands()
        assert await peer.read() == secret

    for nth in itertools.count(1):
        received, is_reached = loop.run_until_complete(session(nth))
        assert secret not in received
        if not is_reached:
            break
    assert nth > 1


def test_start_tls_without_a_name_verifies_none(loop: Loop, contexts: Contexts) -> None:
    assert contexts.client.check_hostname

    async def main() -> None:
        plain, protocol, far = await connect_plain()
        peer = Peer(far, contexts.server, server_side=True)
        starting = loop.start_tls(plain, protocol, contexts.client)
        transport, _ = await asyncio.gather(starting, peer.shake_hands())
        assert transport is not None
        assert transport.get_extra_info("peercert")
        transport.abort()
        await protocol.lost
        far.close()

    run(loop, main())


@pytest.mark.parametrize("loop", KINDS[1:], indirect=True)
def test_start_tls_during_sendfile_is_refused(
    loop: Loop, contexts: Contexts, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * BIG * 4)

    async def main() -> None:
        transport, protocol, peer = await connect_plain()
        with path.open("rb") as file, peer:
            sending = asyncio.ensure_future(loop.sendfile(transport, file))
            await loop.sock_recv(peer, 1)
            with pytest.raises(RuntimeError, match="sendfile is in progress"):
                await loop.start_tls(
                    transport, protocol, contexts.server, server_side=True
                )
            left = BIG * 4 - 1
            while left:
                data = await loop.sock_recv(peer, left)
                assert data == b"x" * len(data)
                left -= len(data)
            assert await sending == BIG * 4
        transport.abort()
        await protocol.lost

    run(loop, main())


def test_start_tls_after_write_eof_is_refused(loop: Loop, contexts: Contexts) -> None:
    if not is_ours(loop):
        pytest.skip("asyncio waits for the end of the timeout")

    async def main() -> None:
        plain, protocol, far = await connect_plain()
        plain.write_eof()
        with far, pytest.raises(BrokenPipeError, match="start TLS on fd"):
            await loop.start_tls(plain, protocol, contexts.server, server_side=True)
        plain.write(b"dropped")
        assert isinstance(await protocol.lost, BrokenPipeError)

    run(loop, main())


def test_tls_inside_tls(loop: Loop, contexts: Contexts) -> None:
    """The inner one is asyncio's own, on a transport of ours."""

    async def main() -> None:
        outer, protocol, peer = await connect(contexts)
        inner = Peer(peer.sock, contexts.client)  # its bytes go through `peer`

        async def shake() -> None:
            while True:
                try:
                    inner.tls.do_handshake()
                except ssl.SSLWantReadError:
                    await peer.write(inner.outgoing.read())
                    inner.incoming.write(await peer.read())
                else:
                    await peer.write(inner.outgoing.read())
                    return

        starting: Coroutine[object, object, asyncio.Transport | None] = loop.start_tls(
            outer, protocol, contexts.server, server_side=True
        )
        transport, _ = await asyncio.gather(starting, shake())
        assert transport is not None
        assert isinstance(transport, sslproto._SSLProtocolTransport)
        inner.tls.write(b"question")
        await peer.write(inner.outgoing.read())
        await protocol.until(lambda: protocol.data == b"question")
        transport.abort()
        assert await protocol.lost is None

    run(loop, main())
