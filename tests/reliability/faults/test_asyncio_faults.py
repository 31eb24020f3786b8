"""Transports when calls of the core fail: only the connection concerned is lost."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

import pytest
from tests.python.hosts.asyncio.asyncio_ends import Recorder, connect

from fdmux._ffi import lib
from fdmux.hosts.asyncio import new_event_loop, run

if TYPE_CHECKING:
    import socket

pytestmark = pytest.mark.faults


@pytest.mark.parametrize(
    ("kind", "error"), [("EPOLL_CTL", errno.ENOSPC), ("MEMORY", errno.ENOMEM)]
)
def test_connection_without_a_stream_is_made_and_lost(kind: str, error: int) -> None:
    async def main() -> Exception | None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        lib.fdmux_testing_fail(getattr(lib, f"FDMUX_CALL_{kind}"), 1, error, 0)
        _, protocol, far = await connect()
        with far:
            lost = await protocol.lost
            assert protocol.events == ["made", "lost"]
        _, other, other_far = await connect()
        with other_far:
            other_far.send(b"data")
            await other.until(lambda: other.data == b"data")
            other.transport.close()
            await other.lost
        return lost

    lost = run(main())
    assert isinstance(lost, MemoryError if error == errno.ENOMEM else OSError)


def test_failed_receive_is_the_error_of_its_connection() -> None:
    async def main() -> Exception | None:
        _, protocol, far = await connect()
        with far:
            lib.fdmux_testing_fail(lib.FDMUX_CALL_RECV, 1, errno.ETIMEDOUT, 0)
            far.send(b"data")
            return await protocol.lost

    lost = run(main())
    assert isinstance(lost, TimeoutError)
    assert lost.errno == errno.ETIMEDOUT


def test_failed_send_is_the_error_of_its_connection() -> None:
    async def main() -> Exception | None:
        _, protocol, far = await connect()
        with far:
            lib.fdmux_testing_fail(lib.FDMUX_CALL_SEND, 1, errno.EPIPE, 0)
            protocol.transport.write(b"data")
            protocol.transport.write(b"more")
            return await protocol.lost

    assert isinstance(run(main()), BrokenPipeError)


def test_failed_send_is_the_error_of_a_sendfile_that_waits() -> None:
    async def main() -> None:
        _, protocol, far = await connect()
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


def test_failed_wait_is_raised_by_the_loop_and_loses_nothing() -> None:
    async def begin() -> tuple[Recorder, socket.socket]:
        _, protocol, far = await connect()
        return protocol, far

    async def end() -> None:
        await protocol.until(lambda: protocol.data == b"data")
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


def test_short_receives_and_sends_lose_nothing() -> None:
    message = bytes(range(256)) * 8

    async def main() -> bytes:
        _, protocol, far = await connect()
        loop = asyncio.get_running_loop()
        lib.fdmux_testing_short(7)
        found = b""
        with far:
            far.send(message)
            await protocol.until(lambda: len(protocol.data) == len(message))
            protocol.transport.write(protocol.data)
            protocol.transport.close()
            while part := await loop.sock_recv(far, 1 << 16):
                found += part
            assert await protocol.lost is None
        return found

    assert run(main()) == message
