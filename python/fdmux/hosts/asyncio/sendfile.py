"""`sendfile` over TLS: the file is read in blocks, the next one while one is sent.

Its one rule: the file's position afterwards is behind the last byte that was written.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fdmux.hosts.asyncio.private import FallbackProtocol

if TYPE_CHECKING:
    from typing import IO

BLOCK_SIZE = 1 << 18


async def send_blocks(
    transport: asyncio.Transport, file: IO[bytes], offset: int, count: int | None
) -> int:
    """Send ``count`` bytes from ``offset`` on, or all; returns how many.

    Raises:
        ConnectionError: The connection was lost.
    """
    loop = asyncio.get_running_loop()

    def read_from(position: int) -> asyncio.Future[bytes]:
        left = count - position if count else BLOCK_SIZE  # as in asyncio, 0 is all
        return loop.run_in_executor(None, file.read, min(left, BLOCK_SIZE))

    file.seek(offset)
    total = 0
    protocol = FallbackProtocol(transport)
    reading = read_from(0)
    try:
        # A thread that reads cannot be cancelled: `finally` waits for it.
        while block := await asyncio.shield(reading):
            reading = read_from(total + len(block))
            await protocol.drain()
            transport.write(block)
            total += len(block)
    finally:
        await asyncio.wait({reading})  # it moves the position, too
        file.seek(offset + total)
        await protocol.restore()
    return total
