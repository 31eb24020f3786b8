"""Transports of asyncio belong to the thread of their loop; others are refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.python.hosts.asyncio.asyncio_ends import (
    Loop,
    Recorder,
    connect,
    make_loop,
    receive_size,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Callable

loop = pytest.fixture(params=["ours"])(make_loop)

WAY_OUT = r"another thread.*call_soon_threadsafe\(\)"

USES: dict[str, Callable[[asyncio.Transport], object]] = {
    "write": lambda transport: transport.write(b"x"),
    "writelines": lambda transport: transport.writelines([b"x"]),
    "write_eof": lambda transport: transport.write_eof(),
    "close": lambda transport: transport.close(),
    "abort": lambda transport: transport.abort(),
    "pause": lambda transport: transport.pause_reading(),
    "resume": lambda transport: transport.resume_reading(),
    "limits": lambda transport: transport.set_write_buffer_limits(1),
    "size": lambda transport: transport.get_write_buffer_size(),
}


@pytest.mark.parametrize("name", USES)
def test_use_by_another_thread_is_refused_and_changes_nothing(
    loop: Loop, name: str
) -> None:
    async def main() -> None:
        transport, protocol, far = await connect(Recorder)
        with far:
            limits = transport.get_write_buffer_limits()
            with pytest.raises(RuntimeError, match=WAY_OUT):
                await asyncio.to_thread(USES[name], transport)
            assert transport.get_write_buffer_limits() == limits
            assert transport.is_reading()
            transport.write(b"as before")
            assert await receive_size(far, 9) == b"as before"
            far.send(b"y")
            await protocol.until(lambda: protocol.data == b"y")
            transport.close()
            assert await protocol.lost is None

    run(loop, main())
