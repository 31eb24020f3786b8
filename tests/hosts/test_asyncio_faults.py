"""Transports when calls of the core fail: each connection is told, and nobody else."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import cast

import pytest

from fdmux._ffi import lib
from fdmux.hosts.asyncio import new_event_loop, run

pytestmark = pytest.mark.faults


class Recorder(asyncio.Protocol):
    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = b""
        self.came = asyncio.Event()
        self.lost: asyncio.Future[Exception | None] = (
            asyncio.get_running_loop().create_future()
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.came.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.lost.set_result(exc)


async def connect() -> tuple[Recorder, socket.socket]:
    near, far = socket.socketpair()
    far.setblocking(False)
    loop = asyncio.get_running_loop()
    _, protocol = await loop.connect_accepted_socket(Recorder, near)
    return protocol, far


@pytest.mark.parametrize(
    ("kind", "error"), [("EPOLL_CTL", errno.ENOSPC), ("MEMORY", errno.ENOMEM)]
)
def test_connection_that_cannot_be_served_is_made_and_lost(
    kind: str, error: int
) -> None:
    async def main() -> Exception | None:
        other, other_far = await connect()
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        lib.fdmux_testing_fail(getattr(lib, f"FDMUX_CALL_{kind}"), 1, error, 0)
        protocol, far = await connect()
        with far, other_far:
            lost = await protocol.lost
            assert protocol.events == ["made", "lost"]
            other_far.send(b"data")
            await other.came.wait()
            other.transport.close()
            await other.lost
        return lost

    lost = run(main())
    assert isinstance(lost, MemoryError if error == errno.ENOMEM else OSError)


def test_failed_receive_is_the_error_of_its_connection() -> None:
    async def main() -> Exception | None:
        protocol, far = await connect()
        with far:
            lib.fdmux_testing_fail(lib.FDMUX_CALL_RECV, 1, errno.ETIMEDOUT, 0)
            far.send(b"data")
            return await protocol.lost

    lost = run(main())
    assert isinstance(lost, TimeoutError)
    assert lost.errno == errno.ETIMEDOUT


def test_failed_send_is_the_error_of_its_connection() -> None:
    async def main() -> Exception | None:
        protocol, far = await connect()
        with far:
            lib.fdmux_testing_fail(lib.FDMUX_CALL_SEND, 1, errno.EPIPE, 0)
            protocol.transport.write(b"data")
            protocol.transport.write(b"more")
            return await protocol.lost

    assert isinstance(run(main()), BrokenPipeError)


def test_failed_send_is_the_error_of_a_file_that_waits_for_it() -> None:
    async def main() -> None:
        protocol, far = await connect()
        loop = asyncio.get_running_loop()
        with far, open(__file__, "rb") as file:  # noqa: ASYNC230, PTH123 - to be sent
            protocol.transport.write(bytes(1 << 20))
            assert protocol.transport.get_write_buffer_size()
            sending = asyncio.ensure_future(loop.sendfile(protocol.transport, file))
            await asyncio.sleep(0)
            lib.fdmux_testing_fail(lib.FDMUX_CALL_SEND, 1, errno.EPIPE, 0)
            await loop.sock_recv(far, 1 << 20)
            with pytest.raises(BrokenPipeError):
                await sending
            await protocol.lost

    run(main())


def test_failed_wait_leaves_the_loop_and_loses_nothing() -> None:
    async def begin() -> tuple[Recorder, socket.socket]:
        return await connect()

    async def end() -> None:
        await protocol.came.wait()
        protocol.transport.close()
        await protocol.lost

    loop = new_event_loop()
    try:
        protocol, far = loop.run_until_complete(begin())
        with far:
            far.send(b"data")
            lib.fdmux_testing_fail(lib.FDMUX_CALL_WAIT, 1, errno.EBADF, 0)
            with pytest.raises(OSError, match="wait in a Selector"):
                loop.run_forever()
            loop.run_until_complete(end())
        assert protocol.data == b"data"
    finally:
        loop.close()


def test_calls_that_do_little_at_once_carry_everything() -> None:
    message = bytes(range(256)) * 8

    async def main() -> bytes:
        protocol, far = await connect()
        loop = asyncio.get_running_loop()
        lib.fdmux_testing_short(7)
        found = b""
        with far:
            far.send(message)
            while len(protocol.data) < len(message):
                protocol.came.clear()
                await protocol.came.wait()
            protocol.transport.write(protocol.data)
            protocol.transport.close()
            while part := await loop.sock_recv(far, 1 << 16):
                found += part
            assert await protocol.lost is None
        return found

    assert run(main()) == message
