"""Echo as an asyncio `Protocol`, or as asyncio streams, on the loop that is named.

``asyncio_protocol LOOP [streams|busy|observed]``: asyncio, selector (asyncio on a
fdmux.Selector), fdmux (`fdmux.hosts.asyncio.EventLoop`), uvloop, or aiofastnet on
either of asyncio and uvloop. A `Protocol` that is busy computes before it answers; on
fdmux, the loop may have an observer.

No loop is told how much to receive: asyncio and aiofastnet ask 256 KiB, as the other
servers do; uvloop has one static buffer of 256,000 bytes.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import TYPE_CHECKING, cast

from benchmarks.programs.servers.announce import BACKLOG, BUFFER_SIZE, announce, listen
from benchmarks.programs.servers.busy import stay_busy
from benchmarks.programs.servers.observer import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux.hosts.asyncio import EventLoop

    LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Echo(asyncio.Protocol):
    """Writes what it gets, and stops reading while the peer does not."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class BusyEcho(Echo):
    """The same with work to do: of the latency row."""

    def data_received(self, data: bytes) -> None:
        stay_busy()
        self.transport.write(data)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one client through asyncio's streams."""
    while data := await reader.read(BUFFER_SIZE):
        writer.write(data)
        await writer.drain()
    writer.close()


async def serve(kind: str) -> None:
    listener = listen()
    loop = asyncio.get_running_loop()
    server: asyncio.Server
    if kind == "streams":
        server = await asyncio.start_server(echo, sock=listener, backlog=BACKLOG)
    else:
        server = await loop.create_server(
            BusyEcho if kind == "busy" else Echo, sock=listener, backlog=BACKLOG
        )
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


def make_aiofastnet(base: LoopFactory) -> asyncio.AbstractEventLoop:
    """Make a loop of which aiofastnet replaces the transports."""
    found = importlib.import_module("aiofastnet").loop_factory
    return cast("Callable[[LoopFactory], LoopFactory]", found)(base)()


LOOPS: dict[str, LoopFactory] = {
    "asyncio": asyncio.SelectorEventLoop,
    "selector": make_on_selector,
    "fdmux": make_fdmux,
    "uvloop": make_uvloop,
    "aiofastnet": lambda: make_aiofastnet(asyncio.SelectorEventLoop),
    "aiofastnet-uvloop": lambda: make_aiofastnet(make_uvloop),
}


def main() -> None:
    name, *kind = sys.argv[1:]
    loop = LOOPS[name]()
    if kind == ["observed"]:
        cast("EventLoop", loop).observe(Reader())
    asyncio.set_event_loop(loop)
    loop.run_until_complete(serve(kind[0] if kind else "protocol"))


if __name__ == "__main__":
    main()
