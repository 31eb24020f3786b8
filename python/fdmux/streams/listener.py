"""Listener: makes streams of the connections that C accepts, and counts how they end.

Its one rule: every connection that C has accepted gets a `Stream`, or is closed. C
accepts, keeps to the limits, and pauses when out of descriptors (csrc/stream/accept.c).
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import math
from time import monotonic
from typing import TYPE_CHECKING

from fdmux._ffi import ffi, lib
from fdmux._native import check, finish_streams
from fdmux.debugging import place_of_caller, state
from fdmux.errnos import errno_from_c, text_of
from fdmux.streams.stream import CLOSED, SocketStream, Stream, taker_of
from fdmux.streams.tls import make_tls

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from fdmux._delivery import Delivery
    from fdmux._native import NativeLoop
    from fdmux.streams.limits import ServerLimits
    from fdmux.streams.stream import StreamHandler, Taker
    from fdmux.streams.tls import TlsOptions

logger = logging.getLogger(__name__)

# At most one warning in this time: short of descriptors, each client would cause one.
LOG_INTERVAL = 1.0

ACCEPTED = lib.FDMUX_STREAM_ACCEPTED
REFUSED = lib.FDMUX_STREAM_REFUSED


@dataclasses.dataclass(frozen=True)
class ServerStats:
    """Counters of a server since it was started.

    Attributes:
        accepted: Connections accepted, the open ones included.
        open: Connections that are open now.
        refused: Connections closed at once because there were too many.
        expired: Connections closed because they were idle or stalled, or TCP gave up.
        overrun: Connections closed because too much was queued.
        errors: Connections ended by another error, such as a reset.
        failed_handshakes: Connections ended before their TLS handshake was done.
        unfinished: Connections that were left at the deadline of `StreamServer.drain`.
        bytes_in: Bytes received.
        bytes_out: Bytes that the kernel has taken.
        bytes_queued: Bytes queued, which the kernel has not taken yet.
        bytes_dropped: Bytes that were queued when their connection ended.
    """

    accepted: int = 0
    open: int = 0
    refused: int = 0
    expired: int = 0
    overrun: int = 0
    errors: int = 0
    failed_handshakes: int = 0
    unfinished: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_queued: int = 0
    bytes_dropped: int = 0


class ServerStream(Stream):
    """A stream that a listener has accepted, and counts."""

    __slots__ = ("is_greeting", "listener")

    def __init__(
        self,
        delivery: Delivery,
        handler: StreamHandler,
        taker: Taker,
        listener: Listener,
    ) -> None:
        self._attach(delivery, handler, taker)
        self.listener = listener
        self.is_greeting = False  # in the handshake; `on_connect` is still to come

    def _find_place(self) -> None:
        """Return None: its server is in the program's hands."""

    def adopt(self, token: int) -> None:
        """Become the stream of an accepted connection."""
        self._adopt(token)
        self._note_peer()

    def begin(self) -> None:
        """Call `on_connect`; an exception of it ends this stream alone."""
        try:
            self._handler.on_connect(self)
        except Exception as error:  # noqa: BLE001 - logged there
            self._callback_failed(error, "on_connect")
        if self.listener.is_draining:
            self.tell_stopping()

    def tell_stopping(self) -> None:
        """Call `on_stopping`; not in a handshake, where `on_connect` is to come."""
        if self.is_closing or self.is_greeting:
            return
        try:
            self._handler.on_stopping(self)
        except Exception as error:  # noqa: BLE001 - logged there
            self._callback_failed(error, "on_stopping")

    def begin_with(self, options: TlsOptions) -> None:
        """Start TLS; `on_connect` follows. An exception ends this stream alone."""
        self.is_greeting = True
        try:
            self._begin_tls(make_tls(options, is_beginning=True), options)
        except Exception as error:  # noqa: BLE001 - on_tls_failed gets it
            self.abort(error)
        except BaseException:  # leaves run(); what stays open would be plaintext
            self.abort()
            raise

    def _tls_done(self) -> None:
        is_first, self.is_greeting = self.is_greeting, False
        super()._tls_done()
        if is_first and self.listener.is_draining:
            self.tell_stopping()

    def _finish(self, code: int) -> None:
        if self.is_greeting:
            self._fail_handshake(code)
            return
        is_error = bool(code) or self._kept("error") is not None
        try:
            super()._finish(code)
        finally:
            self.listener.stream_closed(code, is_error=is_error)

    def _fail_handshake(self, code: int) -> None:
        error = self._end(code)
        try:
            if error is not None:
                self._handler.on_tls_failed(self, error)
        finally:
            self.listener.handshake_failed()


