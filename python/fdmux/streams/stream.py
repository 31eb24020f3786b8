"""Stream: one buffered connection, with callbacks; `connect_stream` makes one.

C receives, calls the handler and sends (csrc/python); this file is what is rare: how a
stream begins, what is known of it, and how it ends. After `on_close` nothing is called.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, Literal, cast

from fdmux import _delivery
from fdmux._ffi import ffi, lib
from fdmux._native import LoopClosed, check
from fdmux._native import finish_streams as finish_aborted

if TYPE_CHECKING:
    from fdmux._delivery import Buffer, Delivery
    from fdmux._native import NativeLoop
    from fdmux.streams.framing import FrameHandler
    from fdmux.streams.limits import StreamLimits

    InetAddress = tuple[str, int] | tuple[str, int, int, int]
    SocketAddress = InetAddress | str
    Kind = Literal["add", "listen", "connect"]
    Taker = tuple[object | None, object]  # a framer, and what takes data

logger = logging.getLogger(__name__)

CONNECT_UNDER_WAY = frozenset({0, errno.EINPROGRESS, errno.EINTR})

FRAMES = "frames"  # of `Stream.keep`: framing.py has there what is not whole

CLOSED = lib.FDMUX_STREAM_CLOSED
CONNECTED = lib.FDMUX_STREAM_CONNECTED
END = lib.FDMUX_STREAM_END
WRITABLE = lib.FDMUX_STREAM_WRITABLE


class StreamHandler:
    """What happens to streams; override the methods you need.

    One handler may serve any number of streams. An exception in a method closes its
    stream with that error and is logged. `KeyboardInterrupt` and `SystemExit` leave
    ``run``, with their traceback; the stream stays open.

    Threads: The loop's.
    """

    def on_connect(self, stream: Stream) -> None:
        """Called once, when connected; for a server, when accepted."""

    def on_data(self, stream: Stream, data: bytes) -> Buffer | None:
        """Called with what has arrived, divided anyhow.

        One call for each stream and batch, with ``receive_max`` bytes at most. What
        this returns is written back.
        """

    def on_end(self, stream: Stream) -> None:
        """Called when the peer sends no more. The default closes the stream."""
        stream.close()

    def on_writable(self, stream: Stream) -> None:
        """Called when the queue has fallen from ``queue_high`` to ``queue_low``."""

    def on_drain(self, stream: Stream) -> None:
        """Called when the kernel has taken everything, after some had to wait."""

    def on_close(self, stream: Stream, error: Exception | None) -> None:
        """Called once, last. ``error`` is None when the stream closed as asked."""


class Stream(_delivery.Stream):
    """One connection of a `SelectorEventLoop`: what you write is sent in order.

    Made by `StreamServer`, `connect_stream` and `add_stream`; passed to the handler.

    Attributes:
        data: Yours, to keep what belongs to this connection.

    Threads: The loop's. In another, `write`, `close` and the like raise RuntimeError;
        use ``call_soon_threadsafe`` of the loop or the server.
    """

    # What few streams have lies in one dictionary: most are idle, and many.
    __slots__ = ("_rare",)
    _handler: StreamHandler

    def __init__(
        self,
        delivery: Delivery,
        handler: StreamHandler,
        taker: Taker,
        attempt: str | None = None,
    ) -> None:
        framer, on_data = taker
        self._bind(delivery, on_data, None)
        if framer is not None:
            self._framer = framer
        self._handler = handler
        self._rare: dict[str, object] | None = None
        if attempt is not None:
            self.keep("attempt", attempt)

    def __repr__(self) -> str:
        return f"<fdmux.Stream fd={self.fileno()} peer={self.peername!r}>"

    # Facts -------------------------------------------------------------------------

    @property
    def peername(self) -> object:
        """The address of the peer, as `socket.socket.getpeername` gives it; or None.

        Known once connected, and so in `on_close`, whatever has happened.
        """
        address = self._peer()
        return decode_address(address) if address else self.kept("peername")

    @property
    def buffered(self) -> int:
        """How many bytes wait for the peer to take them; 0 when the stream has ended.

        What was written in this callback is sent first, as far as the kernel takes it.
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
        """Keep the address of a Unix socket, as C keeps those of the Internet."""
        fd = self.fileno()
        if fd < 0 or self._peer():
            return
        with (
            contextlib.suppress(OSError),  # reset, or there is no descriptor
            socket.socket(fileno=os.dup(fd)) as sock,
        ):
            self.keep("peername", sock.getpeername())

    def kept(self, name: str) -> object:
        """Return what `keep` was given, or None."""
        return None if self._rare is None else self._rare.get(name)

    def keep(self, name: str, value: object) -> None:
        """Keep with the stream what few streams have; None forgets it."""
        if self._rare is None:
            if value is None:
                return
            self._rare = {}
        self._rare[name] = value

    def _keep_error(self, error: Exception) -> None:
        """Keep what `on_close` gets: the first error of `close` and `abort`."""
        if self.kept("error") is None:
            self.keep("error", error)

    # What C tells ------------------------------------------------------------------

    def _event(self, kind: int, detail: int) -> None:
        """Pass an event that is not data on to the handler; called from C."""
        if kind == CLOSED:
            self._finish(detail)
        elif not self._is_open:
            return
        elif kind == CONNECTED:
            self.keep("attempt", None)
            self._note_peer()
            self._handler.on_connect(self)
        elif kind == END:
            self._handler.on_end(self)
        elif kind == WRITABLE:
            self._handler.on_writable(self)
        else:  # FDMUX_STREAM_DRAINED
            self._handler.on_drain(self)

    def _finish(self, code: int) -> None:
        error = cast("Exception | None", self.kept("error"))
        if error is None and code:
            attempt = self.kept("attempt") or "stream"
            error = OSError(code, f"{attempt}: {os.strerror(code)}")
        self.keep("error", None)  # its traceback would keep frames alive
        self.keep(FRAMES, None)
        self._handler.on_close(self, error)

    def _frame_failed(self, _code: int) -> None:
        """Tell the handler that its framer has refused what has come; called from C."""
        handler = cast("FrameHandler", self._handler)
        handler.on_frame_error(self, handler.frame_error(self._take_rest()))

    def _callback_failed(self, error: Exception, _what: str) -> None:
        """Report an exception of the handler, and end the stream with it."""
        logger.error("a callback of %r raised", self, exc_info=error)
        self.abort(error)


