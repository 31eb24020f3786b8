"""Servers of asyncio that can end their clients, on every Python.

Since 3.13 `asyncio.Server` has `close_clients` and `abort_clients`. On 3.11 and 3.12
servers of our loop get both from here.

Its one rule: only the class of a server changes; what asyncio has made of it stays.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, cast

from fdmux.hosts.asyncio.private import Server as PlainServer
from fdmux.hosts.asyncio.transport import StreamTransport

if TYPE_CHECKING:
    from fdmux.hosts.asyncio.private import SelectorEventLoop

KNOWS_CLIENTS = hasattr(asyncio.Server, "close_clients")


class Server(PlainServer):
    """A server that knows the transports of its clients.

    They are held weakly, so that abandoned transports are found as before. Those of
    ours are found by way of the loop.
    """

    _clients: weakref.WeakSet[asyncio.Transport]

    def _all_clients(self) -> list[asyncio.Transport]:
        loop = cast("SelectorEventLoop", self.get_loop())
        transports = list(loop._transports.values())  # noqa: SLF001 - see private.py
        ours = {transport for transport in transports if is_client(transport, self)}
        return [*ours, *(set(self._clients) - ours)]

    def close_clients(self) -> None:
        """Close the transports of all clients; what is queued is sent first."""
        for transport in self._all_clients():
            transport.close()

    def abort_clients(self) -> None:
        """Close the transports of all clients at once; what is queued is lost."""
        for transport in self._all_clients():
            transport.abort()


async def know_clients(server: PlainServer, *, start_serving: bool) -> PlainServer:
    """Give a server that does not serve yet the methods of 3.13; then let it serve."""
    if type(server) is asyncio.Server:
        server.__class__ = Server
        server._clients = weakref.WeakSet()  # noqa: SLF001 - ours, see above
    if start_serving:
        await server.start_serving()
    return server


def is_client(transport: asyncio.Transport, server: PlainServer) -> bool:
    """Whether ``server`` has accepted ``transport``, one of ours, which is open."""
    return isinstance(transport, StreamTransport) and transport._server is server  # noqa: SLF001 - ours


def note_client(server: PlainServer | None, transport: asyncio.Transport) -> None:
    """Let ``server``, if it is one of ours, know a client the loop does not list."""
    if isinstance(server, Server):
        server._clients.add(transport)  # noqa: SLF001 - ours
