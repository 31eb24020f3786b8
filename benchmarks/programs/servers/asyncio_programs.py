"""Servers that others have written, on the loop that is named.

    python -m benchmarks.programs.servers.asyncio_programs \\
        LOOP aiohttp|uvicorn|websockets

uvicorn (httptools) and aiohttp answer every request with 13 bytes, and log no access;
websockets echoes messages, uncompressed. LOOP is one of asyncio_protocol.py.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import TYPE_CHECKING

from benchmarks.programs.servers.announce import announce, listen
from benchmarks.programs.servers.asyncio_protocol import LOOPS

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
    from typing import Protocol

    class _Connection(AsyncIterable[bytes], Protocol):
        async def send(self, message: bytes) -> None: ...

    Serve = Callable[[socket.socket], Coroutine[object, object, None]]

ANSWER = b"Hello, World!"


async def answer(
    _scope: object,
    _receive: object,
    send: Callable[[dict[str, object]], Awaitable[None]],
) -> None:
    """Answer a GET, as an ASGI application."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


async def serve_uvicorn(listener: socket.socket) -> None:
    uvicorn = importlib.import_module("uvicorn")
    settings = uvicorn.Config(
        answer,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
    await uvicorn.Server(settings).serve(sockets=[listener])


async def serve_aiohttp(listener: socket.socket) -> None:
    web = importlib.import_module("aiohttp.web")

    async def handle(_request: object) -> object:
        return web.Response(body=ANSWER, content_type="text/plain")

    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    await asyncio.Event().wait()


async def echo(connection: _Connection) -> None:
    async for message in connection:
        await connection.send(message)


async def serve_websockets(listener: socket.socket) -> None:
    server = importlib.import_module("websockets.asyncio.server")
    options = {"compression": None, "ping_interval": None}
    async with server.serve(echo, sock=listener, **options):
        await asyncio.Event().wait()


PROGRAMS: dict[str, Serve] = {
    "aiohttp": serve_aiohttp,
    "uvicorn": serve_uvicorn,
    "websockets": serve_websockets,
}


def main() -> None:
    loop_name, program = sys.argv[1:]
    loop = LOOPS[loop_name]()
    asyncio.set_event_loop(loop)
    listener = listen()
    announce(listener.getsockname()[1])
    loop.run_until_complete(PROGRAMS[program](listener))


if __name__ == "__main__":
    main()
