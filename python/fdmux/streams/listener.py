"""A listener: adopts the connections that C accepts, and counts how they end.

Its one rule: whatever C says it has accepted gets a `Stream`, or is closed. Accepting,
its limits and its back-off when descriptors run out are csrc/stream/accept.c.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import math
import os
from time import monotonic
from typing import TYPE_CHECKING

from fdmux import _delivery
from fdmux._ffi import ffi, lib
from fdmux.streams.stream import CLOSED, Stream, finish_streams, hand_over, taker_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from fdmux._delivery import Delivery
    from fdmux._native import NativeLoop
    from fdmux.streams.limits import ServerLimits
    from fdmux.streams.stream import StreamHandler, Taker

logger = logging.getLogger(__name__)

# Clients that come and go where descriptors are short must not fill the log.
LOG_INTERVAL = 1.0

ACCEPTED = lib.FDMUX_STREAM_ACCEPTED
REFUSED = lib.FDMUX_STREAM_REFUSED


@dataclasses.dataclass(frozen=True)
class ServerStats:
    """What a server has seen since it was started.

    Attributes:
        accepted: Connections let in, among them those still open.
        open: Connections at the moment.
        refused: Connections closed at once, as there were too many.
        expired: Connections closed as idle or stalled (or given up by TCP).
        overrun: Connections closed as too much was queued.
        errors: Connections ended by another error, such as a reset.
        bytes_in: Bytes received.
        bytes_out: Bytes handed to the kernel.
        bytes_queued: Bytes waiting for clients to take them.
        bytes_dropped: Bytes queued for clients that went away.
    """

    accepted: int = 0
    open: int = 0
    refused: int = 0
    expired: int = 0
    overrun: int = 0
    errors: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_queued: int = 0
    bytes_dropped: int = 0


class ServerStream(Stream):
    """A stream that its listener counts."""

    __slots__ = ("listener",)

    def __init__(
        self,
        delivery: Delivery,
        handler: StreamHandler,
        taker: Taker,
        listener: Listener,
    ) -> None:
        super().__init__(delivery, handler, taker)
        self.listener = listener

    def _finish(self, code: int) -> None:
        is_error = bool(code) or self.kept("error") is not None
        try:
            super()._finish(code)
        finally:
            self.listener.stream_closed(code, is_error=is_error)


class Listener:
    """One listening socket in a loop.

    Args:
        native: The core loop of ``delivery``.
        delivery: Where to listen.
        sock: Listening and non-blocking; owned from now on.
        handler: Gets the streams.
        limits: What they may take.
        on_change: Called when a client has left, and when the listener has broken.
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
        self._delivery = delivery
        self._handler = handler
        self._taker = taker_of(handler)  # one for all
        self._on_change = on_change
        self._name = sock.getsockname()
        self._is_closing = False
        self._quiet_until = -math.inf
        self.failure: OSError | None = None
        self._closed = self._expired = self._overrun = self._errors = 0
        self._stream = _delivery.Stream()
        self._stream._bind(delivery, None, self)  # noqa: SLF001 - ours
        hand_over(self._stream, "listen", sock, limits)
        self._totals = ffi.gc(
            lib.fdmux_py_totals_hold(native._c_loop, self._stream._token),  # noqa: SLF001 - ours
            lib.fdmux_py_totals_release,
        )

    @property
    def is_spent(self) -> bool:
        """Whether the listener has broken, and its last client has left."""
        return self.failure is not None and not self.stats.open

    @property
    def stats(self) -> ServerStats:
        """A snapshot; from any thread."""
        # Before the others: who has left was accepted before, and is counted in them.
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
            bytes_in=totals.received,
            bytes_out=totals.sent,
            bytes_queued=totals.queued,
            bytes_dropped=totals.dropped,
        )

    def fileno(self) -> int:
        """Return the listening descriptor; -1 when it is closed."""
        return self._stream.fileno()

    def close(self) -> None:
        """Close the listener and abort its streams. Idempotent.

        Outside of a callback their `on_close` has been called when this returns.
        """
        for stream in self._delivery.streams():
            if isinstance(stream, ServerStream) and stream.listener is self:
                stream.abort()
        self.abort()
        finish_streams(self._native, self._delivery)

    def stream_closed(self, code: int, *, is_error: bool) -> None:
        """Count the end of a stream."""
        if code == errno.ETIMEDOUT:
            self._expired += 1
        elif code == errno.ENOBUFS:
            self._overrun += 1
        elif is_error:
            self._errors += 1
        self._closed += 1
        self._on_change()

    # What C tells ------------------------------------------------------------------

    def _event(self, kind: int, detail: int) -> None:
        """Take an event of the listener; ``detail`` is a new stream, or an errno."""
        if kind == ACCEPTED:
            self._accept(detail)
        elif kind == REFUSED:
            self._warn(detail)
        elif kind == CLOSED and not self._is_closing:
            self._is_closing = True
            self.failure = OSError(
                detail, f"accept on {self._name}: {os.strerror(detail)}"
            )
            logger.error("%s; no new clients", self.failure)
            self._on_change()

    def _accept(self, token: int) -> None:
        stream = ServerStream(self._delivery, self._handler, self._taker, self)
        stream._adopt(token)  # noqa: SLF001 - ours
        stream._note_peer()  # noqa: SLF001 - ours
        try:
            self._handler.on_connect(stream)
        except Exception as error:  # noqa: BLE001 - ends that stream alone
            stream._callback_failed(error, "on_connect")  # noqa: SLF001 - ours

    def _warn(self, code: int) -> None:
        """Say that nobody can be accepted, unless that was just said."""
        now = monotonic()
        if now < self._quiet_until:
            return
        self._quiet_until = now + LOG_INTERVAL
        logger.warning(
            "accept on %s: %s; trying again until it works",
            self._name,
            os.strerror(code),
        )

    def abort(self) -> None:
        """Stop listening. Idempotent."""
        if not self._is_closing:
            self._is_closing = True
            self._stream.abort()

    def _callback_failed(self, error: BaseException, _what: str) -> None:
        """Report what a listener of ours should not raise."""
        logger.error("unexpected error in %r", self, exc_info=error)
