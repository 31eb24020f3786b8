"""Echo as an asyncio `Protocol`, or as asyncio streams, on the loop that is named.

``asyncio_protocol LOOP [streams]``: asyncio, selector (asyncio on a fdmux.Selector),
fdmux (`fdmux.hosts.asyncio.EventLoop`) or uvloop.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, cast

from benchmarks.servers.announce import BACKLOG, BUFFER_SIZE, announce, listen

if TYPE_CHECKING:
    from collections.abc import Callable


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


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one client through asyncio's streams."""
    while data := await reader.read(BUFFER_SIZE):
        writer.write(data)
        await writer.drain()
    writer.close()


async def serve(has_streams: bool) -> None:
    listener = listen()
    loop = asyncio.get_running_loop()
    server: asyncio.Server
    if has_streams:
        server = await asyncio.start_server(echo, sock=listener, backlog=BACKLOG)
    else:
        server = await loop.create_server(Echo, sock=listener, backlog=BACKLOG)
    announce(listener.getsockname()[1])
    await server.serve_forever()


def make_uvloop() -> asyncio.AbstractEventLoop:
    import uvloop  # noqa: PLC0415 - only this contender needs it

    return uvloop.new_event_loop()


def make_on_selector() -> asyncio.AbstractEventLoop:
    import fdmux  # noqa: PLC0415 - only this contender needs it

    return asyncio.SelectorEventLoop(fdmux.Selector())


def make_fdmux() -> asyncio.AbstractEventLoop:
    from fdmux.hosts.asyncio import new_event_loop  # noqa: PLC0415 - as above

    return new_event_loop()


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "selector": make_on_selector,
    "fdmux": make_fdmux,
    "uvloop": make_uvloop,
}


def main() -> None:
    name, *options = sys.argv[1:]
    loop = LOOPS[name]()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(serve("streams" in options))


if __name__ == "__main__":
    main()
