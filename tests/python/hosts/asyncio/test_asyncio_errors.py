"""Transports of asyncio: exceptions of protocols, and messages of debug mode."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, cast

import pytest
from tests.python.hosts.asyncio.asyncio_ends import (
    BIG,
    BOTH,
    Buffered,
    Loop,
    Recorder,
    connect,
    make_loop,
    receive_all,
    run,
)

if TYPE_CHECKING:
    import asyncio

loop = pytest.fixture(params=BOTH)(make_loop)
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


@pytest.mark.parametrize(
    ("method", "base"),
    [
        ("data_received", Recorder),
        ("eof_received", Recorder),
        ("get_buffer", Buffered),
        ("buffer_updated", Buffered),
    ],
)
def test_exception_of_a_protocol_ends_only_its_connection(
    loop: Loop, method: str, base: type[asyncio.BaseProtocol]
) -> None:
    problem = ZeroDivisionError()
    reported: list[dict[str, object]] = []

    def fail(*_arguments: object) -> None:
        raise problem

    failing = type("Failing", (base,), {method: fail})

    async def main() -> None:
        loop.set_exception_handler(lambda _, context: reported.append(context))
        other_transport, other, other_far = await connect()
        transport, protocol, far = await connect(failing)
        with far, other_far:
            far.send(b"data")
            far.shutdown(socket.SHUT_WR)
            assert await protocol.lost is problem
            other_far.send(b"data")
            await other.until(lambda: other.data == b"data")
            other_transport.close()
            await other.lost
        [context] = reported
        assert context["message"] == f"Fatal error: protocol.{method}() call failed."
        assert context["exception"] is problem
        assert context["transport"] is transport
        assert context["protocol"] is protocol

    run(loop, main())


def test_empty_buffer_of_a_protocol_is_reported_as_in_asyncio(loop: Loop) -> None:
    async def main() -> None:
        loop.set_exception_handler(lambda *_: None)
        _, found, far = await connect(lambda: Buffered(0))
        with far:
            far.send(b"data")
            error = await cast("Buffered", found).lost
        assert isinstance(error, RuntimeError)
        assert str(error) == "get_buffer() returned an empty buffer"

    run(loop, main())


def test_interrupt_in_a_protocol_is_raised_by_the_loop_and_loses_nothing(
    loop: Loop,
) -> None:
    class Interrupted(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if len(interrupted) < 1:
                interrupted.append(self)
                raise KeyboardInterrupt

    interrupted: list[Recorder] = []
    connections: list[tuple[asyncio.Transport, Recorder, socket.socket]] = []

    async def begin() -> None:
        connections.extend([await connect(Interrupted) for _ in range(5)])

    async def end() -> None:
        for transport, protocol, far in connections:
            await protocol.until(lambda p=protocol: p.data == b"data")  # type: ignore[misc] # p is bound early
            transport.close()
            await protocol.lost
            far.close()

    run(loop, begin())
    for _, _, far in connections:
        far.send(b"data")
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    run(loop, end())
    assert len(interrupted) == 1


def test_exception_of_connection_made_keeps_the_connection(loop: Loop) -> None:
    class Failing(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            raise ZeroDivisionError

    reported: list[dict[str, object]] = []

    async def main() -> None:
        loop.set_exception_handler(lambda _, context: reported.append(context))
        transport, protocol, far = await connect(Failing)
        with far:
            far.send(b"data")
            await protocol.until(lambda: protocol.data == b"data")
            transport.close()
            await protocol.lost
        [context] = reported
        assert isinstance(context["exception"], ZeroDivisionError)

    run(loop, main())


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
def test_exception_of_flow_control_is_only_reported(loop: Loop, method: str) -> None:
    def fail(_protocol: object) -> None:
        raise ZeroDivisionError

    reported: list[object] = []
    failing = type("Failing", (Recorder,), {method: fail})

    async def main() -> None:
        loop.set_exception_handler(lambda _, found: reported.append(found["message"]))
        transport, protocol, far = await connect(failing)
        with far:
            transport.write(bytes(BIG))
            transport.close()
            assert len(await receive_all(far)) == BIG
        assert await protocol.lost is None
        assert reported == [f"protocol.{method}() failed"]

    run(loop, main())


def test_exception_of_connection_lost_still_closes_the_socket(loop: Loop) -> None:
    class Failing(Recorder):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            raise ZeroDivisionError

    reported: list[dict[str, object]] = []

    async def main() -> None:
        loop.set_exception_handler(lambda _, context: reported.append(context))
        transport, protocol, far = await connect(Failing)
        sock = transport.get_extra_info("socket")
        with far:
            transport.close()
            await protocol.lost
            assert await receive_all(far) == b""
        assert sock.fileno() == -1
        assert len(reported) == 1

    run(loop, main())


def test_repeated_writes_to_a_lost_connection_are_logged(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        far.close()
        await protocol.lost
        for _ in range(4):
            transport.write(b"lost")
        assert not caplog.records
        transport.write(b"lost")

    run(loop, main())
    assert [record.getMessage() for record in caplog.records] == [
        "socket.send() raised exception."
    ]


def test_debug_mode_logs_each_step(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        protocol.keeps_open = True
        with far:
            transport.pause_reading()
            transport.resume_reading()
            far.shutdown(socket.SHUT_WR)
            await protocol.until(lambda: "eof" in protocol.events)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        transport.write(b"lost")
        assert await protocol.lost is not None

    caplog.set_level("DEBUG", "asyncio")
    loop.set_debug(True)
    run(loop, main())
    messages = [record.getMessage() for record in caplog.records]
    for step in ("pauses reading", "resumes reading", "received EOF", "Fatal "):
        assert sum(step in message for message in messages) == 1


def test_repr_shows_the_state(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        name = type(transport).__name__
        fd = transport.get_extra_info("socket").fileno()
        with far:
            idle = f"<{name} fd={fd} read=polling write=<idle, bufsize=0>>"
            assert repr(transport) == idle
            transport.pause_reading()
            assert repr(transport) == idle.replace("read=polling", "read=idle")
            transport.write(bytes(BIG))
            size = transport.get_write_buffer_size()
            assert f"read=idle write=<polling, bufsize={size}>" in repr(transport)
            transport.close()
            assert f"<{name} closing fd={fd} " in repr(transport)
            transport.abort()
            await protocol.lost
            assert repr(transport) == f"<{name} closed closing fd={fd}>".replace(
                " closing" if "closing" not in repr(transport) else "", ""
            )

    run(loop, main())
