"""One pooled connection: sends a message, collects the reply, one at a time.

Its one rule: a connection whose place in the conversation is not certain is closed,
never reused. That is one with bytes after a reply, or with anything to read while
nothing was asked. Knows neither the pool nor deadlines.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Protocol

from fdmux.streams.client import add_stream, connect_stream
from fdmux.streams.limits import QUEUE_MAX, StreamLimits
from fdmux.streams.stream import StreamHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux.loop.event_loop import SelectorEventLoop
    from fdmux.pool.replies import ReplyFinder
    from fdmux.streams.stream import Stream

# Of a message so much is queued at once. Reading never pauses meanwhile: the server may
# have to be read before it takes the rest.
PIECE_SIZE = 32 * 1024
LIMITS = StreamLimits(queue_max=QUEUE_MAX, queue_high=QUEUE_MAX)


class ExchangeOwner(Protocol):
    """Who is told how it went. Either call is the last one for that message."""

    def on_reply(self, connection: PooledConnection, reply: bytes) -> None:
        """``reply`` is whole; the connection is idle, or closed."""

    def on_broken(self, connection: PooledConnection, error: OSError) -> None:
        """The connection is closed, with a message under way or not."""

    def on_faulty_finder(self, error: Exception) -> None:
        """The finder has raised; the message is still under way."""


class PooledConnection(StreamHandler):
    """A connection to the pool's server.

    Args:
        open_stream: Makes the stream of the connection, for this handler.
        owner: Gets the reply, or the error.
        reply_bytes_max: A reply that is longer and not whole is an error.
    """

    __slots__ = (
        "_finder",
        "_is_closed",
        "_owner",
        "_reply_bytes_max",
        "_stream",
        "_unsent",
        "is_connected",
        "received",
    )

    def __init__(
        self,
        open_stream: Callable[[StreamHandler], Stream],
        owner: ExchangeOwner,
        *,
        reply_bytes_max: int,
    ) -> None:
        self._owner = owner
        self._reply_bytes_max = reply_bytes_max
        self._finder: ReplyFinder | None = None
        self._unsent = memoryview(b"")
        self.received = bytearray()
        self.is_connected = False
        self._is_closed = False
        self._stream = open_stream(self)

    @property
    def is_open(self) -> bool:
        """Whether the connection can still be used."""
        return not self._is_closed

    @property
    def is_idle(self) -> bool:
        """Whether it can take a message."""
        return self._finder is None

    def begin(self, message: memoryview, finder: ReplyFinder) -> None:
        """Send ``message``, and collect what comes until ``finder`` is content."""
        self._finder = finder
        self._unsent = message
        if self.is_connected:
            self._send_some()

    def close(self) -> None:
        """Close, without a word to the owner. Idempotent."""
        self._is_closed = True
        self._stream.abort()

    # What the stream tells -------------------------------------------------------

    def on_connect(self, _stream: Stream) -> None:
        """Send what had to wait for this."""
        self.is_connected = True
        if not self.is_idle:
            self._send_some()

    def on_data(self, _stream: Stream, data: bytes) -> None:
        """Collect the reply."""
        if self.is_idle:
            self._break(ConnectionAbortedError(errno.ECONNABORTED, "not asked for"))
            return
        seen = len(self.received)
        self.received += data
        self._finish_if_whole(seen)

    def on_end(self, _stream: Stream) -> None:
        """Give up: the server has closed the connection."""
        self._break(ConnectionResetError(errno.ECONNRESET, "closed by the server"))

    def on_drain(self, _stream: Stream) -> None:
        """Send the next piece."""
        self._send_some()

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        """Tell the owner what broke the connection; not if we have closed it."""
        if isinstance(error, OSError) and not self._is_closed:
            self._is_closed = True
            self._owner.on_broken(self, error)

    # One exchange ----------------------------------------------------------------

    def _send_some(self) -> None:
        while self._unsent:
            self._stream.write(self._unsent[:PIECE_SIZE])
            self._unsent = self._unsent[PIECE_SIZE:]
            if self._unsent and self._stream.buffered:
                return  # until `on_drain`
        self._finish_if_whole(0)

    def _finish_if_whole(self, seen: int) -> None:
        if self._finder is None or self._unsent:
            return  # a reply that precedes the end of the question has to wait
        try:
            length = self._finder(self.received, seen)
        except Exception as error:  # noqa: BLE001 - the caller's function, raised to it
            self._owner.on_faulty_finder(error)
            return
        if length is not None:
            if not self._stream.buffered:  # else `on_drain` comes here again
                self._finish(length)
        elif len(self.received) > self._reply_bytes_max:
            text = f"no whole reply in {len(self.received)} bytes"
            self._break(ConnectionAbortedError(errno.EMSGSIZE, text))

    def _finish(self, length: int) -> None:
        reply = bytes(self.received[:length])
        if length < len(self.received):
            self.close()
        self._finder = None
        self.received.clear()
        self._owner.on_reply(self, reply)

    def _break(self, error: OSError) -> None:
        self.close()
        self._owner.on_broken(self, error)


def use_socket(
    loop: SelectorEventLoop, sock: socket.socket, handler: StreamHandler
) -> Stream:
    """Make a stream of a connected socket."""
    # A message must not wait for the acknowledgement of the one before it (Nagle).
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = add_stream(loop, sock, handler, limits=LIMITS)
    handler.on_connect(stream)
    return stream


def use_address(
    loop: SelectorEventLoop, address: tuple[str, int], handler: StreamHandler
) -> Stream:
    """Make a stream that connects to ``address``."""
    return connect_stream(loop, address, handler, limits=LIMITS)
