"""The transport of a connection with TLS: its handshake, and its end.

C encrypts and decrypts (csrc/tls); reading, writing and the limits are those of every
transport. Python's own `ssl.SSLObject` makes the handshake.

Its one rule: it does as asyncio's sslproto, down to the exceptions, so an end without
close_notify is an end like any other. But if the connection ends inside of a record,
bytes are missing, and it is lost with an `ssl.SSLEOFError`.
"""

from __future__ import annotations

import errno
import logging
from asyncio import constants
from typing import TYPE_CHECKING, cast

from fdmux._delivery import TlsSession
from fdmux._ffi import lib
from fdmux._native import check
from fdmux.errnos import errno_from_c, text_of
from fdmux.hosts.asyncio.private import (
    LOST_WRITES_MAX,
    SENDFILE_FALLBACK,
    StreamReader,
    default_context,
)
from fdmux.hosts.asyncio.transport import StreamTransport
from fdmux.streams.tls import session_maker

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Iterable

    from fdmux.hosts.asyncio.private import Server
    from fdmux.hosts.asyncio.writing import Buffer

logger = logging.getLogger("asyncio")

CLOSED = lib.FDMUX_STREAM_CLOSED
END = lib.FDMUX_STREAM_END
HANDSHAKE_DONE = lib.FDMUX_STREAM_TLS
HIGH_WATER = constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE * 1024

# Timers of the loop end the handshake and the shutdown, to the millisecond. So the core
# has no timeout of the first, and its longest of the second: 0 would not wait at all.
NO_HANDSHAKE_MS = 0
SHUTDOWN_MS = (1 << 32) - 1
EOF_ENDS = True  # as in asyncio


class TransportTls(TlsSession):
    """The session of a transport, and what its handshake and its end need."""

    __slots__ = (
        "begun_at",
        "handshake_timeout",
        "has_eof",
        "lost_writes",
        "shutdown_timeout",
        "timer",
        "waiter",
    )

    handshake_timeout: float
    shutdown_timeout: float
    waiter: asyncio.Future[None] | None
    timer: asyncio.TimerHandle | None
    begun_at: float  # of the handshake, in debug mode
    has_eof: bool  # `eof_received` was called
    lost_writes: int  # after `close`

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """The object of Python itself."""
        return self._object  # type: ignore[return-value] # it is one

    def end(self, error: BaseException | None) -> None:
        """Cancel the timer, and let whoever waits for the handshake go on."""
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()
        waiter, self.waiter = self.waiter, None
        if waiter is None or waiter.done():
            return
        if self.is_done and error is None:
            waiter.set_result(None)
        else:
            text = "the transport was closed during the TLS handshake"
            waiter.set_exception(error or ConnectionAbortedError(text))


def make_session(
    sslcontext: ssl.SSLContext | None,
    waiter: asyncio.Future[None] | None,
    names: tuple[bool, str | None],
    timeouts: tuple[float | None, float | None],
) -> tuple[TransportTls, ssl.SSLContext]:
    """Make the session of a connection; returns it with its context.

    Args:
        names: Whether this is the server, and the name that a client expects.
        timeouts: Of the handshake and of the shutdown; ``None``: asyncio's own.

    Raises:
        ValueError: A timeout is not positive, or a server has no context.
        ssl.SSLError: The context cannot be used for this.
    """
    server_side, server_hostname = names
    checked = checked_timeouts(*timeouts)
    context = sslcontext or default_context(server_side, server_hostname)
    name = None if server_side else server_hostname or None
    return new_session(context, server_side, name, waiter, checked), context


def new_session(
    context: ssl.SSLContext,
    server_side: bool,
    server_hostname: str | None,
    waiter: asyncio.Future[None] | None,
    timeouts: tuple[float, float],
) -> TransportTls:
    """Make the session of a connection, of checked arguments."""
    session = session_maker()(
        TransportTls, context, server_side=server_side, server_hostname=server_hostname
    )
    session.handshake_timeout, session.shutdown_timeout = timeouts
    session.waiter = session.timer = None
    session.waiter = waiter
    session.begun_at, session.has_eof, session.lost_writes = 0.0, False, 0
    return session


def checked_timeouts(
    handshake: float | None, shutdown: float | None
) -> tuple[float, float]:
    """Return the timeouts, or asyncio's own for None.

    Raises:
        ValueError: One is not positive.
    """
    return (
        checked("handshake", handshake, constants.SSL_HANDSHAKE_TIMEOUT),
        checked("shutdown", shutdown, constants.SSL_SHUTDOWN_TIMEOUT),
    )


