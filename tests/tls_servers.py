"""Echo servers with TLS, in a thread of their own: a `StreamServer` and a protocol."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from typing import TYPE_CHECKING, cast

from fdmux import EchoServer, ServerLimits
from fdmux.hosts.asyncio import EventLoop

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Serving = Callable[[ssl.SSLContext, float], AbstractContextManager["Server"]]

LONG = 30.0


@dataclasses.dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        count_accepted: How many connections it has accepted.
        count_open: How many of these it has still.
    """

    port: int
    count_accepted: Callable[[], int]
    count_open: Callable[[], int]


@contextlib.contextmanager
def serve_streams(
    context: ssl.SSLContext, handshake_timeout: float
) -> Iterator[Server]:
    limits = ServerLimits(handshake_timeout=handshake_timeout, connection_max=10_000)
    with EchoServer(port=0, ssl=context, limits=limits) as server:
        server.run_in_thread()
        yield Server(
            server.address[1],
            lambda: server.stats.accepted,
            lambda: server.stats.open,
        )


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@contextlib.contextmanager
def serve_protocols(
    context: ssl.SSLContext, handshake_timeout: float
) -> Iterator[Server]:
    count = 0
    loop = EventLoop()

    def make() -> Echo:
        nonlocal count
        count += 1
        return Echo()

    loop.set_exception_handler(lambda _loop, _context: None)  # strangers cause errors
    with contextlib.closing(loop):
        server = loop.run_until_complete(
            loop.create_server(
                make,
                "127.0.0.1",
                0,
                ssl=context,
                ssl_handshake_timeout=handshake_timeout,
                backlog=1024,
            )
        )
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield Server(
                server.sockets[0].getsockname()[1],
                lambda: count,
                lambda: server._active_count,  # type: ignore[attr-defined] # 3.11 to 3.13
            )
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(LONG)
            server.close()
            server.abort_clients()  # type: ignore[attr-defined, unused-ignore] # since 3.13, or ours
            loop.run_until_complete(server.wait_closed())


SERVERS: dict[str, Serving] = {"stream": serve_streams, "asyncio": serve_protocols}
