"""The writing side of a transport: what is written, and when the protocol must pause.

Its one rule: a write costs no system call and no call of C. It is noted in a list that
the next call of C sends; C is asked how much the kernel has taken only when as much has
been written since as may lie unsent.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fdmux._ffi import lib
from fdmux.hosts.asyncio_private import LOST_WRITES_MAX, FlowControl

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from fdmux.hosts.asyncio_private import SelectorEventLoop
    from fdmux.hosts.asyncio_streams import StreamBatch

    Buffer = bytes | bytearray | memoryview

logger = logging.getLogger("asyncio")

SEND = lib.FDMUX_PY_SEND
SHUTDOWN = lib.FDMUX_PY_SHUTDOWN
# While the protocol is paused, and writes on, C is given so much at once.
PAUSED_STEP = 1 << 18
NO_ROOM = -1  # each write goes the long way
NO_TOKEN = 0  # no token is 0


class WritingTransport(FlowControl):
    """A transport as far as it writes; asyncio_transport.py has the whole.

    Attributes with an underscore that nothing here reads are read there.
    """

    # What every message looks at has names that stand together in this order, in which
    # Python lays slots out: `_room`, `_send_to`, `_send_word`.
    __slots__ = (
        "_closing",
        "_conn_lost",
        "_empty_waiter",
        "_eof",
        "_room",
        "_send_to",
        "_send_word",
        "_slot",
        "_streams",
        "_token",
        "_until",
    )

    if TYPE_CHECKING:

        def _open(self) -> None: ...
        def _lose(self, exc: BaseException | None) -> None: ...

    def __init__(
        self,
        loop: SelectorEventLoop,
        streams: StreamBatch,
        extra: dict[str, object] | None,
    ) -> None:
        super().__init__(extra, loop)
        self._streams = streams
        self._send_to = streams.writes
        self._send_word = 0
        self._token = NO_TOKEN
        self._slot = 0
        self._closing = False
        self._conn_lost = 0
        self._eof = False
        self._empty_waiter: asyncio.Future[None] | None = None
        # How many bytes may be written until we have to look how many of them the
        # kernel has taken; and how many will have been written in all by then.
        self._room = 0
        self._until = 0
        self._grant(NO_ROOM)

    def write(self, data: Buffer) -> None:
        """Send ``data``, with what else is written in this turn of the loop."""
        if type(data) is bytes:
            size = len(data)
            room = self._room - size
            if size and room >= 0:
                self._room = room
                send_to = self._send_to
                # Both or neither: Ctrl-C comes only where a function is called.
                send_to += (self._send_word, data)
                return
        self._write_slowly(data)

    def _write_slowly(self, data: Buffer) -> None:
        """Write what is not bytes, not welcome, or more than there is room for."""
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
        self._open()
        self._until += len(data)
        self._send_to += (self._send_word, bytes(data))
        self._look()

    def _is_lost(self) -> bool:
        """Whether nothing can be written any more; counts the attempts."""
        if not self._conn_lost:
            return False
        if self._conn_lost >= LOST_WRITES_MAX:
            logger.warning("socket.send() raised exception.")
        self._conn_lost += 1
        return True

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        """Send each of them, in as few system calls as one."""
        if self._eof:
            raise RuntimeError("Cannot call writelines() after write_eof()")
        if self._empty_waiter is not None:
            raise RuntimeError("unable to writelines; sendfile is in progress")
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """End the writing side after what was written; reading goes on."""
        if self._closing or self._eof:
            return
        self._open()
        self._eof = True
        self._grant(NO_ROOM)
        self._send_to += (SHUTDOWN | self._slot, b"")

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    # Flow control ------------------------------------------------------------------

    def _grant(self, room: int) -> None:
        """Say how much may be written until the next look."""
        self._until = self._written() + room
        self._room = room

    def _written(self) -> int:
        """Return how many bytes have been written so far."""
        return self._until - self._room

    def _look(self) -> None:
        """See how much is unsent; pause the protocol if that is too much."""
        unsent = self._written() - self._sent()
        if unsent > self._high_water:
            self._maybe_pause_protocol()
            unsent = self.get_write_buffer_size()
        if self._eof or self._conn_lost or not self._token:
            self._grant(NO_ROOM)
        elif self._protocol_paused:
            self._await_low()
            self._grant(PAUSED_STEP)
        else:
            self._grant(self._high_water - unsent)

    def _await_low(self) -> None:
        streams = self._streams
        lib.fdmux_py_stream_await_low(streams.c_loop, self._token, self._low_water)

    def _sent(self) -> int:
        """Return how many bytes the kernel has taken: all, for want of an answer."""
        streams = self._streams
        stats = streams.stats
        if lib.fdmux_stream_stats(streams.c_loop, self._token, stats) < 0:
            return self._written()
        return stats.sent

    def _sent_some(self) -> None:
        """Go on, as the queue of C has become short enough, or empty."""
        self._maybe_resume_protocol()  # which may write more
        if self._conn_lost:
            return
        self._look()
        if self.get_write_buffer_size():
            return
        if self._empty_waiter is not None and not self._empty_waiter.done():
            self._empty_waiter.set_result(None)
        if self._closing:
            self._lose(None)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the kernel has not taken yet."""
        if self._conn_lost or not self._token:
            return 0
        self._streams.settle()
        return self._written() - self._sent()

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Say when the protocol is to be paused and resumed; see asyncio."""
        super().set_write_buffer_limits(high, low)
        if self._token:
            self._look()

    # What asyncio's sendfile asks for ------------------------------------------------

    def _make_empty_waiter(self) -> asyncio.Future[None]:
        """Return what is done when nothing is queued any more."""
        if self._empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self._empty_waiter = self._loop.create_future()
        self._grant(NO_ROOM)
        if not self.get_write_buffer_size():
            self._empty_waiter.set_result(None)
        return self._empty_waiter

    def _reset_empty_waiter(self) -> None:
        self._empty_waiter = None
        if not self._conn_lost:
            self._look()
