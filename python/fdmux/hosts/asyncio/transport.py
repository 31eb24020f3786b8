"""A transport of asyncio whose connection is a stream of the C core.

Its one rule: it keeps every promise of asyncio's own transport, down to the exceptions
and their messages. The transport owns the socket, which C borrows; C owns the bytes
that the kernel does not take at once. reading.py and writing.py have the two
directions; this file opens and closes.

asyncio reads some names with an underscore that are not read here: sslproto.py and the
`sendfile` of loops use them on any transport.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import socket
import warnings
import weakref
from asyncio import trsock
from typing import TYPE_CHECKING

from fdmux._ffi import lib
from fdmux._native import check
from fdmux.errnos import errno_from_c, text_of
from fdmux.hosts.asyncio.private import SENDFILE_MODE, SERVER_ARGUMENTS
from fdmux.hosts.asyncio.reading import ReadingTransport

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Protocol, Self

    from fdmux._delivery import Delivery
    from fdmux.hosts.asyncio.private import SelectorEventLoop, Server

    class Warn(Protocol):
        """`warnings.warn`, kept as a default for the end of the interpreter."""

        def __call__(
            self, message: str, category: type[Warning], *, source: object
        ) -> None:
            """Warn."""


logger = logging.getLogger("asyncio")

CLOSED = lib.FDMUX_STREAM_CLOSED
END = lib.FDMUX_STREAM_END
LOST = 100  # as DELIVERY_LOST in csrc/python/delivery.h
INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})


class TransportSocket(trsock.TransportSocket):
    """The socket of ``get_extra_info("socket")``; its `shutdown` loses no bytes."""

    __slots__ = ("_transport",)

    def __init__(self, sock: socket.socket, transport: StreamTransport) -> None:
        self._sock = sock  # as the base class does
        self._transport = weakref.ref(transport)

    def shutdown(self, how: int) -> None:
        """Shut down; the writing side only after all queued bytes are sent."""
        transport = self._transport()
        if (
            how != socket.SHUT_RD
            and transport is not None
            and transport.get_write_buffer_size()
        ):
            transport._shutdown_stream()  # noqa: SLF001 - ours
            if how == socket.SHUT_WR:
                return
            how = socket.SHUT_RD
        super().shutdown(how)


class StreamTransport(ReadingTransport):
    """The transport that `EventLoop.create_server`, `create_connection` etc. make.

    Args:
        sock: The socket. The transport owns it from now on.
        given: The socket that the caller passed, if ``sock`` is a duplicate of it. The
            caller may close it at any time; otherwise the transport closes it too.
    """

    # Slots, since every message reads some of these. Programs that set attributes of
    # their own use the dictionary, which is empty otherwise.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_given",
        "_options",
        "_sending_file",
        "_server",
        "_sock",
        "_sock_fd",
    )

    _start_tls_compatible = True
    _sendfile_compatible = SENDFILE_MODE

    def __init__(  # noqa: PLR0913, PLR0917 - made in one place
        self,
        loop: SelectorEventLoop,
        streams: Delivery,
        options: bytes,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        extra: dict[str, object] | None,
        given: socket.socket | None = None,
    ) -> None:
        self._sock: socket.socket | None = (
            None  # set last, when nothing can fail any more
        )
        self._bind_stream(streams, None)
        super().__init__(loop, protocol, extra)
        self._options = options
        self._describe(sock)
        self._sock_fd = sock.fileno()
        self._server: Server | None = None
        self._given = given
        self._sending_file: asyncio.Future[None] | None = None
        set_no_delay(sock)
        self._sock = sock

    @classmethod
    def accepted(
        cls,
        loop: SelectorEventLoop,
        streams: Delivery,
        options: bytes,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        names: tuple[object, object],
    ) -> Self:
        """Make the transport of a client: all that ``__init__`` does, in one call.

        Args:
            names: The address of the peer, and our own.
        """
        self = cls.__new__(cls)
        self._sock = None
        self._bind_stream(streams, None)
        self._loop = loop
        self._eof = self._is_begun = False
        self._empty_waiter = self._server = self._given = self._sending_file = None
        self._context = contextvars.copy_context()
        self._protocol = protocol
        self._protocol_connected = True
        self._options = options
        peername, sockname = names
        self._extra = {
            "peername": peername,
            "socket": TransportSocket(sock, self),
            "sockname": sockname,
        }
        self._sock_fd = sock.fileno()
        self._sock = sock
        return self

    def begin(self, server: Server | None, waiter: asyncio.Future[None] | None) -> None:
        """Schedule `connection_made`, and after it the end of ``waiter``."""
        connection_made = self._protocol.connection_made  # raises for no protocol
        self.register(server)
        self._loop.call_soon(self._begin, connection_made)
        if waiter is not None:
            self._loop.call_soon(set_unless_cancelled, waiter)

    def register(self, server: Server | None) -> None:
        """Let the loop and the server know of the transport."""
        loop = self._loop
        if server is not None:
            server._attach(*(self,) * SERVER_ARGUMENTS)  # noqa: SLF001 - see private.py
        self._server = server
        transports = loop._transports.data  # noqa: SLF001 - the same
        # Without the callback that would remove it: the next transport takes its place.
        transports[self._sock_fd] = weakref.ref(self)
        if self._given is not None:
            transports[self._given.fileno()] = transports[self._sock_fd]

    def is_at(self, fd: int) -> bool:
        """Whether ``fd`` still is a descriptor of this transport."""
        given = self._given
        return fd == self._sock_fd or (given is not None and given.fileno() == fd)

    def _describe(self, sock: socket.socket) -> None:
        extra = self._extra
        extra["socket"] = TransportSocket(sock, self)
        try:
            extra["sockname"] = sock.getsockname()
        except OSError:
            extra["sockname"] = None
        if "peername" not in extra:
            try:
                extra["peername"] = sock.getpeername()
            except OSError:
                extra["peername"] = None

    def __repr__(self) -> str:
        info = [type(self).__name__]
        if self._sock is None:
            info.append("closed")
        elif self._closing:
            info.append("closing")
        info.append(f"fd={self._sock_fd}")
        if self._loop is not None and not self._loop.is_closed():
            info.append("read=polling" if self._is_polling() else "read=idle")
            size = self.get_write_buffer_size()
            state = "polling" if size else "idle"
            info.append(f"write=<{state}, bufsize={size}>")
        return f"<{' '.join(info)}>"

    def _is_polling(self) -> bool:
        return self._is_begun and self.is_reading()

    def __del__(self, _warn: Warn = warnings.warn) -> None:
        sock: socket.socket | None = getattr(self, "_sock", None)
        if sock is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._give_back()
            self._close_socket()
            self._leave_server()

    # Beginning ---------------------------------------------------------------------

    def _begin(self, connection_made: Callable[[asyncio.Transport], object]) -> None:
        """Call `connection_made`, then start to receive."""
        if not self._closing:
            self._open()
        try:
            connection_made(self)
        finally:
            self._is_begun = True
            self._context = contextvars.copy_context()
            self._bind()

    def _open(self) -> None:
        """Make the C stream, or end the connection."""
        try:
            self._open_or_raise()
        except Exception as error:  # noqa: BLE001 - ends this connection
            self._fatal_error(error, "Fatal error on transport")

    def _open_or_raise(self) -> None:
        """Make the C stream that borrows the socket, unless it exists."""
        if self._token:
            return
        result = self._open_stream("add", self._sock_fd, self._options)
        if result < 0:
            check(result, f"make a stream of fd {self._sock_fd}")
        if self._paused:
            self._pause_stream()

    # Events from C -----------------------------------------------------------------

    def _event(self, kind: int, detail: int) -> None:
        """Handle the end of a direction, or of the connection; called from C."""
        if self._conn_lost:
            return
        if kind == END:
            self._take_end()
        elif kind in (CLOSED, LOST):
            code = errno_from_c(detail)
            error = OSError(code, text_of(code))
            self._fatal_error(error, "Fatal error on socket transport")

    # The end -----------------------------------------------------------------------

    def close(self) -> None:
        """Send all queued bytes, then close; `connection_lost` follows. Idempotent."""
        if self._closing:
            return
        self._check_thread("close")
        self._closing = True
        self._bind()
        self._pause_stream()
        # This sends what is gathered; a send that fails ends the transport itself.
        if not self.get_write_buffer_size() and not self._conn_lost:
            self._lose(None)

    def abort(self) -> None:
        """Close now, and drop the queued bytes; `connection_lost` follows."""
        self._force_close(None)

    def _fatal_error(
        self, exc: BaseException, message: str = "Fatal error on transport"
    ) -> None:
        """Report the error that ends the connection, and end it."""
        if isinstance(exc, OSError):
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=exc)
        else:
            self._loop.call_exception_handler(
                {
                    "message": message,
                    "exception": exc,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
        self._force_close(exc)
        if self._empty_waiter is not None and not self._empty_waiter.done():
            self._empty_waiter.set_exception(exc)

    def _force_close(self, exc: BaseException | None) -> None:
        if self._conn_lost:
            return
        self._check_thread("abort")
        self._flush()  # sends what the kernel takes
        if self._conn_lost:  # that send has failed
            return
        self._closing = True
        self._bind()
        self._lose(exc)

    def _lose(self, exc: BaseException | None) -> None:
        self._conn_lost += 1
        self._can_write = False
        self._pause_stream()
        if self._sending_file is not None:
            self._end_sendfile(exc)
        self._loop.call_soon(self._call_connection_lost, exc)

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        try:
            if self._protocol_connected:
                self._protocol.connection_lost(exc)  # type: ignore[arg-type] # as asyncio
        finally:
            self._give_back()
            self._close_socket()
            if self._server is not None:
                self._leave_server()
            # As in asyncio: later calls fail, and no cycle is left.
            self._protocol = None  # type: ignore[assignment] # not used any more
            self._loop = None  # type: ignore[assignment] # the same
            if self._empty_waiter is not None and not self._empty_waiter.done():
                self._empty_waiter.set_exception(
                    ConnectionError("Connection is closed by peer")
                )

    def _give_back(self) -> None:
        """Take the socket back from C, which drops the queued bytes."""
        self._context = self._on_data = None
        self._abort_stream()

    def _close_socket(self) -> None:
        sock, given = self._sock, self._given
        self._sock = self._given = None
        if sock is not None:
            sock.close()
        if given is not None:
            given.close()

    # sendfile ----------------------------------------------------------------------

    def begin_sendfile(self) -> asyncio.Future[None]:
        """Return a future that fails if the connection is lost meanwhile."""
        self._sending_file = self._loop.create_future()
        return self._sending_file

    def end_sendfile(self) -> None:
        """Undo `begin_sendfile`."""
        self._sending_file = None

    def _end_sendfile(self, exc: BaseException | None) -> None:
        """End a `sendfile` under way, as the descriptor is about to be closed."""
        waiter, self._sending_file = self._sending_file, None
        if waiter is None or waiter.done():
            return
        self._loop._remove_writer(self._sock_fd)  # noqa: SLF001 - see private.py
        waiter.set_exception(exc or ConnectionAbortedError("Connection was closed"))
        waiter.exception()  # retrieved: the sender may not wait any more

    def _leave_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server._detach(*(self,) * SERVER_ARGUMENTS)  # noqa: SLF001 - as above


def set_no_delay(sock: socket.socket) -> None:
    """Set TCP_NODELAY, as asyncio does."""
    if sock.family in INTERNET and sock.proto == socket.IPPROTO_TCP:
        with contextlib.suppress(OSError):  # the peer has reset it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def set_unless_cancelled(waiter: asyncio.Future[None]) -> None:
    """End the wait for a new transport."""
    if not waiter.cancelled():
        waiter.set_result(None)
