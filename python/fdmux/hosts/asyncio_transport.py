"""A transport of asyncio whose connection is a stream of the C core.

Its one rule: whatever asyncio's own transport promises holds here, to the exception and
its message. It keeps the socket, which C only borrows; C keeps the bytes that the
kernel does not take at once. How transports take turns is asyncio_streams.py; the two
sides are asyncio_reading.py and asyncio_writing.py, and here are birth and end.

Names with an underscore that nothing here reads are read by asyncio: sslproto.py and
the `sendfile` of its loops use them on any transport.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import socket
import warnings
from asyncio import trsock
from typing import TYPE_CHECKING, cast

from fdmux._ffi import ffi, lib
from fdmux._native import check
from fdmux.hosts.asyncio_private import SENDFILE_MODE, SERVER_ARGUMENTS
from fdmux.hosts.asyncio_reading import ReadingTransport
from fdmux.hosts.asyncio_streams import NOBODY
from fdmux.hosts.asyncio_writing import NO_ROOM, NO_TOKEN, SEND

if TYPE_CHECKING:
    import asyncio
    from typing import Protocol

    from fdmux.hosts.asyncio_private import SelectorEventLoop, Server
    from fdmux.hosts.asyncio_streams import StreamBatch

    class Warn(Protocol):
        """`warnings.warn`, which is gone when the interpreter ends."""

        def __call__(
            self, message: str, category: type[Warning], *, source: object
        ) -> None:
            """Warn."""


logger = logging.getLogger("asyncio")

CLOSED = lib.FDMUX_STREAM_CLOSED
END = lib.FDMUX_STREAM_END
SLOT_MASK = (1 << 28) - 1
INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})


class StreamTransport(ReadingTransport):
    """What `EventLoop.create_server`, `create_connection` and the like make."""

    # All in slots, since every message looks at some; whoever adds attributes of their
    # own gets the dictionary that is empty otherwise.
    __slots__ = ("__dict__", "__weakref__", "_server", "_sock", "_sock_fd")

    _start_tls_compatible = True
    _sendfile_compatible = SENDFILE_MODE

    def __init__(
        self,
        loop: SelectorEventLoop,
        streams: StreamBatch,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        extra: dict[str, object] | None,
    ) -> None:
        super().__init__(loop, streams, protocol, extra)
        self._describe(sock)
        self._sock: socket.socket | None = sock
        self._sock_fd = sock.fileno()
        self._server: Server | None = None

    def begin(self, server: Server | None, waiter: asyncio.Future[None] | None) -> None:
        """Let `connection_made` be called soon; and then ``waiter`` be done."""
        loop = self._loop
        self._server = server
        if server is not None:
            server._attach(*(self,) * SERVER_ARGUMENTS)  # noqa: SLF001 - see asyncio_private.py
        loop._transports[self._sock_fd] = self  # noqa: SLF001 - the same
        if self._sock is not None:
            set_no_delay(self._sock)
        loop.call_soon(self._begin)
        if waiter is not None:
            loop.call_soon(set_unless_cancelled, waiter)

    def _describe(self, sock: socket.socket) -> None:
        extra = self._extra
        extra["socket"] = trsock.TransportSocket(sock)
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
            sock.close()
            self._leave_server()

    # Birth -------------------------------------------------------------------------

    def _begin(self) -> None:
        """Call `connection_made`, then let data come."""
        if not self._closing:
            self._open()
        try:
            self._protocol.connection_made(self)
        finally:
            self._is_begun = True
            self._context = contextvars.copy_context()
            self._bind()

    def _open(self) -> None:
        """Lend the socket to C, unless that is done."""
        if self._token:
            return
        streams = self._streams
        token = ffi.new("uint64_t *")
        try:
            result = lib.fdmux_py_stream_lend(
                streams.c_loop, self._sock_fd, streams.options, token
            )
            check(result, f"make a stream of fd {self._sock_fd}")
        except Exception as error:  # noqa: BLE001 - ends this connection
            self._fatal_error(error, "Fatal error on transport")
            return
        self._token = token[0]
        self._slot = self._token & SLOT_MASK
        self._send_word = SEND | self._slot
        streams.adopt(self._slot, self)
        self._grant(self._high_water)
        if self._paused:
            lib.fdmux_stream_pause(streams.c_loop, self._token)

    # What C tells ------------------------------------------------------------------

    def event(self, kind: int, code: int) -> None:
        """Take a record that is not data; called by the batch."""
        self._context.run(self._event, kind, code)

    def _event(self, kind: int, code: int) -> None:
        if kind == CLOSED:
            self._token = NO_TOKEN
            self._grant(NO_ROOM)
            if not self._conn_lost:
                error = OSError(code, os.strerror(code))
                self._fatal_error(error, "Fatal error on socket transport")
        elif self._conn_lost:
            return
        elif kind == END:
            self._take_end()
        else:
            self._sent_some()

    # The end -----------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether the connection is closed, or was asked to."""
        return self._closing

    def close(self) -> None:
        """Send what was written, then close; `connection_lost` follows. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self._bind()
        if self.get_write_buffer_size():
            lib.fdmux_stream_pause(self._streams.c_loop, self._token)
            self._grant(NO_ROOM)
            return
        self._lose(None)

    def abort(self) -> None:
        """Close at once, and drop what was not sent; `connection_lost` follows."""
        self._force_close(None)

    def _fatal_error(
        self, exc: BaseException, message: str = "Fatal error on transport"
    ) -> None:
        """Report what ends the connection, and end it."""
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
        self._streams.settle()  # written before: sent as far as the kernel takes it
        self._closing = True
        self._bind()
        self._lose(exc)

    def _lose(self, exc: BaseException | None) -> None:
        self._conn_lost += 1
        self._grant(NO_ROOM)
        self._loop.call_soon(self._call_connection_lost, exc)

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        try:
            if self._protocol_connected:
                self._protocol.connection_lost(cast("Exception | None", exc))
        finally:
            self._give_back()
            sock, self._sock = self._sock, None
            if sock is not None:
                sock.close()
            self._leave_server()
            # As asyncio's own: what uses it now fails, and there is no cycle.
            self._protocol = None  # type: ignore[assignment] # the last there is
            self._loop = None  # type: ignore[assignment] # the same
            if self._empty_waiter is not None and not self._empty_waiter.done():
                self._empty_waiter.set_exception(
                    ConnectionError("Connection is closed by peer")
                )

    def _give_back(self) -> None:
        """Take the socket back from C; what is queued is dropped."""
        token, self._token = self._token, NO_TOKEN
        self._held.clear()
        if not token:
            return
        streams = self._streams
        streams.adopt(self._slot, NOBODY)
        lib.fdmux_py_stream_give_back(streams.c_loop, token)

    def _leave_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server._detach(*(self,) * SERVER_ARGUMENTS)  # noqa: SLF001 - as above


def set_no_delay(sock: socket.socket) -> None:
    """Let small messages of TCP leave at once."""
    if sock.family in INTERNET and sock.proto == socket.IPPROTO_TCP:
        with contextlib.suppress(OSError):  # reset meanwhile
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def set_unless_cancelled(waiter: asyncio.Future[None]) -> None:
    """Wake whoever waits for the transport."""
    if not waiter.cancelled():
        waiter.set_result(None)
