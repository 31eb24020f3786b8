"""The writing side of a transport: writes, and when the protocol must pause.

C does the usual writes (csrc/python/write.c). This file handles the rare cases: data
that is not bytes-like, a transport that cannot write, a queue over its limit.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fdmux._delivery import Stream
from fdmux.hosts.asyncio.private import LOST_WRITES_MAX, FlowControl

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Iterable

    from fdmux._delivery import Delivery
    from fdmux.hosts.asyncio.private import SelectorEventLoop

    Buffer = bytes | bytearray | memoryview

logger = logging.getLogger("asyncio")

NO_LIMIT = (1 << 31) - 1


class WritingTransport(FlowControl):
    """The writing of a transport; transport.py has the rest."""

    __slots__ = (
        "_closing",
        "_conn_lost",
        "_core",
        "_empty_waiter",
        "_eof",
        "_streams",
    )

    if TYPE_CHECKING:
        _sock: socket.socket | None

        def _open(self) -> None: ...
        def _lose(self, exc: BaseException | None) -> None: ...

    def __init__(
        self,
        loop: SelectorEventLoop,
        streams: Delivery,
        extra: dict[str, object] | None,
    ) -> None:
        self._streams = streams
        self._core = Stream()
        self._core._bind(streams, None, self)  # noqa: SLF001 - ours
        self._closing = False
        self._conn_lost = 0
        self._eof = False
        self._empty_waiter: asyncio.Future[None] | None = None
        super().__init__(extra, loop)
        self._core._set_flow(self._high_water)  # noqa: SLF001 - ours

    def write(self, data: Buffer) -> None:
        """Send ``data`` as the protocol's callback returns or before the loop waits."""
        if self._core.write(data) is not None:  # NotImplemented
            self._write_slowly(data)

    def _write_slowly(self, data: Buffer) -> None:
        """Write where C has refused: raise, count, or open the stream first."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(
                "data argument must be a bytes-like object, "
                f"not {type(data).__name__!r}"
            )
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._empty_waiter is not None:
            raise RuntimeError("unable to write; sendfile is in progress")
        if not data:
            return
        if self._is_lost():
            return
        if self._loop.is_closed():
            self._send_without_loop(bytes(data))
            return
        self._open()
        self._core._write(bytes(data))  # noqa: SLF001 - ours

    def _send_without_loop(self, data: bytes) -> None:
        """Send as much as the kernel takes, as asyncio does on a closed loop."""
        sent = 0 if self._sock is None else self._sock.send(data)
        if sent < len(data):
            raise RuntimeError("Event loop is closed")

    def _is_lost(self) -> bool:
        """Whether the connection is lost; counts the writes after that."""
        if not self._conn_lost:
            return False
        if self._conn_lost >= LOST_WRITES_MAX:
            logger.warning("socket.send() raised exception.")
        self._conn_lost += 1
        return True

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        """Send all items as one write."""
        if self._eof:
            raise RuntimeError("Cannot call writelines() after write_eof()")
        if self._empty_waiter is not None:
            raise RuntimeError("unable to writelines; sendfile is in progress")
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Shut down the writing side once all is sent; reading goes on."""
        if self._closing or self._eof:
            return
        self._open()
        self._eof = True
        self._core.shutdown()

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    # Flow control ------------------------------------------------------------------

    def _queue_is_full(self) -> None:
        """Pause the protocol until the queue is below its lower limit."""
        self._maybe_pause_protocol()
        if self._protocol_paused:
            core = self._core
            core._set_flow(NO_LIMIT)  # noqa: SLF001 - ours
            core._await_writable(self._low_water)  # noqa: SLF001 - ours

    def _sent_some(self) -> None:
        """Resume the protocol, as C's queue is below its lower limit or empty."""
        was_paused = self._protocol_paused
        self._maybe_resume_protocol()  # which may write more
        if self._conn_lost:
            return
        if was_paused and not self._protocol_paused:
            self._core._set_flow(self._high_water)  # noqa: SLF001 - ours
        elif self._protocol_paused:
            self._core._await_writable(self._low_water)  # noqa: SLF001 - ours
        if self.get_write_buffer_size():
            return
        if self._empty_waiter is not None and not self._empty_waiter.done():
            self._empty_waiter.set_result(None)
        if self._closing:
            self._lose(None)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are queued: written, and not taken by the kernel."""
        if self._conn_lost:
            return 0
        return self._core._stats()[2]  # noqa: SLF001 - ours

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Set the sizes at which the protocol is paused and resumed, as in asyncio."""
        super().set_write_buffer_limits(high, low)
        core = self._core
        if self._protocol_paused:
            core._await_writable(self._low_water)  # noqa: SLF001 - ours
        else:
            core._set_flow(self._high_water)  # noqa: SLF001 - ours

    # For asyncio's sendfile ----------------------------------------------------------

    def _make_empty_waiter(self) -> asyncio.Future[None]:
        """Return a future that is done when the queue is empty."""
        if self._empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self._empty_waiter = self._loop.create_future()
        self._core._can_write = False  # noqa: SLF001 - ours
        if not self.get_write_buffer_size():
            self._empty_waiter.set_result(None)
        return self._empty_waiter

    def _reset_empty_waiter(self) -> None:
        self._empty_waiter = None
        if not self._conn_lost and not self._eof:
            self._core._can_write = True  # noqa: SLF001 - ours