class Listener(SocketStream):
    """One listening socket in a loop.

    Args:
        native: The core loop of ``delivery``.
        delivery: Where to listen.
        sock: Listening and non-blocking. The listener owns it from now on; if this
            raises, it is closed or still the caller's.
        handler: Gets the streams.
        limits: Bounds of each stream, and of all of them.
        on_change: Called when a client has left, or accepting has failed for good.
    """

    def __init__(
        self,
        native: NativeLoop,
        delivery: Delivery,
        sock: socket.socket,
        handler: StreamHandler,
        limits: ServerLimits,
        on_change: Callable[[], None],
    ) -> None:
        self._native = native
        self._streams = delivery
        self._client_handler = handler
        self._client_taker = taker_of(handler)  # all clients share it
        self._on_change = on_change
        self._name = sock.getsockname()
        self._is_ended = False
        self._quiet_until = -math.inf
        self.failure: OSError | None = None
        self.tls: TlsOptions | None = None  # new clients begin with it
        self._closed = self._expired = self._overrun = self._errors = 0
        self._failed_handshakes = self._unfinished = 0
        self.is_draining = False  # clients are told as soon as they are connected
        c_loop = ffi.cast("struct fdmux_loop *", native.address)
        result = lib.fdmux_stream_total_max(c_loop, limits.total_max)
        check(result, "bound what streams queue")
        self._bind(delivery, None)
        self._place = place_of_caller() if state.is_used else None
        self._take_over("listen", sock, limits)
        try:
            self._totals = ffi.gc(
                lib.fdmux_py_totals_hold(c_loop, self._token),
                lib.fdmux_py_totals_release,
            )
        except BaseException:
            self.end()
            raise

    def __repr__(self) -> str:
        return f"<server at {self._name!r}>"

    def _find_place(self) -> str | None:
        """Return where the server was started, if debug mode knows."""
        return self._place

    @property
    def is_spent(self) -> bool:
        """Whether accepting has failed for good, and the last client has left."""
        return self.failure is not None and not self.stats.open

    @property
    def stats(self) -> ServerStats:
        """A snapshot; from any thread."""
        # Read first: a client that has left is already counted in the totals, so
        # `open` is never negative, whichever thread asks.
        closed = self._closed
        totals = ffi.new("struct fdmux_py_stream_totals *")
        lib.fdmux_py_totals_read(self._totals, totals)
        return ServerStats(
            accepted=totals.accepted,
            open=totals.accepted - closed,
            refused=totals.refused,
            expired=self._expired,
            overrun=self._overrun,
            errors=self._errors,
            failed_handshakes=self._failed_handshakes,
            unfinished=self._unfinished,
            bytes_in=totals.received,
            bytes_out=totals.sent,
            bytes_queued=totals.queued,
            bytes_dropped=totals.dropped,
        )

    def end(self) -> None:
        """Close the listener and abort its streams. Idempotent.

        Outside of a callback, every `on_close` has been called when this returns.
        """
        for stream in self.clients():
            stream.abort()
        self.close_socket()

    def close_socket(self) -> None:
        """Accept no more; the clients stay. Outside of a callback, at once."""
        self.abort()
        if not self._streams.depth:  # else the end of the batch does it
            finish_streams(self._native)

    def clients(self) -> list[ServerStream]:
        """Return the streams of this listener. O(streams of the loop)."""
        return [
            stream
            for stream in self._streams.streams()
            if isinstance(stream, ServerStream) and stream.listener is self
        ]

    def cut_off(self) -> None:
        """Count the clients that are left as unfinished, and `end`."""
        self._unfinished += self.stats.open
        self.end()

    def stream_closed(self, code: int, *, is_error: bool) -> None:
        """Count the end of a stream."""
        code = errno_from_c(code)
        if code == errno.ETIMEDOUT:
            self._expired += 1
        elif code == errno.ENOBUFS:
            self._overrun += 1
        elif is_error:
            self._errors += 1
        self._closed += 1
        self._on_change()

    def handshake_failed(self) -> None:
        """Count a client whose handshake was never done."""
        self._failed_handshakes += 1
        self._closed += 1
        self._on_change()

    # Called from C -----------------------------------------------------------------

    def _event(self, kind: int, detail: int) -> None:
        """Handle an event of the listener; ``detail`` is a new stream, or an errno."""
        if kind == ACCEPTED:
            self._accept(detail)
        elif kind == REFUSED:
            self._warn(detail)
        elif kind == CLOSED and not self._is_ended:
            self._is_ended = True
            code = errno_from_c(detail)
            self.failure = OSError(code, f"accept on {self._name}: {text_of(code)}")
            logger.error("%s; no new clients", self.failure)
            self._on_change()

    def _accept(self, token: int) -> None:
        try:
            stream = ServerStream(
                self._streams, self._client_handler, self._client_taker, self
            )
        except BaseException:
            self.stream_closed(0, is_error=True)  # C closes it, as nobody adopts it
            raise
        stream.adopt(token)
        if self.tls is None:
            stream.begin()
        else:
            stream.begin_with(self.tls)

    def _warn(self, code: int) -> None:
        """Log that accepting fails at the moment, unless that was just logged."""
        now = monotonic()
        if now < self._quiet_until:
            return
        self._quiet_until = now + LOG_INTERVAL
        logger.warning(
            "accept on %s: %s; trying again until it works",
            self._name,
            text_of(errno_from_c(code)),
        )

    def abort(self, error: Exception | None = None) -> None:
        """Stop listening. Idempotent."""
        if not self._is_ended:
            self._is_ended = True
            super().abort(error)

    def _callback_failed(self, error: BaseException, _what: str) -> None:
        """Log an exception of the listener itself, which should raise none."""
        logger.error("unexpected error in %r", self, exc_info=error)
