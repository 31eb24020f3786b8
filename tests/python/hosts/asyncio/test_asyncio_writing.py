"""Transports of asyncio: writing, flow control, and files."""

from __future__ import annotations

import asyncio
import os
import tempfile

import pytest
from tests.python.hosts.asyncio.asyncio_ends import (
    BIG,
    BOTH,
    Loop,
    connect,
    make_loop,
    receive_all,
    receive_size,
    run,
    turns,
)

loop = pytest.fixture(params=BOTH)(make_loop)


def test_write_of_other_types_or_after_the_end_is_an_error(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            with pytest.raises(
                TypeError, match="must be a bytes-like object, not 'str'"
            ):
                transport.write("text")  # type: ignore[arg-type] # wrong on purpose
            transport.write(b"")
            transport.write(bytearray(b"ab"))
            transport.write(memoryview(b"cd"))
            transport.write_eof()
            transport.write_eof()
            with pytest.raises(RuntimeError, match=r"write\(\) after write_eof\(\)"):
                transport.write(b"x")
            with pytest.raises(RuntimeError, match=r"after write_eof\(\)"):
                transport.writelines([b"x"])
            assert await receive_all(far) == b"abcd"
            transport.close()
            await protocol.lost
            assert transport.get_write_buffer_size() == 0

    run(loop, main())


def test_writes_are_sent_in_order_whatever_their_size(loop: Loop) -> None:
    sizes = [1, 100_000, 3, 70_000, 1 << 20, 5, 65_536, 2]
    parts = [bytes([index]) * size for index, size in enumerate(sizes)]

    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            for part in parts:
                transport.write(part)
            transport.close()
            assert await receive_all(far) == b"".join(parts)
        await protocol.lost

    run(loop, main())


def test_protocol_is_paused_and_resumed_at_the_limits(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        with far:
            while "pause" not in protocol.events:
                transport.write(bytes(10_000))
            assert 64 * 1024 < transport.get_write_buffer_size() <= 64 * 1024 + 10_000
            transport.write(bytes(10_000))  # the protocol ignores the pause
            reading = asyncio.ensure_future(receive_all(far))
            await protocol.until(lambda: "resume" in protocol.events)
            assert transport.get_write_buffer_size() <= 16 * 1024
            transport.write(b"more")
            transport.close()
            assert (await reading).endswith(b"more")
        await protocol.lost
        assert protocol.events == ["made", "pause", "resume", "lost"]

    run(loop, main())


@pytest.mark.parametrize(("high", "low"), [(0, 0), (1 << 20, 1 << 19), (100, 7)])
def test_write_buffer_limits_can_be_set(loop: Loop, high: int, low: int) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        transport.set_write_buffer_limits(high, low)
        assert transport.get_write_buffer_limits() == (low, high)
        with far:
            while "pause" not in protocol.events:
                assert transport.get_write_buffer_size() <= high
                transport.write(bytes(20_000))
            assert transport.get_write_buffer_size() > high
            reading = asyncio.ensure_future(receive_all(far))
            await protocol.until(lambda: "resume" in protocol.events)
            assert transport.get_write_buffer_size() <= low
            transport.close()
            await reading
        await protocol.lost
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(1, 2)

    run(loop, main())


def test_limit_below_the_queue_pauses_at_once(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        transport.set_write_buffer_limits(BIG)
        with far:
            while not transport.get_write_buffer_size():
                transport.write(bytes(50_000))
            assert protocol.events == ["made"]
            transport.set_write_buffer_limits(0)
            assert protocol.events == ["made", "pause"]
            transport.abort()
            await protocol.lost

    run(loop, main())


def test_long_queue_does_not_end_the_connection(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            for _ in range(8):
                transport.write(bytes(BIG))
            await turns()
            assert transport.get_write_buffer_size() > 6 * BIG
            transport.close()
            assert len(await receive_all(far)) == 8 * BIG
        assert await protocol.lost is None

    run(loop, main())


def test_sendfile_keeps_its_place_between_writes(loop: Loop) -> None:
    content = os.urandom(300_000)

    async def main(file: object) -> None:
        transport, protocol, far = await connect()
        with far:
            reading = asyncio.ensure_future(receive_all(far))
            transport.write(b"before ")
            assert await loop.sendfile(transport, file, 5, 200_000) == 200_000  # type: ignore[arg-type] # a file
            transport.write(b" after")
            transport.close()
            assert await reading == b"before " + content[5:200_005] + b" after"
        await protocol.lost

    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        run(loop, main(file))


def test_write_during_sendfile_is_an_error(loop: Loop) -> None:
    async def main(file: object) -> None:
        transport, protocol, far = await connect()
        with far:
            sending = asyncio.ensure_future(loop.sendfile(transport, file))  # type: ignore[arg-type] # a file
            await turns()
            with pytest.raises(RuntimeError, match="sendfile is in progress"):
                transport.write(b"x")
            assert len(await receive_size(far, BIG)) == BIG
            assert await sending == BIG
            transport.close()
            await protocol.lost

    with tempfile.TemporaryFile() as file:
        file.truncate(BIG)
        run(loop, main(file))
