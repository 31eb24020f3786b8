"""The writing side of a transport: what is rare.

C does the usual writes and pauses the protocol (csrc/python/aio_transport.c). This file
handles the other cases: data that is not bytes-like, a transport that cannot write.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fdmux.hosts.asyncio.private import LOST_WRITES_MAX, TransportBase

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Iterable

    from fdmux.hosts.asyncio.private import SelectorEventLoop

    Buffer = bytes | bytearray | memoryview

logger = logging.getLogger("asyncio")


class WritingTransport(TransportBase):
    """The writing of a transport; transport.py has the rest."""

    __slots__ = ("_empty_waiter", "_eof")

    if TYPE_CHECKING:
        _loop: SelectorEventLoop
        _sock: socket.socket | None

        def _open(self) -> None: ...
        def _lose(self, exc: BaseException | None) -> None: ...

    def __init__(
        self, loop: SelectorEventLoop, extra: dict[str, object] | None
    ) -> None:
        super().__init__(extra, loop)
        self._eof = False
        self._empty_waiter: asyncio.Future[None] | None = None

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
        self._write_bytes(bytes(data))

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

    def _writelines_slowly(self, list_of_data: Iterable[Buffer]) -> None:
        """Write all items as one write, where C has refused."""
        if self._eof:
            raise RuntimeError("Cannot call writelines() after write_eof()")
        if self._empty_waiter is not None:
            raise RuntimeError("unable to writelines; sendfile is in progress")
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Shut down the writing side once all is sent; reading goes on."""
        if self._closing or self._eof:
            return
        self._check_thread("shut down")
        self._open()
        self._eof = True
        self._shutdown_stream()

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    # Flow control ------------------------------------------------------------------

    def _flow_failed(self, error: BaseException, what: str) -> None:
        """Report what `pause_writing` or `resume_writing` has raised."""
        self._loop.call_exception_handler(
            {
                "message": f"protocol.{what}() failed",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )

    def _drained(self) -> None:
        """Finish what waits for an empty queue, as C cannot write."""
        if self._empty_waiter is not None and not self._empty_waiter.done():
            self._empty_waiter.set_result(None)
        if self._closing:
            self._lose(None)

    # For asyncio's sendfile ----------------------------------------------------------

    def _make_empty_waiter(self) -> asyncio.Future[None]:
        """Return a future that is done when the queue is empty."""
        if self._empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self._empty_waiter = self._loop.create_future()
        self._can_write = False
        if not self.get_write_buffer_size() and not self._empty_waiter.done():
            self._empty_waiter.set_result(None)
        return self._empty_waiter

    def _reset_empty_waiter(self) -> None:
        self._empty_waiter = None
        if not self._conn_lost and not self._eof:
            self._can_write = True
