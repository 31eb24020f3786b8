"""A listener: adopts the connections that C accepts, and counts how they end.

Its one rule: whatever C says it has accepted gets a `Stream`, or is ended. Accepting,
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

from fdmux._ffi import ffi, lib
from fdmux.stream import CLOSED, Stream, hand_over
from fdmux.streams import NOBODY

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from fdmux.limits import ServerLimits
    from fdmux.stream import Buffer, StreamHandler
    from fdmux.streams import StreamHub

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
        self, hub: StreamHub, slot: int, handler: StreamHandler, listener: Listener
    ) -> None:
        super().__init__(hub, slot, handler)
        self.listener = listener

    def _finish(self, code: int) -> None:
        is_error = bool(code) or self._error is not None
        try:
            super()._finish(code)
        finally:
            self.listener.stream_closed(code, is_error=is_error)


class Listener:
    """One listening socket in a loop; an endpoint of its hub.

    Args:
        hub: Where to listen.
        sock: Listening and non-blocking; owned from now on.
        handler: Gets the streams.
        limits: What they may take.
        on_change: Called when a client has left, and when the listener has broken.
    """

    def __init__(
        self,
        hub: StreamHub,
        sock: socket.socket,
        handler: StreamHandler,
        limits: ServerLimits,
        on_change: Callable[[], None],
    ) -> None:
        self._hub = hub
        self._handler = handler
        self._on_change = on_change
        self._name = sock.getsockname()
        self._is_closing = False
        self._quiet_until = -math.inf
        self.failure: OSError | None = None
        self._closed = self._expired = self._overrun = self._errors = 0
        self._slot = hand_over(hub, lib.fdmux_stream_listen, sock, limits.to_c())
        hub.adopt(self._slot, self)
        self._totals = ffi.gc(
            lib.fdmux_py_totals_hold(hub.c_loop, self._slot),
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
        hub = self._hub
        return max(lib.fdmux_stream_fd(hub.c_loop, hub.token(self._slot)), -1)

    def close(self) -> None:
        """Close the listener and abort its streams. Idempotent."""
        for endpoint in list(self._hub.endpoints):
            if isinstance(endpoint, ServerStream) and endpoint.listener is self:
                endpoint.abort()
        self.abort()
        self._hub.sweep()

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

    # What the hub asks of an endpoint ----------------------------------------------

    def event(self, kind: int, first: int, last: int) -> None:
        """Take a record of the listener; ``first`` is the slot that was accepted."""
        if kind == ACCEPTED:
            self._accept(first)
        elif kind == REFUSED:
            self._warn(last)
        elif kind == CLOSED and not self._is_closing:
            self._is_closing = True
            self.failure = OSError(last, f"accept on {self._name}: {os.strerror(last)}")
            logger.error("%s; no new clients", self.failure)
            self._on_change()

    def _accept(self, slot: int) -> None:
        if self._is_closing:
            self._closed += 1
            self._hub.adopt(slot, NOBODY)
            self._hub.ops.append(lib.FDMUX_PY_DROP | slot)
            return
        stream = ServerStream(self._hub, slot, self._handler, self)
        try:
            self._handler.on_connect(stream)
        except Exception as error:  # noqa: BLE001 - ends that stream alone
            stream.callback_failed(error)

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
        """Stop to listen. Idempotent."""
        if not self._is_closing:
            self._is_closing = True
            self._hub.ops.append(lib.FDMUX_PY_DROP | self._slot)

    def write(self, _data: Buffer) -> None:
        """Nothing: `on_data` answers nothing."""

    def callback_failed(self, error: Exception) -> None:
        """Report what a listener of ours should not raise."""
        logger.error("unexpected error in %r", self, exc_info=error)