def checked(name: str, timeout: float | None, default: float) -> float:
    """Return a timeout, as asyncio takes it."""
    if timeout is None:
        return default
    if timeout <= 0:
        raise ValueError(
            f"ssl_{name}_timeout should be a positive number, got {timeout}"
        )
    return timeout


def take_buffered(protocol: asyncio.BaseProtocol) -> bytes:
    """Take what a reader has received and nobody has read: it is the peer's handshake.

    The peer may send it together with the last plaintext, or before the answer to it.
    """
    reader: StreamReader | None = getattr(protocol, "_stream_reader", None)
    if not isinstance(reader, StreamReader):
        return b""
    received = bytes(reader._buffer)  # noqa: SLF001 - see private.py
    reader._buffer.clear()  # noqa: SLF001 - the same
    reader._maybe_resume_transport()  # noqa: SLF001 - the same
    return received


class SSLTransport(StreamTransport):
    """The transport of a connection with TLS; as asyncio's, its name has SSL in it.

    One that `start_tls` makes is the transport that it was given: `upgrade` changes its
    class. So writes by way of an old reference to it are encrypted too.
    """

    __slots__ = ()

    _sendfile_compatible = SENDFILE_FALLBACK

    if TYPE_CHECKING:

        @property
        def _tls(self) -> TransportTls: ...

    # Beginning ---------------------------------------------------------------------

    def begin_tls(
        self, server: Server | None, session: TransportTls, context: ssl.SSLContext
    ) -> None:
        """Begin the handshake; `connection_made` follows it."""
        self.register(server)
        self._protocol_connected = False
        self._start(session, context, b"")

    @staticmethod
    def upgrade(
        transport: StreamTransport,
        protocol: asyncio.BaseProtocol,
        session: TransportTls,
        context: ssl.SSLContext,
    ) -> SSLTransport:
        """Encrypt the connection of ``transport`` from now on, for ``protocol``."""
        received = take_buffered(protocol)
        transport.__class__ = SSLTransport
        upgraded = cast("SSLTransport", transport)
        upgraded.set_protocol(protocol)
        upgraded._start(session, context, received)  # noqa: SLF001 - ours
        upgraded.resume_reading()
        return upgraded

    def _start(
        self, session: TransportTls, context: ssl.SSLContext, received: bytes
    ) -> None:
        self._extra["sslcontext"] = context
        self._set_write_buffer_limits(high=HIGH_WATER)
        try:
            self._open_or_raise()
            result = self._start_tls(
                session, received, NO_HANDSHAKE_MS, SHUTDOWN_MS, EOF_ENDS
            )
            if result < 0:
                check(result, f"start TLS on fd {self._sock_fd}")
        except Exception as error:  # noqa: BLE001 - ends this connection
            session.end(error)
            self._fatal_error(error)
            return
        except BaseException:  # leaves the loop; what stays open would be plaintext
            self._force_close(None)
            raise
        loop = self._loop
        if loop.get_debug():
            logger.debug("%r starts SSL handshake", self)
            session.begun_at = loop.time()
        session.timer = loop.call_later(
            session.handshake_timeout, self._end_handshake_late
        )

    def end_handshake_of_client(self) -> None:
        """Close if the handshake of a server's client is not done."""
        session: TransportTls | None = self._tls  # None: it could not even begin
        if session is not None and not session.is_done and self._server is not None:
            self.close()

    def _end_handshake_late(self) -> None:
        text = (
            f"SSL handshake is taking longer than {self._tls.handshake_timeout} "
            "seconds: aborting the connection"
        )
        self._fatal_error(ConnectionAbortedError(text))

    def _finish_handshake(self) -> None:
        """Tell the protocol, if it does not know, and whoever waits."""
        session, loop = self._tls, self._loop
        if loop.get_debug():
            milliseconds = (loop.time() - session.begun_at) * 1e3
            logger.debug("%r: SSL handshake took %.1f ms", self, milliseconds)
        extra = self._extra
        extra["ssl_object"] = sslobject = session.ssl_object
        extra["peercert"] = sslobject.getpeercert()
        extra["cipher"] = sslobject.cipher()
        extra["compression"] = sslobject.compression()
        self._is_begun = True
        self._bind()
        if not self._protocol_connected:
            self._protocol_connected = True
            self._protocol.connection_made(self)
        if not self._conn_lost:
            session.end(None)

    # Events from C -----------------------------------------------------------------

    def _event(self, kind: int, detail: int) -> None:
        """Handle the handshake, the end of the peer, or of the connection."""
        if self._conn_lost:
            return
        if kind == HANDSHAKE_DONE:
            self._finish_handshake()
        elif kind == END:
            self._call_eof_received()
            self._close_after_peer()
        elif kind == CLOSED:
            self._take_closed(detail)

    def _take_closed(self, code: int) -> None:
        """The core has closed the stream: after `close`, or because of an error."""
        if code == 0:
            if not self._tls.has_eof:
                self._call_eof_received()
            if not self._conn_lost:
                self._lose(None)
            return
        error = self._error_of(code)
        if self._tls.is_done:
            self._fatal_error(error, "Fatal error on SSL protocol")
        else:
            self._fatal_error(error, "SSL handshake failed")

    def _error_of(self, code: int) -> BaseException:
        """Return the exception for the errno with which C has closed the stream."""
        import ssl  # noqa: PLC0415 - as above

        code = errno_from_c(code)
        session = self._tls
        error, session._error = session._error, None  # noqa: SLF001 - ours
        if error is not None:
            return error
        if code == errno.ECONNABORTED and not session.is_done:
            return ConnectionResetError()
        if code == errno.ECONNABORTED:
            text = "EOF occurred in violation of protocol"
            return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, text)
        if code == errno.EPROTO:
            return ssl.SSLError(ssl.SSL_ERROR_SSL, "TLS has failed")
        return OSError(code, text_of(code))

    def _call_eof_received(self) -> None:
        """Call `eof_received`, once; what it returns has no effect."""
        session = self._tls
        if session.has_eof:
            return
        session.has_eof = True
        try:
            keep_open = self._protocol.eof_received()  # type: ignore[attr-defined] # a Protocol
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - ends this connection
            self._fatal_error(error, "Error calling eof_received()")
            return
        if keep_open:
            logger.warning(
                "returning true from eof_received() has no effect when using ssl"
            )

    def _callback_failed(self, error: BaseException, what: str) -> None:
        del what
        self._fatal_error(error, "Fatal error on SSL protocol")

    # Writing -----------------------------------------------------------------------

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Set the limits of the queue, whose default is larger than without TLS."""
        if high is None and low is None:
            high = HIGH_WATER
        super().set_write_buffer_limits(high, low)

    def _write_slowly(self, data: Buffer) -> None:
        """Write where C has refused: raise, or count, since the connection is over."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            kind = type(data).__name__
            raise TypeError(f"data: expecting a bytes-like instance, got {kind}")
        if not data:
            return
        session = cast("TransportTls | None", self._tls)
        if session is None:
            return  # it could not even begin
        if session.lost_writes >= LOST_WRITES_MAX:
            logger.warning("SSL connection is closed")
        session.lost_writes += 1

    def _writelines_slowly(self, list_of_data: Iterable[Buffer]) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Raise NotImplementedError: with TLS, both directions end together."""
        raise NotImplementedError

    def can_write_eof(self) -> bool:
        """Return False."""
        return False

    def _drained(self) -> None:
        """Do nothing: CLOSED follows once all is sent."""

    # The end -----------------------------------------------------------------------

    def close(self) -> None:
        """Send all queued bytes and close_notify, and wait for the peer's. Idempotent.

        During the handshake, close at once.
        """
        if self._closing:
            return
        self._check_thread("close")
        session = self._tls
        if not session.is_done:
            self._force_close(None)
            return
        self._begin_shutdown(session)
        session.timer = self._loop.call_later(
            session.shutdown_timeout, self._end_shutdown_late
        )

    def _begin_shutdown(self, session: TransportTls) -> None:
        if session.timer is not None:
            session.end(None)
        self._closing = True
        self._on_data = None
        self._close_stream()

    def _close_after_peer(self) -> None:
        """Close. CLOSED follows at once, unless the kernel does not take the rest."""
        if self._closing:
            return
        session = self._tls
        self._begin_shutdown(session)
        if self.get_write_buffer_size():
            session.timer = self._loop.call_later(
                session.shutdown_timeout, self._end_shutdown_late
            )

    def _end_shutdown_late(self) -> None:
        self._force_close(TimeoutError("SSL shutdown timed out"))

    def _lose(self, exc: BaseException | None) -> None:
        session: TransportTls | None = self._tls
        if session is not None:
            if session.timer is not None or session.waiter is not None:
                session.end(exc)
            self._abort_stream()  # so C is done with the session by `connection_lost`
        super()._lose(exc)
