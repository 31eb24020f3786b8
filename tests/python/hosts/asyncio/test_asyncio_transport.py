"""Transports of asyncio: the life of a connection, from its first call to its last."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import warnings
from typing import TYPE_CHECKING

import pytest
from tests.peers import reset
from tests.python.hosts.asyncio.asyncio_ends import (
    BIG,
    BOTH,
    Loop,
    Recorder,
    connect,
    make_loop,
    receive_all,
    run,
    turns,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

loop = pytest.fixture(params=BOTH)(make_loop)


def test_protocol_is_called_in_order(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            far.send(b"hello")
            await protocol.until(lambda: protocol.data == b"hello")
            transport.write(b"world")
            far.shutdown(socket.SHUT_WR)
            assert await receive_all(far) == b"world"
        assert await protocol.lost is None
        assert protocol.events == ["made", "data", "eof", "lost"]
        assert transport.is_closing()

    run(loop, main())


def test_connection_lost_is_called_after_callbacks_that_were_ready(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            loop.call_soon(protocol.note, "before")
            transport.close()
            loop.call_soon(protocol.note, "after")
            assert protocol.events == ["made"]
            await protocol.lost
        assert protocol.events == ["made", "before", "lost", "after"]

    run(loop, main())


def test_socket_is_usable_until_the_connection_is_lost(loop: Loop) -> None:
    class Asker(Recorder):
        def connection_lost(self, exc: Exception | None) -> None:
            sock = self.transport.get_extra_info("socket")
            self.note(sock.getsockname())
            super().connection_lost(exc)

    async def main() -> None:
        transport, protocol, far = await connect(Asker)
        with far:
            sock = transport.get_extra_info("socket")
            assert type(sock).__name__ == "TransportSocket"
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
            assert transport.get_extra_info("peername") == far.getsockname()
            assert transport.get_extra_info("sockname") == far.getpeername()
            assert transport.get_extra_info("nothing", 7) == 7
            transport.close()
            await protocol.lost
            assert protocol.events[1:] == [far.getpeername(), "lost"]
        assert sock.fileno() == -1

    run(loop, main())


def test_descriptor_is_closed_exactly_once(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        fd = transport.get_extra_info("socket").fileno()
        with far:
            transport.close()
            await protocol.lost
            os.dup2(far.fileno(), fd)  # another file has the number now
            transport.close()
            transport.abort()
            await turns()
            os.close(fd)

    run(loop, main())


def test_closing_in_connection_made_calls_connection_lost(loop: Loop) -> None:
    class Closer(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.write(b"bye")
            transport.close()

    async def main() -> None:
        _, protocol, far = await connect(Closer)
        with far:
            assert await receive_all(far) == b"bye"
        assert await protocol.lost is None
        assert protocol.events == ["made", "lost"]

    run(loop, main())


def test_abort_drops_queued_bytes(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            transport.write(bytes(BIG))
            assert transport.get_write_buffer_size() > 0
            transport.abort()
            assert transport.get_write_buffer_size() == 0
            assert await protocol.lost is None
            assert len(await receive_all(far)) < BIG

    run(loop, main())


def test_close_sends_queued_bytes(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            transport.write(bytes(BIG))
            transport.close()
            assert transport.is_closing()
            assert not protocol.lost.done()
            assert await receive_all(far) == bytes(BIG)
        assert await protocol.lost is None

    run(loop, main())


def test_reset_by_the_peer_is_the_error(loop: Loop) -> None:
    async def main() -> None:
        _, protocol, far = await connect()
        reset(far)
        assert isinstance(await protocol.lost, ConnectionResetError)
        assert protocol.events == ["made", "lost"]

    run(loop, main())


def test_reset_while_writing_is_the_error(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        transport.pause_reading()
        transport.write(bytes(BIG))
        reset(far)
        assert isinstance(await protocol.lost, ConnectionResetError | BrokenPipeError)
        transport.write(b"lost")
        assert transport.get_write_buffer_size() == 0

    run(loop, main())


@contextlib.contextmanager
def unclosed(loop: Loop) -> Iterator[None]:
    """Expect that closing the loop leaves one transport, which warns."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        loop.close()
        gc.collect()
    found = [str(warning.message) for warning in caught]
    assert sum("unclosed transport" in message for message in found) == 1


def test_unclosed_transport_warns_and_closes(loop: Loop) -> None:
    far: list[socket.socket] = []

    async def main() -> None:
        far.append((await connect())[2])

    with unclosed(loop):
        run(loop, main())
    with far[0] as sock:
        sock.setblocking(True)
        assert sock.recv(1) == b""


def test_last_write_is_sent_when_the_loop_stops(loop: Loop) -> None:
    async def main() -> socket.socket:
        transport, _, far = await connect()
        transport.write(b"last")
        return far

    with unclosed(loop), loop.run_until_complete(main()) as far:
        assert far.recv(100) == b"last"
