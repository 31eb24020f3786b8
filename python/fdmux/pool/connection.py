"""One pooled connection: sends one message at a time, and collects its reply.

Its one rule: a connection is reused only if it is certain that the next bytes are the
next reply. It is closed if bytes follow a reply, or arrive when no message was sent.
Knows neither the pool nor deadlines.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from fdmux.streams.client import connect_stream
from fdmux.streams.limits import QUEUE_MAX, StreamLimits
from fdmux.streams.stream import StreamHandler

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from fdmux.loop.event_loop import SelectorEventLoop
    from fdmux.pool.replies import ReplyFinder
    from fdmux.streams.stream import Stream

# A message is queued in pieces of this size. Reading does not pause meanwhile, since
# the server may send before it has read the whole message.
PIECE_SIZE = 32 * 1024
LIMITS = StreamLimits(queue_max=QUEUE_MAX, queue_high=QUEUE_MAX)


class PoolTls(NamedTuple):
    """How the connections of a pool are encrypted."""

    context: ssl.SSLContext
    server_hostname: str


class Callbacks(NamedTuple):
    """What a connection calls; each message ends with `on_reply` or `on_broken`.

    Attributes:
        on_connected: With the address of the server, as `Stream.peername` has it.
        on_reply: With the whole reply; the connection is idle, or closed.
        on_broken: With the error; the connection is closed. Also called if no message
            was under way.
        on_finder_failed: With an exception of the finder; the message is not ended.
    """

    on_connected: Callable[[object], None]
    on_reply: Callable[[PooledConnection, bytes], None]
    on_broken: Callable[[PooledConnection, OSError], None]
    on_finder_failed: Callable[[Exception], None]


class PooledConnection(StreamHandler):
    """A connection to the server of the pool.

    Args:
        open_stream: Makes the stream of the connection, with this handler.
        callbacks: Are called with the reply, or with the error.
        reply_bytes_max: More bytes without a whole reply are an error.
    """

    __slots__ = (
        "_callbacks",
        "_finder",
        "_is_closed",
        "_reply_bytes_max",
        "_stream",
        "_unsent",
        "is_connected",
        "received",
    )

    def __init__(
        self,
        open_stream: Callable[[StreamHandler], Stream],
        callbacks: Callbacks,
        *,
        reply_bytes_max: int,
    ) -> None:
        self._callbacks = callbacks
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
        """Send ``message``, and collect bytes until ``finder`` finds a whole reply."""
        self._finder = finder
        self._unsent = message
        if self.is_connected:
            self._send_some()

    def close(self) -> None:
        """Close, and call no callback. Idempotent."""
        self._is_closed = True
        self._stream.abort()

    # Called by the stream --------------------------------------------------------

    def on_connect(self, stream: Stream) -> None:
        """Send the message that was waiting for the connection."""
        self.is_connected = True
        self._callbacks.on_connected(stream.peername)
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
        """Treat the connection as broken: the server has closed it."""
        self._break(ConnectionResetError(errno.ECONNRESET, "closed by the server"))

    def on_drain(self, _stream: Stream) -> None:
        """Send the next piece."""
        self._send_some()

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        """Call `on_broken`, unless `close` has closed the connection."""
        if isinstance(error, OSError) and not self._is_closed:
            self._is_closed = True
            self._callbacks.on_broken(self, error)

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
            return  # a reply counts only when the whole message is sent
        try:
            length = self._finder(self.received, seen)
        except Exception as error:  # noqa: BLE001 - `exchange` raises it
            self._callbacks.on_finder_failed(error)
            return
        if length is not None:
            if not self._stream.buffered:  # else `on_drain` calls this again
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
        self._callbacks.on_reply(self, reply)

    def _break(self, error: OSError) -> None:
        self.close()
        self._callbacks.on_broken(self, error)


def use_address(
    loop: SelectorEventLoop,
    address: tuple[str, int],
    tls: PoolTls | None,
    handler: StreamHandler,
) -> Stream:
    """Make a stream that connects to ``address``; each message has its own deadline.

    A name is resolved in a thread (streams/seek.py).
    """
    return connect_stream(
        loop,
        address,
        handler,
        limits=LIMITS,
        timeout=None,
        ssl=None if tls is None else tls.context,
        server_hostname=None if tls is None else tls.server_hostname,
    )
