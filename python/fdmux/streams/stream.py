"""Stream: one buffered connection; StreamHandler: its callbacks.

C receives, calls the handler and sends (csrc/python). This file has what happens once a
connection: how a stream begins, what is known of it, and how it ends.

Its one rule: nothing is called after `on_close`.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from typing import TYPE_CHECKING, Generic, Literal, cast

from fdmux._delivery import Stream as CoreStream
from fdmux._ffi import ffi, lib
from fdmux._native import check
from fdmux.debugging import place_of_caller, state
from fdmux.errnos import errno_from_c, text_of
from fdmux.streams.limits import HANDSHAKE_TIMEOUT, SHUTDOWN_TIMEOUT, c_options
from fdmux.streams.tls import StreamTls, TlsOptions, make_tls

if TYPE_CHECKING:
    # At run time only Python 3.13 has defaults of type variables.
    import ssl
    from typing import Protocol

    from typing_extensions import TypeVar

    from fdmux._delivery import Buffer, Delivery
    from fdmux.checks import Seconds
    from fdmux.streams.address import InetAddress
    from fdmux.streams.limits import StreamLimits
    from fdmux.streams.receive_buffer import ReceiveBuffer

    Kind = Literal["add", "listen", "connect"]
    Taker = tuple[object | None, object]  # a framer, and what takes the data

    class TakesFrames(Protocol):
        """A `FrameHandler`."""

        def frame_error(self, rest: bytes) -> Exception:
            """Return the error for a frame that the framer has refused."""

        def on_frame_error(self, stream: Stream, error: Exception) -> None:
            """Called with that error."""

    # The type of `Stream.data`: a Session in Stream[Session]. Covariant, so that a
    # function which takes any Stream takes this one, and a server any handler.
    Data_co = TypeVar("Data_co", default=object, covariant=True)
else:
    from typing import TypeVar

    Data_co = TypeVar("Data_co", covariant=True)

logger = logging.getLogger(__name__)

PLACE = "place"  # of `Stream._keep`: where it was made; in debug mode alone
FRAMES = "frames"  # of `Stream._keep`: the incomplete frame of a framing in Python

CLOSED = lib.FDMUX_STREAM_CLOSED
CONNECTED = lib.FDMUX_STREAM_CONNECTED
END = lib.FDMUX_STREAM_END
WRITABLE = lib.FDMUX_STREAM_WRITABLE
TLS = lib.FDMUX_STREAM_TLS


class StreamHandler(Generic[Data_co]):
    """Callbacks of streams; override those you need.

    >>> class Shout(StreamHandler):
    ...     def on_data(self, stream, data):
    ...         return data.upper()  # what is returned is written

    One handler may serve any number of streams. An exception in a callback closes its
    stream with that error and is logged. `KeyboardInterrupt` and `SystemExit` are
    raised by ``run`` of the loop; the stream stays open.

    For a type checker, ``StreamHandler[Session]`` is a handler whose streams have a
    ``Session`` as their ``data``.

    Order:   `on_connect` first, then the others as things happen, `on_close` last.
    Threads: The loop's.
    """

    def on_connect(self, stream: Stream[Data_co]) -> None:
        """Called once, when connected; for a server, when accepted.

        If the stream begins with TLS, called when the handshake is done.
        """

    def on_tls(self, stream: Stream[Data_co]) -> None:
        """Called when the handshake of `Stream.start_tls` is done."""

    def on_tls_failed(self, stream: Stream[Data_co], error: Exception) -> None:
        """Called when the handshake of a client of a server fails; by default ignored.

        Called instead of `on_connect` and `on_close`, since strangers cause it.
        """

    def on_data(self, stream: Stream[Data_co], data: bytes) -> Buffer | None:
        """Called with the bytes that have arrived; returns what to write, or None.

        Bytes come in any division: TCP keeps no boundaries of messages. One call for
        each stream and batch, with at most ``receive_max`` bytes.
        """

    def on_end(self, stream: Stream[Data_co]) -> None:
        """Called when the peer has ended its side. By default closes the stream."""
        stream.close()

    def on_writable(self, stream: Stream[Data_co]) -> None:
        """Called when the queue has fallen to ``queue_low`` from ``queue_high``."""

    def on_drain(self, stream: Stream[Data_co]) -> None:
        """Called when the queue is empty again, after bytes were queued."""

    def on_stopping(self, stream: Stream[Data_co]) -> None:
        """Called once when the server drains: finish what was asked, then close.

        By default does nothing: the client may end in its own time, until the deadline
        of `StreamServer.drain`.
        """

    def on_close(self, stream: Stream[Data_co], error: Exception | None) -> None:
        """Called once, last. ``error`` is None if the stream closed as asked."""


class SocketStream(CoreStream):
    """A stream or listener that takes over a socket."""

    __slots__ = ()

    def _take_over(self, kind: Kind, sock: socket.socket, limits: StreamLimits) -> None:
        """Give ``sock`` to C, which owns it from then on.

        Raises:
            OSError: The kernel refused to watch it; ``sock`` is still the caller's.
        """
        result = self._open(kind, sock.fileno(), ffi.buffer(c_options(limits)))
        check(result, f"make a stream of fd {sock.fileno()}")
        sock.detach()


class Stream(SocketStream, Generic[Data_co]):
    """One connection of a `SelectorEventLoop`; writes are sent in order.

    Made by `StreamServer`, `connect_stream` and `add_stream`, and passed to callbacks.
    For a type checker, ``Stream[Session]`` has a ``Session`` as its ``data``.

    Attributes:
        data: For the user: the state of this connection. None at first.

    Threads: The loop's. In any other, `write`, `close` and the like raise RuntimeError;
        use ``call_soon_threadsafe`` of the loop or the server.
    """

    # Most streams have none of these values, so one dictionary holds them: a server may
    # have very many streams.
    __slots__ = ("_rare",)
    _handler: StreamHandler
    data: Data_co

    def __init__(self) -> None:
        """Raise `TypeError`: streams are made as said above."""
        raise TypeError(
            "make a fdmux.Stream: StreamServer, connect_stream and add_stream do that"
        )

    def _attach(self, delivery: Delivery, handler: StreamHandler, taker: Taker) -> None:
        framer, on_data = taker
        self._bind(delivery, on_data)
        if framer is not None:
            self._framer = framer
        self._handler = handler
        self._rare: dict[str, object] | None = None
        if state.is_used:
            self._keep(PLACE, place_of_caller())

    def __repr__(self) -> str:
        return f"<fdmux.Stream fd={self.fileno()} peer={self.peername!r}>"

    # Facts -------------------------------------------------------------------------

    @property
    def peername(self) -> object:
        """The address of the peer, as `socket.socket.getpeername` returns it; or None.

        Known from `on_connect` to `on_close`, also after a reset.
        """
        address = self._peer()
        return decode_address(address) if address else self._kept("peername")

    @property
    def tls(self) -> StreamTls | None:
        """What is known of the encryption; None for a stream without TLS."""
        return cast("StreamTls | None", self._tls)

    @property
    def buffered(self) -> int:
        """How many bytes the kernel has not taken yet; 0 when the stream has ended.

        What this callback has written is sent first, as far as the kernel takes it.
        """
        return self._stats()[2]

    @property
    def received(self) -> int:
        """How many bytes have arrived; 0 when the stream has ended."""
        return self._stats()[0]

    @property
    def sent(self) -> int:
        """How many bytes the kernel has taken; 0 when the stream has ended."""
        return self._stats()[1]

    def _note_peer(self) -> None:
        """Keep the address of a Unix socket; C keeps those of TCP."""
        fd = self.fileno()
        if fd < 0 or self._peer():
            return
        with (
            contextlib.suppress(OSError),  # reset, or out of descriptors
            socket.socket(fileno=socket.dup(fd)) as sock,
        ):
            self._keep("peername", sock.getpeername())

    def _kept(self, name: str) -> object:
        """Return the value that `_keep` was given, or None."""
        return None if self._rare is None else self._rare.get(name)

    def _keep(self, name: str, value: object) -> None:
        """Keep a value that few streams have; None forgets it."""
        if self._rare is None:
            if value is None:
                return
            self._rare = {}
        self._rare[name] = value

    def _take_partial_frame(self) -> bytes:
        """Take the bytes of an incomplete frame, wherever its framing keeps them."""
        kept = cast("ReceiveBuffer | None", self._kept(FRAMES))
        return self._take_rest() if kept is None else kept.take_all()

    # TLS ---------------------------------------------------------------------------

    def start_tls(  # noqa: PLR0913 - all by keyword
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
        received: bytes = b"",
        handshake_timeout: Seconds | None = HANDSHAKE_TIMEOUT,
        shutdown_timeout: Seconds = SHUTDOWN_TIMEOUT,
    ) -> None:
        """Encrypt the stream from now on; `on_tls` is called after the handshake.

        What was written before is sent as it was, first. What is written from now on,
        and what this callback returns, is sent encrypted after the handshake. A closed
        or closing stream ignores the call.

        Args:
            context: Certificates, verification, versions and so on.
            server_side: Whether this end is the server.
            server_hostname: The name that the client asks for and verifies.
            session: To resume, of an earlier stream's `tls`.
            received: What has arrived already and belongs to the handshake: bytes after
                the command that starts TLS. A framing's incomplete frame is added.
            handshake_timeout: After this time `on_close` gets a `TimeoutError`; None:
                no limit.
            shutdown_timeout: As in `StreamLimits`.

        Raises:
            RuntimeError: The stream has TLS already.
            TypeError: ``context`` is not an `ssl.SSLContext`.
            ValueError: A timeout is out of range, or ``server_hostname`` is missing for
                a context that verifies it.
            BrokenPipeError: After `shutdown`.
            Exception: Another one of `ssl.SSLContext.wrap_bio` or of the system: the
                stream is closed with it, so that nothing leaves as plaintext.
        Threads: The loop's.
        """
        options = TlsOptions(
            context,
            server_side,
            server_hostname,
            session,
            handshake_timeout,
            shutdown_timeout,
        )
        self._check_thread("start TLS on")
        if self._tls is not None:
            raise RuntimeError(f"start TLS on {self!r}: it has TLS already")
        if not self._is_open:
            return
        try:
            tls = make_tls(options, is_beginning=False)
            received = self._take_partial_frame() + received
            self._begin_tls(tls, options, received)
        except BaseException as error:
            self.abort(error if isinstance(error, Exception) else None)
            raise

    def _begin_tls(
        self, tls: StreamTls, options: TlsOptions, received: bytes = b""
    ) -> None:
        """Encrypt from now on.

        Raises:
            OSError: It cannot be; the caller closes the stream.
        """
        result = self._start_tls(tls, received, *options.timeouts_ms)
        check(result, f"start TLS on fd {self.fileno()}")

    def _tls_done(self) -> None:
        tls = cast("StreamTls", self._tls)
        if not tls._is_beginning:  # noqa: SLF001 - ours
            self._handler.on_tls(self)
            return
        tls._is_beginning = False  # noqa: SLF001 - ours
        self._keep("attempt", None)
        self._handler.on_connect(self)

    def _find_place(self) -> str | None:
        """Return where the stream was made, if debug mode knows."""
        return cast("str | None", self._kept(PLACE))

    # Called from C -----------------------------------------------------------------

    def _keep_error(self, error: Exception) -> None:
        """Keep what `on_close` gets: the first error of `close` and `abort`."""
        if self._kept("error") is None:
            self._keep("error", error)

    def _event(self, kind: int, detail: int) -> None:
        """Call the handler for an event that is not data."""
        if kind == CLOSED:
            self._finish(detail)
        elif not self._is_open:
            return
        elif kind == CONNECTED:
            self._connected()
        elif kind == TLS:
            self._tls_done()
        elif kind == END:
            self._handler.on_end(self)
        elif kind == WRITABLE:
            self._handler.on_writable(self)
        else:  # FDMUX_STREAM_DRAINED
            self._handler.on_drain(self)

    def _connected(self) -> None:
        self._note_peer()
        if self._tls is None:
            self._keep("attempt", None)
            self._handler.on_connect(self)

    def _finish(self, code: int) -> None:
        self._handler.on_close(self, self._end(code))

    def _end(self, code: int) -> Exception | None:
        """Forget what a stream needs until its end; returns why it has ended."""
        error = cast("Exception | None", self._kept("error"))
        if error is None and code:
            code = errno_from_c(code)
            attempt = str(self._kept("attempt") or "stream")
            if self._tls is not None:
                tls = cast("StreamTls", self._tls)
                error = tls._error_of(code, attempt)  # noqa: SLF001 - ours
            else:
                error = OSError(code, f"{attempt}: {text_of(code)}")
        self._keep("error", None)  # its traceback refers to frames, and those to us
        self._keep(FRAMES, None)
        return error

    def _frame_failed(self, _code: int) -> None:
        """Call `on_frame_error`: the framer has refused the bytes that arrived."""
        handler = cast("TakesFrames", self._handler)
        handler.on_frame_error(self, handler.frame_error(self._take_rest()))

    def _callback_failed(self, error: Exception, _what: str) -> None:
        """Log an exception of the handler, and end the stream with it."""
        logger.error("a callback of %r raised", self, exc_info=error)
        self.abort(error)


def taker_of(handler: StreamHandler) -> Taker:
    """Return the framer in C of ``handler``, or None, and the callback for the data."""
    find_framer = getattr(handler, "_cut_with", None)
    cut: Taker | None = None if find_framer is None else find_framer()
    return (None, handler.on_data) if cut is None else cut


def decode_address(raw: bytes) -> InetAddress:
    """Convert a ``struct sockaddr_in`` or ``sockaddr_in6`` to what `socket` uses."""
    (family,) = struct.unpack_from("=H", raw)
    (port,) = struct.unpack_from("!H", raw, 2)
    if family == socket.AF_INET:
        return socket.inet_ntop(family, raw[4:8]), port
    (flow,) = struct.unpack_from("!I", raw, 4)
    (scope,) = struct.unpack_from("=I", raw, 24)
    return socket.inet_ntop(family, raw[8:24]), port, flow, scope
