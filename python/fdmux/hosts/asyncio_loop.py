"""EventLoop: the loop of asyncio on the C core, and how such a loop is ended.

Its one rule: it is asyncio's. What is overridden is where connections get their
transport; what asks for more than asyncio has asked for so far is left to asyncio.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from fdmux.hosts.asyncio_private import (
    HAS_TRANSPORTS,
    SelectorEventLoop,
    Server,
    SSLProtocol,
)
from fdmux.hosts.asyncio_streams import StreamSelector
from fdmux.hosts.asyncio_transport import StreamTransport

if TYPE_CHECKING:
    import selectors
    import ssl


class EventLoop(SelectorEventLoop):
    """The event loop of asyncio, on the C core.

    >>> with asyncio.Runner(loop_factory=EventLoop) as runner:
    ...     runner.run(main())

    Native watchers, timers and posted calls run inside `select`, without the GIL.
    Connections of `create_server`, `create_connection`, `create_unix_server`,
    `create_unix_connection` and `connect_accepted_socket`, and so asyncio's streams,
    are served in batches.

    Args:
        selector: What to wait with. With anything but the `StreamSelector` that is made
            for ``None``, the transports are asyncio's own.

    Threads: As in asyncio.
    """

    # What carries connections.
    transport_type: type[StreamTransport] = StreamTransport

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        super().__init__(StreamSelector() if selector is None else selector)

    def __fdmux_loop__(self) -> object:
        """Hand out the core loop, in a capsule for native code.

        Raises:
            RuntimeError: The loop is closed, or its selector is none of ours.
        """
        hand_out = getattr(self._selector, "__fdmux_loop__", None)
        if hand_out is None:
            raise RuntimeError(f"{self!r} has no core loop, or no longer")
        return hand_out()

    def run_forever(self) -> None:
        """Run until `stop`; what transports have written by then is sent."""
        try:
            super().run_forever()
        finally:
            streams = getattr(self._selector, "streams", None)
            if streams is not None:
                streams.settle()

    # asyncio's own names; what asks for more than they have had so far is asyncio's.

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, object] | None = None,
        server: Server | None = None,
        **more: object,
    ) -> asyncio.Transport:
        selector = self._selector
        if more or not isinstance(selector, StreamSelector) or not is_carried(sock):
            return super()._make_socket_transport(
                sock, protocol, waiter, extra=extra, server=server, **more
            )
        self._ensure_fd_no_transport(sock)
        streams = selector.serve(self)
        transport = self.transport_type(self, streams, sock, protocol, extra)
        transport.begin(server, waiter)
        return transport

    if HAS_TRANSPORTS:

        def _make_ssl_transport(  # noqa: PLR0913 - as asyncio calls it
            self,
            rawsock: socket.socket,
            protocol: asyncio.BaseProtocol,
            sslcontext: ssl.SSLContext,
            waiter: asyncio.Future[None] | None = None,
            *,
            server_side: bool = False,
            server_hostname: str | None = None,
            extra: dict[str, object] | None = None,
            server: Server | None = None,
            **timeouts: float | None,
        ) -> asyncio.Transport:
            names = (server_side, server_hostname)
            tls = SSLProtocol(self, protocol, sslcontext, waiter, *names, **timeouts)
            self._make_socket_transport(rawsock, tls, extra=extra, server=server)
            return tls._app_transport  # noqa: SLF001 - as asyncio's own loop does


def is_carried(sock: socket.socket) -> bool:
    """Whether our transport serves this: a real socket, and a stream of bytes."""
    return (
        HAS_TRANSPORTS
        and isinstance(sock, socket.socket)
        and sock.type == socket.SOCK_STREAM
    )


def finish(loop: asyncio.AbstractEventLoop) -> None:
    """End all that ``loop`` has, as `asyncio.run` does before it closes it."""
    cancel_all_tasks(loop)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())


def cancel_all_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left, and report what that has not ended well."""
    tasks = asyncio.all_tasks(loop)
    if not tasks:
        return  # what gathers nothing would ask for a loop
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    for task in tasks:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            loop.call_exception_handler(
                {
                    "message": "unhandled exception during run() shutdown",
                    "exception": error,
                    "task": task,
                }
            )
