"""EventLoop: the loop of asyncio on the C core, and how such a loop is ended.

Its one rule: it overrides only the methods that make transports and servers. If asyncio
calls one with arguments that 3.11 to 3.13 do not use, asyncio's method runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import weakref
from typing import IO, TYPE_CHECKING, TypeGuard, TypeVar, cast

from fdmux.checks import check_selector
from fdmux.hosts.asyncio.accepting import CAN_SERVE, AcceptingLoop
from fdmux.hosts.asyncio.datagrams import DatagramTransport
from fdmux.hosts.asyncio.private import (
    HAS_DATAGRAMS,
    HAS_ITERATION,
    LoopBase,
    SelectorEventLoop,
    Server,
    has_ssl,
)
from fdmux.hosts.asyncio.selector import StreamSelector
from fdmux.hosts.asyncio.sendfile import send_blocks
from fdmux.hosts.asyncio.server import KNOWS_CLIENTS, know_clients, note_client
from fdmux.hosts.asyncio.tls import SSLTransport, checked_timeouts, make_session
from fdmux.hosts.asyncio.transport import StreamTransport

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from selectors import BaseSelector

    from fdmux.hosts.asyncio.private import ProtocolT

TransportT = TypeVar("TransportT", bound=StreamTransport)

# The methods that asyncio's own transports call. If a subclass of socket overrides one,
# C must not bypass it.
STREAM_METHODS = ("recv", "recv_into", "send", "sendmsg")
DATAGRAM_METHODS = ("recvfrom", "send", "sendto")


class EventLoop(AcceptingLoop):
    """The event loop of asyncio, on the C core.

    >>> with asyncio.Runner(loop_factory=EventLoop) as runner:
    ...     runner.run(main())

    Native watchers, timers and posted calls run inside `select`, without the GIL.
    Connections of `create_server`, `create_connection`, `create_unix_server`,
    `create_unix_connection` and `connect_accepted_socket`, and so asyncio's streams,
    have transports in C, which make one call into Python for each message.

    Args:
        selector: The selector to wait with. ``None`` makes a `StreamSelector`; with any
            other kind of selector, the transports are asyncio's own.

    Raises:
        TypeError: ``selector`` is no `selectors.BaseSelector`.

    Threads: As in asyncio.
    Fork: A forked child makes a new loop. It can drop the parent's without effect.
    """

    # The class of the transports of connections.
    transport_type: type[StreamTransport] = StreamTransport

    def __init__(self, selector: BaseSelector | None = None) -> None:
        check_selector(selector)
        self._shared_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        super().__init__(StreamSelector() if selector is None else selector)
        self._pid = os.getpid()
        if HAS_ITERATION:
            self._note_overridden()
            waits = self._selector
            if (
                isinstance(waits, StreamSelector)
                and type(waits).select is StreamSelector.select
            ):
                waits.wait_for(self)

    def _note_overridden(self) -> None:
        """Tell C which of the methods that it would call itself a class has."""
        kind = type(self)
        if kind.call_at is not LoopBase.call_at:
            self._has_own_call_at = True
        if kind._process_events is not SelectorEventLoop._process_events:  # noqa: SLF001 - see private.py
            self._has_own_events = True
        self.note_accepting(EventLoop)

    def __del__(self, _getpid: Callable[[], int] = os.getpid) -> None:
        pid = getattr(self, "_pid", None)
        if pid == _getpid():
            super().__del__()  # warns if it is open, and closes it
        elif pid is not None and not self.is_closed():
            # A forked child: `close` would change the epoll set of the parent.
            self._ssock.close()
            self._csock.close()

    def __fdmux_loop__(self) -> object:
        """Return the capsule of the native loop, for native code.

        Raises:
            RuntimeError: The loop is closed, or its selector is no `fdmux.Selector`.
        """
        hand_out = getattr(self._selector, "__fdmux_loop__", None)
        if hand_out is None:
            raise RuntimeError(f"{self!r} has no core loop, or no longer")
        return hand_out()

    def run_forever(self) -> None:
        """Run until `stop`; then send what transports have written."""
        self._check_closed()
        self._check_running()
        selector = self._selector
        streams = None
        if CAN_SERVE and isinstance(selector, StreamSelector):
            streams = selector.serve(self)
            streams.enter()
        if HAS_ITERATION:
            self._note_overridden()
            is_own = type(self)._run_once is LoopBase._run_once  # noqa: SLF001 - see private.py
            self._is_repeating = is_own and "_run_once" not in vars(self)
        try:
            super().run_forever()
        finally:
            self._is_repeating = False
            if streams is not None:
                streams.leave()

    def stop(self) -> None:
        """Stop after this iteration, also if C is calling protocols in it."""
        super().stop()
        if isinstance(self._selector, StreamSelector):
            self._selector.end_batch()

    # Before 3.13 asyncio's servers do not know their clients.

    async def create_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        *address: object,
        start_serving: bool = True,
        **options: object,
    ) -> Server:
        """Listen, as asyncio does; the server has what those of 3.13 have."""
        create = super().create_server
        if KNOWS_CLIENTS:
            return await create(
                protocol_factory, *address, start_serving=start_serving, **options
            )
        server = await create(
            protocol_factory, *address, start_serving=False, **options
        )
        return await know_clients(server, start_serving=start_serving)

    async def create_unix_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        *path: object,
        start_serving: bool = True,
        **options: object,
    ) -> Server:
        """Listen, as asyncio does; the server has what those of 3.13 have."""
        create = super().create_unix_server
        if KNOWS_CLIENTS:
            return await create(
                protocol_factory, *path, start_serving=start_serving, **options
            )
        server = await create(protocol_factory, *path, start_serving=False, **options)
        return await know_clients(server, start_serving=start_serving)

    # The caller may close a socket that it has passed: the transport gets a duplicate.

    async def create_connection(
        self,
        protocol_factory: Callable[[], ProtocolT],
        *address: object,
        sock: socket.socket | None = None,
        **options: object,
    ) -> tuple[asyncio.Transport, ProtocolT]:
        """Connect, as asyncio does; the caller may close ``sock`` afterwards."""
        with self._sharing(sock):
            return await super().create_connection(
                protocol_factory, *address, sock=sock, **options
            )

    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], ProtocolT],
        *path: object,
        sock: socket.socket | None = None,
        **options: object,
    ) -> tuple[asyncio.Transport, ProtocolT]:
        """Connect, as asyncio does; the caller may close ``sock`` afterwards."""
        with self._sharing(sock):
            return await super().create_unix_connection(
                protocol_factory, *path, sock=sock, **options
            )

    async def connect_accepted_socket(
        self,
        protocol_factory: Callable[[], ProtocolT],
        sock: socket.socket,
        **options: object,
    ) -> tuple[asyncio.Transport, ProtocolT]:
        """Make a transport of ``sock``, which the caller may close afterwards."""
        with self._sharing(sock):
            return await super().connect_accepted_socket(
                protocol_factory, sock, **options
            )

    @contextlib.contextmanager
    def _sharing(self, sock: socket.socket | None) -> Iterator[None]:
        if not isinstance(sock, socket.socket):
            yield
            return
        self._shared_sockets.add(sock)
        try:
            yield
        finally:
            self._shared_sockets.discard(sock)

    # Methods that asyncio calls. With arguments unknown here, asyncio's own run.

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
        self._note_accepted(server)
        if more or not self._can_carry(sock):
            plain = super()._make_socket_transport(
                sock, protocol, waiter, extra=extra, server=server, **more
            )
            note_client(server, plain)
            return plain
        with self._making(self.transport_type, sock, protocol, extra) as transport:
            transport.begin(server, waiter)
        return transport

    def _make_ssl_transport(  # noqa: PLR0913 - as asyncio calls it
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext | None,
        waiter: asyncio.Future[None] | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, object] | None = None,
        server: Server | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        **more: object,
    ) -> asyncio.Transport:
        self._note_accepted(server)
        timeouts = (ssl_handshake_timeout, ssl_shutdown_timeout)
        if more or not (has_ssl() and self._can_carry(rawsock)):
            encrypted = super()._make_ssl_transport(
                rawsock,
                protocol,
                sslcontext,
                waiter,
                server_side=server_side,
                server_hostname=server_hostname,
                extra=extra,
                server=server,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
                **more,
            )
            note_client(server, encrypted)
            return encrypted
        names = (server_side, server_hostname)
        try:
            session, context = make_session(sslcontext, waiter, names, timeouts)
        except OSError:  # of ssl; asyncio has a transport by now, which ends
            rawsock.close()
            raise
        with self._making(SSLTransport, rawsock, protocol, extra) as transport:
            transport.begin_tls(server, session, context)
        return transport

    def _can_carry(self, sock: socket.socket) -> bool:
        return (
            CAN_SERVE
            and isinstance(self._selector, StreamSelector)
            and is_plain(sock, socket.SOCK_STREAM, STREAM_METHODS)
        )

    @contextlib.contextmanager
    def _making(
        self,
        kind: type[TransportT],
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        extra: dict[str, object] | None,
    ) -> Iterator[TransportT]:
        """Make a transport, and close its socket if it cannot begin."""
        selector = cast("StreamSelector", self._selector)
        self._forget_stale(sock.fileno())
        self._ensure_fd_no_transport(sock)
        given = sock if sock in self._shared_sockets else None
        own = sock if given is None else sock.dup()
        try:
            streams = selector.serve(self)
            yield kind(self, streams, selector.options, own, protocol, extra, given)
        except BaseException:
            own.close()
            raise

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        address: object = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, object] | None = None,
    ) -> asyncio.DatagramTransport:
        selector = self._selector
        if (
            not HAS_DATAGRAMS
            or not isinstance(selector, StreamSelector)
            or not is_plain(sock, socket.SOCK_DGRAM, DATAGRAM_METHODS)
        ):
            return super()._make_datagram_transport(
                sock, protocol, address, waiter, extra
            )
        streams = selector.serve(self)
        return DatagramTransport(self, streams, sock, protocol, address, waiter, extra)

    def _forget_stale(self, fd: int) -> None:
        """Forget a transport whose descriptor the program has closed itself."""
        transport = self._transports.get(fd)
        if isinstance(transport, StreamTransport) and not transport.is_at(fd):
            del self._transports[fd]

    async def _sendfile_native(
        self, transp: asyncio.Transport, file: IO[bytes], offset: int, count: int
    ) -> int:
        """Send a file through the socket; raises if the connection ends meanwhile."""
        sock = transp._sock if isinstance(transp, StreamTransport) else None  # noqa: SLF001 - ours
        if not isinstance(transp, StreamTransport) or sock is None:
            return await super()._sendfile_native(transp, file, offset, count)
        fd = transp._sock_fd  # noqa: SLF001 - ours
        note_client(transp._server, transp)  # noqa: SLF001 - ours
        del self._transports[fd]
        was_reading = transp.is_reading()
        transp.pause_reading()
        await transp._make_empty_waiter()  # noqa: SLF001 - ours
        lost = transp.begin_sendfile()
        sending = self.create_task(
            self.sock_sendfile(sock, file, offset, count, fallback=False)
        )
        try:
            await asyncio.wait((sending, lost), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                return sending.result()
            lost.result()  # raises
            raise ConnectionAbortedError("Connection was closed")
        finally:
            if not sending.done():
                sending.cancel()
            transp.end_sendfile()
            if transp._loop is not None:  # noqa: SLF001 - ours
                transp._reset_empty_waiter()  # noqa: SLF001 - ours
                if was_reading:
                    transp.resume_reading()
                self._transports[fd] = transp

    async def _sendfile_fallback(
        self,
        transp: asyncio.Transport,
        file: IO[bytes],
        offset: int,
        count: int | None,
    ) -> int:
        """Send a file where the kernel cannot: over TLS."""
        if isinstance(transp, SSLTransport):
            return await send_blocks(transp, file, offset, count)
        return await super()._sendfile_fallback(transp, file, offset, count)

    async def start_tls(  # noqa: PLR0913 - as asyncio has it
        self,
        transport: asyncio.BaseTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        **more: object,
    ) -> asyncio.Transport | None:
        """Encrypt a connection from now on; a transport of ours stays the same object.

        What an `asyncio.StreamReader` has received and not returned yet belongs to the
        handshake. asyncio's own protocol serves other transports, and TLS inside TLS.
        """
        if more or not can_upgrade(transport, sslcontext):
            return await super().start_tls(
                transport,
                protocol,
                sslcontext,
                server_side=server_side,
                server_hostname=server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
                **more,
            )
        if transport.is_closing():
            raise ConnectionAbortedError("start TLS: the transport is closing")
        if transport._empty_waiter is not None:  # noqa: SLF001 - ours
            # The kernel would go on to send the file as plaintext.
            raise RuntimeError("unable to start TLS; sendfile is in progress")
        waiter = self.create_future()
        names = (server_side, server_hostname)
        timeouts = checked_timeouts(ssl_handshake_timeout, ssl_shutdown_timeout)
        try:
            session, context = make_session(sslcontext, waiter, names, timeouts)
        except BaseException as error:
            transport.set_protocol(protocol)
            transport._fatal_error(error, "SSL handshake failed")  # noqa: SLF001 - ours
            raise
        upgraded = SSLTransport.upgrade(transport, protocol, session, context)
        try:
            await waiter
        except BaseException:
            upgraded.close()
            raise
        return upgraded


def can_upgrade(transport: object, sslcontext: object) -> TypeGuard[StreamTransport]:
    """Whether TLS of ours may start on this transport; asyncio decides otherwise."""
    return (
        type(transport) is StreamTransport
        and has_ssl()
        and isinstance(sslcontext, sys.modules["ssl"].SSLContext)
    )


def is_plain(
    sock: object, kind: socket.SocketKind, methods: tuple[str, ...]
) -> TypeGuard[socket.socket]:
    """Whether our transport can carry it: a socket of this type, with its methods."""
    return (
        isinstance(sock, socket.socket)
        and sock.type == kind
        and all(
            getattr(type(sock), name, None) is getattr(socket.socket, name, None)
            for name in methods
        )
    )


def finish(loop: asyncio.AbstractEventLoop) -> None:
    """End tasks, generators and the executor, as `asyncio.run` does at its end."""
    cancel_all_tasks(loop)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())


def cancel_all_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the tasks that are left, and report the exceptions they raise."""
    tasks = asyncio.all_tasks(loop)
    if not tasks:
        return  # gather() without arguments needs a running loop
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
