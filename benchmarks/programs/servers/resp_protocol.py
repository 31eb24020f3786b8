"""RESP as an asyncio `Protocol`, on asyncio's own loop or (``uvloop``) on uvloop."""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import TYPE_CHECKING, cast

from benchmarks.programs.servers.announce import BACKLOG, announce, listen
from benchmarks.programs.servers.resp_session import MakeSessions

if TYPE_CHECKING:
    from benchmarks.programs.servers.resp_session import Session


class Resp(asyncio.Protocol):
    """Answers what is whole; reads and answers no further than the peer reads."""

    transport: asyncio.Transport

    def __init__(self, make_session: MakeSessions) -> None:
        self._session: Session = make_session()
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        session = self._session
        self.transport.write(session.receive(data))
        if session.waiting or session.problem is not None:
            self._go_on()

    def pause_writing(self) -> None:
        self._is_paused = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_paused = False
        self.transport.resume_reading()
        self._go_on()

    def _go_on(self) -> None:
        session = self._session
        while session.waiting and not self._is_paused:
            self.transport.write(session.go_on())
        if session.problem is not None and not session.waiting:
            self.transport.write(f"-ERR {session.problem}\r\n".encode())
            self.transport.close()


async def serve() -> None:
    listener = listen()
    loop = asyncio.get_running_loop()
    make = functools.partial(Resp, MakeSessions())
    server = await loop.create_server(make, sock=listener, backlog=BACKLOG)
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
