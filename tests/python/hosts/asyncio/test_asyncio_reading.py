"""Transports of asyncio: which data a protocol gets, when, and in which context."""

from __future__ import annotations

import asyncio
import contextvars
import socket
from typing import cast

import pytest
from tests.python.hosts.asyncio.asyncio_ends import (
    BOTH,
    Buffered,
    Linked,
    Loop,
    Recorder,
    connect,
    connect_two,
    make_loop,
    receive_all,
    run,
    turns,
)

from fdmux.hosts.asyncio import EventLoop

loop = pytest.fixture(params=BOTH)(make_loop)


def test_paused_transport_reads_nothing_until_it_is_resumed(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            transport.pause_reading()
            assert not transport.is_reading()
            far.send(b"held")
            await turns()
            assert protocol.data == b""
            transport.resume_reading()
            assert transport.is_reading()
            await protocol.until(lambda: protocol.data == b"held")
            transport.close()
            assert not transport.is_reading()
            transport.resume_reading()
            await protocol.lost

    run(loop, main())


def test_data_comes_before_callbacks_that_are_ready_other_than_in_asyncio(
    loop: Loop,
) -> None:
    """The difference that docs/asyncio.md explains."""
    is_ours = isinstance(loop, EventLoop)

    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            await turns()
            far.send(b"x")
            loop.call_soon(protocol.note, "ready")
            await protocol.until(lambda: len(protocol.events) == 3)
            transport.close()
            await protocol.lost
        order = ["data", "ready"] if is_ours else ["ready", "data"]
        assert protocol.events == ["made", *order, "lost"]

    run(loop, main())


def test_transport_paused_by_another_of_the_same_batch_receives_nothing(
    loop: Loop,
) -> None:
    class Pauser(Linked):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.other.pause_reading()

    async def main() -> None:
        (one, first, far_one), (two, second, far_two) = await connect_two(Pauser)
        with far_one, far_two:
            far_one.sendall(b"data")
            far_two.sendall(b"data")
            far_one.shutdown(socket.SHUT_WR)
            far_two.shutdown(socket.SHUT_WR)
            await turns()
            assert sorted([first.data, second.data]) == [b"", b"data"]
            one.resume_reading()
            two.resume_reading()
            await asyncio.gather(first.lost, second.lost)
        for protocol in (first, second):
            assert protocol.data == b"data"
            assert protocol.events == ["made", "data", "eof", "lost"]

    run(loop, main())


def test_connection_closed_by_another_of_the_same_batch_gets_no_data(
    loop: Loop,
) -> None:
    class Closer(Linked):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.other.close()

    async def main() -> None:
        (one, first, far_one), (two, second, far_two) = await connect_two(Closer)
        with far_one, far_two:
            far_one.send(b"data")
            far_two.send(b"data")
            await turns()
            assert sorted([first.data, second.data]) == [b"", b"data"]
            one.close()
            two.close()
            await asyncio.gather(first.lost, second.lost)

    run(loop, main())


def test_eof_received_may_keep_the_connection_open(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        protocol.keeps_open = True
        with far:
            far.shutdown(socket.SHUT_WR)
            await protocol.until(lambda: "eof" in protocol.events)
            await turns()
            transport.write(b"still ")
            transport.writelines([b"here", bytearray(b"!"), memoryview(b"!")])
            assert transport.can_write_eof()
            transport.write_eof()
            assert await receive_all(far) == b"still here!!"
            assert not protocol.lost.done()
            transport.close()
        assert await protocol.lost is None
        assert protocol.events == ["made", "eof", "lost"]

    run(loop, main())


def test_new_protocol_gets_the_data_that_follows(loop: Loop) -> None:
    async def main() -> None:
        transport, first, far = await connect()
        with far:
            far.send(b"one")
            await first.until(lambda: first.data == b"one")
            second = Recorder()
            transport.set_protocol(second)
            assert transport.get_protocol() is second
            far.send(b"two")
            await second.until(lambda: second.data == b"two")
            transport.close()
            assert await second.lost is None
        assert first.events == ["made", "data"]

    run(loop, main())


def test_buffered_protocol_fills_its_own_buffer(loop: Loop) -> None:
    async def main() -> None:
        _, found, far = await connect(Buffered)
        protocol = cast("Buffered", found)
        with far:
            far.send(b"0123456789")
            far.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
        assert protocol.data == b"0123456789"
        assert protocol.updates == [4, 4, 2]

    run(loop, main())


def test_buffered_protocol_may_pause_or_hand_over_in_the_middle(loop: Loop) -> None:
    class Once(Buffered):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            if self.data == b"0123":
                self.transport.pause_reading()
            else:
                self.transport.set_protocol(successors[0])

    async def main() -> None:
        transport, found, far = await connect(Once)
        protocol = cast("Once", found)
        successor = Recorder()
        successors.append(successor)
        with far:
            far.send(b"0123456789")
            await turns()
            assert protocol.data == b"0123"
            transport.resume_reading()
            await successor.until(lambda: successor.data == b"89")
            assert protocol.data == b"01234567"
            transport.close()
            await successor.lost

    successors: list[Recorder] = []
    run(loop, main())


def test_protocol_is_called_in_the_context_of_its_connection(loop: Loop) -> None:
    name = contextvars.ContextVar("name", default="none")

    class Namer(Recorder):
        def data_received(self, data: bytes) -> None:
            self.note(name.get())
            name.set(data.decode())
            super().data_received(data)

    async def main() -> None:
        name.set("main")
        transport, protocol, far = await connect(Namer)
        with far:
            name.set("changed")
            for data in (b"one", b"two"):
                far.send(data)
                await protocol.until(lambda d=data: protocol.data.endswith(d))  # type: ignore[misc] # d is bound early
            transport.close()
            await protocol.lost
        assert protocol.events == ["made", "main", "data", "one", "data", "lost"]
        assert name.get() == "changed"

    run(loop, main())


def test_descriptor_of_a_transport_cannot_be_watched(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        fd = transport.get_extra_info("socket").fileno()
        with far:
            with pytest.raises(RuntimeError, match="is used by transport"):
                loop.add_reader(fd, print)
            transport.close()
            await protocol.lost

    run(loop, main())


def test_end_of_file_while_paused_is_reported_when_resumed(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            transport.pause_reading()
            far.send(b"data")
            far.shutdown(socket.SHUT_WR)
            await turns()
            assert protocol.events == ["made"]
            transport.resume_reading()
            assert await protocol.lost is None
        assert protocol.events == ["made", "data", "eof", "lost"]

    run(loop, main())


def test_transport_paused_in_connection_made_receives_nothing(loop: Loop) -> None:
    class Pauser(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()

    async def main() -> None:
        transport, protocol, far = await connect(Pauser)
        with far:
            far.send(b"data")
            await turns()
            assert protocol.events == ["made"]
            transport.resume_reading()
            await protocol.until(lambda: protocol.data == b"data")
            transport.close()
            await protocol.lost

    run(loop, main())


def test_exception_of_a_resumed_protocol_ends_its_connection(loop: Loop) -> None:
    class Pauser(Linked):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self.other.is_reading() or len(data) > 4:
                raise ZeroDivisionError
            self.other.pause_reading()

    async def main() -> None:
        loop.set_exception_handler(lambda *_: None)
        (one, first, far_one), (two, second, far_two) = await connect_two(Pauser)
        with far_one, far_two:
            far_one.send(b"data")
            far_two.send(b"data")
            await turns()
            paused, other = (two, one) if second.data == b"" else (one, two)
            other.pause_reading()
            paused.resume_reading()
            lost = second.lost if paused is two else first.lost
            assert isinstance(await lost, ZeroDivisionError)
            other.close()
            await asyncio.gather(first.lost, second.lost)

    run(loop, main())
