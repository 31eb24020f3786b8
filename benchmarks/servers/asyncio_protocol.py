"""Echo as an asyncio `Protocol`, on asyncio's own loop or (``uvloop``) on uvloop."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from benchmarks.servers.announce import BACKLOG, BUFFER_SIZE, announce, listen


class Echo(asyncio.Protocol):
    """Writes what it gets, and stops reading while the peer does not."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if hasattr(transport, "max_size"):
            # asyncio asks 256 KiB of each receive; the others ask 64. uvloop has one
            # static buffer of 256,000 bytes for all, which costs nothing per receive.
            transport.max_size = BUFFER_SIZE

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


async def serve() -> None:
    listener = listen()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, sock=listener, backlog=BACKLOG)
    announce(listener.getsockname()[1])
    await server.serve_forever()


def main() -> None:
    if sys.argv[1:] == ["uvloop"]:
        import uvloop  # noqa: PLC0415 - only this contender needs it

        uvloop.run(serve())
    else:
        asyncio.run(serve())


if __name__ == "__main__":
    main()