def no_frames() -> None:
    """Stand for a handler that takes bytes."""


def taker_of(handler: StreamHandler) -> Taker:
    """Return what cuts frames in C for ``handler``, if it does, and what takes them."""
    cut: Taker | None = getattr(handler, "cut_with", no_frames)()
    return (None, handler.on_data) if cut is None else cut


def decode_address(raw: bytes) -> InetAddress:
    """Turn a ``struct sockaddr_in`` or ``sockaddr_in6`` into what `socket` gives."""
    (family,) = struct.unpack_from("=H", raw)
    (port,) = struct.unpack_from("!H", raw, 2)
    if family == socket.AF_INET:
        return socket.inet_ntop(family, raw[4:8]), port
    (flow,) = struct.unpack_from("!I", raw, 4)
    (scope,) = struct.unpack_from("=I", raw, 24)
    return socket.inet_ntop(family, raw[8:24]), port, flow, scope


def hand_over(
    stream: _delivery.Stream, kind: Kind, sock: socket.socket, limits: StreamLimits
) -> None:
    """Give a socket to C, which owns it from then on."""
    options = limits.to_c()
    result = stream._open(kind, sock.fileno(), ffi.buffer(options))  # noqa: SLF001 - ours
    check(result, f"make a stream of fd {sock.fileno()}")
    sock.detach()


def finish_streams(native: NativeLoop, delivery: Delivery) -> None:
    """Call `on_close` of streams that were aborted, outside of a callback.

    In a callback it does nothing: they are told when the batch is over.
    """
    if delivery.depth:
        return
    with contextlib.suppress(LoopClosed):  # by somebody else, below us
        finish_aborted(native)
