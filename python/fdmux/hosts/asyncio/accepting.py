"""How our asyncio loop accepts: without a task, a future and a failing call for each.

asyncio makes a task for each connection, which makes the protocol and the transport and
then waits until that has begun. Transports of ours need no such task: they report what
goes wrong themselves. In debug mode, and wherever a program has replaced a part,
asyncio's own code runs.

Its one rule: what a protocol sees is what it sees of asyncio.
"""

from __future__ import annotations

import contextvars
import os
import socket
import sys
from typing import TYPE_CHECKING

from fdmux import _delivery
from fdmux.hosts.asyncio.observed import ObservedLoop
from fdmux.hosts.asyncio.private import HAS_TRANSPORTS, LoopBase, SelectorEventLoop
from fdmux.hosts.asyncio.selector import StreamSelector
from fdmux.hosts.asyncio.tls import SSLTransport, checked_timeouts, new_session
from fdmux.hosts.asyncio.transport import StreamTransport

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Callable

    from fdmux.hosts.asyncio.private import Server

    Factory = Callable[[], asyncio.BaseProtocol]
    Accepted = tuple[int, int, object, object]

CAN_SERVE = HAS_TRANSPORTS

# What asyncio calls for a connection that it has accepted. If a loop has its own, it is
# called: of its class, `note_accepting` tells; of the object, its dictionary.
ACCEPTING = frozenset(
    {
        "_accept_connection2",
        "_make_socket_transport",
        "_make_ssl_transport",
        "create_task",
        "transport_type",
    }
)
ACCEPT = socket.socket.accept
# The types without the enum that the module socket makes of them each time.
TYPE_OF = socket.SocketType.type.__get__
DEFAULT_TIMEOUTS = checked_timeouts(None, None)


class AcceptingLoop(LoopBase, ObservedLoop, SelectorEventLoop):
    """The part of `EventLoop` that accepts connections for servers."""

    _has_own_accepting: bool = True

    def note_accepting(self, standard: type[AcceptingLoop]) -> None:
        """Compare the methods of this loop with those of ``standard``, `EventLoop`."""
        kind = type(self)
        self._has_own_accepting = not CAN_SERVE or any(
            getattr(kind, name) is not getattr(standard, name) for name in ACCEPTING
        )

    def _accept_connection(
        self,
        protocol_factory: Factory,
        sock: socket.socket,
        sslcontext: ssl.SSLContext | None = None,
        server: Server | None = None,
        backlog: int = 100,
        *timeouts: float | None,
        **more: object,
    ) -> None:
        """Accept what has come, up to ``backlog`` connections."""
        if more or not self._accepts_for(sock, sslcontext, timeouts):
            super()._accept_connection(
                protocol_factory, sock, sslcontext, server, backlog, *timeouts, **more
            )
            return
        fd, proto, begin = sock.fileno(), sock.proto, self._begin_accepted
        seconds = checked_timeouts(*timeouts) if timeouts else DEFAULT_TIMEOUTS
        for _ in range(backlog):
            try:
                accepted = _delivery.accept(fd)
            except OSError:  # asyncio gets the same error, and deals with it
                super()._accept_connection(
                    protocol_factory, sock, sslcontext, server, backlog, *timeouts
                )
                return
            if accepted is None:
                return
            # As a task does: what a factory sets is for this connection.
            context = contextvars.copy_context()
            context.run(
                begin, accepted, proto, protocol_factory, sslcontext, server, seconds
            )
            if sock.fileno() != fd:  # closed meanwhile; the number may be another's
                return

    def _accepts_for(
        self,
        sock: socket.socket,
        sslcontext: ssl.SSLContext | None,
        timeouts: tuple[float | None, ...],
    ) -> bool:
        return (
            not self._debug
            and not self._has_own_accepting
            and self._task_factory is None
            and ACCEPTING.isdisjoint(self.__dict__)
            and type(sock) is socket.socket
            and socket.socket.accept is ACCEPT
            and TYPE_OF(sock) == socket.SOCK_STREAM
            and isinstance(self._selector, StreamSelector)
            and (
                not sslcontext or isinstance(sslcontext, sys.modules["ssl"].SSLContext)
            )
            and (not timeouts or are_timeouts(*timeouts))
        )

    def _begin_accepted(
        self,
        accepted: Accepted,
        proto: int,
        protocol_factory: Factory,
        sslcontext: ssl.SSLContext | None,
        server: Server | None,
        timeouts: tuple[float, float],
    ) -> None:
        """Make the protocol and the transport of a connection.

        What fails ends the connection. asyncio tells nobody, but in debug mode.
        """
        sock = take_socket(accepted, proto)
        try:
            protocol = protocol_factory()
            selector: StreamSelector = self._selector  # type: ignore[assignment] # `_accepts_for` has looked
            streams = selector.streams or selector.serve(self)
            names = accepted[2:] if accepted[2] is not None else ask_names(sock)
            parts = (self, streams, selector.options, sock, protocol, names)
            self._note_accepted(server)
            if sslcontext:
                session = new_session(sslcontext, True, None, None, timeouts)
                SSLTransport.accepted(*parts).begin_tls(server, session, sslcontext)
            else:
                StreamTransport.accepted(*parts).begin(server, None)
        except (SystemExit, KeyboardInterrupt):
            sock.close()
            raise
        except BaseException:  # noqa: BLE001 - as said above
            sock.close()

    async def shutdown_asyncgens(self) -> None:
        """End generators, and connections whose handshake no task has begun or ends.

        `asyncio.run` cancels the tasks of such connections, where there are some.
        """
        for transport in list(self._transports.values()):
            if isinstance(transport, SSLTransport):
                transport.end_handshake_of_client()
        await super().shutdown_asyncgens()


def take_socket(accepted: Accepted, proto: int) -> socket.socket:
    """Make the socket of a connection, whose descriptor it owns."""
    try:
        sock = socket.socket(accepted[1], socket.SOCK_STREAM, proto, accepted[0])
    except BaseException:
        os.close(accepted[0])
        raise
    sock.setblocking(False)  # C has done so; this tells the object
    return sock


def are_timeouts(*values: object) -> bool:
    """Whether asyncio takes these for the handshake and the shutdown."""
    return len(values) == 2 and all(
        value is None or (isinstance(value, (int, float)) and value > 0)
        for value in values
    )


def ask_names(sock: socket.socket) -> tuple[object, object]:
    """Return the address of the peer, and our own, of a Unix socket."""
    try:
        return sock.getpeername(), sock.getsockname()
    except OSError:
        return None, None
