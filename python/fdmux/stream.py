"""Stream: one buffered connection, with callbacks; `connect_stream` makes one.

Its one rule: after `on_close` nothing is called. What a callback writes goes out when
the batch is over (streams.py); how much may wait, and how long, is bounded in C.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, cast

from fdmux._ffi import ffi, lib
from fdmux._native import check
from fdmux.limits import QUEUE_MAX, STREAM_LIMITS
from fdmux.streams import ignore_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fdmux._ffi import CLoop, CStreamOptions, CStreamStats, CToken
    from fdmux.limits import StreamLimits
    from fdmux.loop import SelectorEventLoop
    from fdmux.streams import StreamHub

    Buffer = bytes | bytearray | memoryview
    SocketAddress = tuple[str, int] | tuple[str, int, int, int] | str
    StartStream = Callable[[CLoop, int, CStreamOptions, CToken], int]

logger = logging.getLogger(__name__)

SEND = lib.FDMUX_PY_SEND
PASS = lib.FDMUX_PY_PASS
PART = lib.FDMUX_PY_PART
# From here on it is cheaper to find out where a part of the arena lies than to copy it.
PART_SIZE_MIN = 4096
# A chunk from here on is sent at once, instead of being joined with others.
LARGE_SIZE = 64 * 1024
SLOT_MASK = (1 << 28) - 1

CONNECT_UNDER_WAY = frozenset({0, errno.EINPROGRESS, errno.EINTR})

CLOSED = lib.FDMUX_STREAM_CLOSED
CONNECTED = lib.FDMUX_STREAM_CONNECTED
END = lib.FDMUX_STREAM_END
WRITABLE = lib.FDMUX_STREAM_WRITABLE
DRAINED = lib.FDMUX_STREAM_DRAINED


class StreamHandler:
    """What happens to streams; override the methods you need.

    One handler may serve any number of streams. An exception in a method closes its
    stream with that error and is logged.

    Threads: The loop's.
    """

    def on_connect(self, stream: Stream) -> None:
        """Begin: the connection stands."""

    def on_data(self, stream: Stream, view: memoryview) -> Buffer | None:
        """Take what arrived, in any division, at most 64 KiB at once.

        ``view`` is valid until this returns; keep ``bytes(view)``, not the view. What
        this returns is written back: the view itself without a copy.
        """

    def on_end(self, stream: Stream) -> None:
        """Note that the peer sends no more. The default closes the stream."""
        stream.close()

    def on_writable(self, stream: Stream) -> None:
        """Go on writing: from ``queue_high`` the queue has fallen to ``queue_low``."""

    def on_drain(self, stream: Stream) -> None:
        """Note that everything written was taken, after some had to wait."""

    def on_close(self, stream: Stream, error: Exception | None) -> None:
        """End: nothing follows. ``error`` is None when the stream ended as asked."""


class Stream:
    """One connection of a `SelectorEventLoop`: what you write is sent in order.

    Made by `StreamServer`, `connect_stream` and `add_stream`; passed to the handler.

    Attributes:
        data: Yours, to keep what belongs to this connection.

    Threads: The loop's.
    """

    __slots__ = (
        "_can_write",
        "_error",
        "_handler",
        "_hub",
        "_is_open",
        "_is_over",
        "_name",
        "_slot",
        "data",
    )

    def __init__(
        self, hub: StreamHub, slot: int, handler: StreamHandler, name: str = "stream"
    ) -> None:
        self._hub = hub
        self._slot = slot
        self._handler = handler
        self._name = name
        self._can_write = True
        self._is_open = True  # was not asked to end
        self._is_over = False
        self._error: Exception | None = None
        self.data: object = None
        hub.adopt(slot, self, handler.on_data)

    def __repr__(self) -> str:
        return f"<fdmux.Stream fd={self.fileno()}>"

    # Writing -----------------------------------------------------------------------

    def write(self, data: Buffer) -> None:
        """Send ``data`` when the batch is over, after all that was written before.

        The view that `on_data` has is sent from where it lies, and so is a part of it
        from 4 KiB on; everything else is copied, so the caller may change it at once.
        More than ``queue_max`` that the peer does not take ends the stream with
        ENOBUFS: look at `buffered`, and write on from `on_writable` or `on_drain`.

        Raises:
            BrokenPipeError: The stream is closed, closing, or was shut down.
            TypeError: ``data`` is not bytes-like.
        """
        if not self._can_write:
            raise BrokenPipeError(errno.EPIPE, f"write to {self!r}: it was closed")
        hub = self._hub
        if type(data) is bytes:
            self._write_copy(data)
        elif data is not None and data is hub.view:
            hub.ops.append(hub.source << 32 | PASS | self._slot)
        elif type(data) is memoryview and data.nbytes >= PART_SIZE_MIN:
            self._write_part(data)
        else:
            self._write_copy(bytes(memoryview(data)))

    def _write_part(self, view: memoryview) -> None:
        """Write what may be a part of the arena, and need no copy."""
        place = self._hub.place_of(view)
        if place is None:
            self._write_copy(bytes(view))
        else:
            word = place << 32 | PART | self._slot
            self._hub.ops.extend((word, view.nbytes))  # both or neither, as below

    def _write_copy(self, chunk: bytes) -> None:
        size = len(chunk)
        if not size:
            return
        if size > QUEUE_MAX:
            raise ValueError(f"write {size} bytes at once: {QUEUE_MAX} at most")
        hub = self._hub
        word = size << 32 | SEND | self._slot
        # Both or neither: Ctrl-C comes only where a function is called.
        hub.chunks += (chunk,)
        hub.ops.append(word)
        if size >= LARGE_SIZE:
            hub.settle()

    def writelines(self, lines: Iterable[Buffer]) -> None:
        """Write each of ``lines``; they leave in as few calls as one write would."""
        self.write(b"".join(lines))

    def shutdown(self) -> None:
        """End the writing side after what is queued; reading goes on. Idempotent."""
        if self._can_write:
            self._can_write = False
            self._hub.ops.append(lib.FDMUX_PY_SHUTDOWN | self._slot)

    def close(self, error: Exception | None = None) -> None:
        """Send what is queued, then end the stream; `on_close` follows. Idempotent.

        Nothing else follows: no more `on_data`, `on_end`, `on_writable`, `on_drain`.

        Args:
            error: What `on_close` gets.
        """
        if self._is_open:
            self._error = error
            self._stop(lib.FDMUX_PY_CLOSE)

    def abort(self, error: Exception | None = None) -> None:
        """End the stream at once, and drop what is queued; `on_close` follows.

        Also after `close`, to wait no longer.

        Args:
            error: What `on_close` gets.
        """
        if self._is_over:
            return
        if self._error is None:
            self._error = error
        self._stop(lib.FDMUX_PY_DROP)

    def _stop(self, verb: int) -> None:
        self._is_open = self._can_write = False
        self._hub.takers[self._slot] = ignore_data
        self._hub.ops.append(verb | self._slot)

    # Reading -----------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Call no `on_data` until `resume_reading`; what came already is delivered.

        The end of the stream is not noticed meanwhile, nor a reset.
        """
        if not self._is_over:
            lib.fdmux_stream_pause(self._hub.c_loop, self._hub.token(self._slot))

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if not self._is_over:
            lib.fdmux_stream_resume(self._hub.c_loop, self._hub.token(self._slot))

    # Facts -------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor, which stays the stream's; -1 when it is over."""
        if self._is_over:
            return -1
        hub = self._hub
        return max(lib.fdmux_stream_fd(hub.c_loop, hub.token(self._slot)), -1)

    @property
    def is_closing(self) -> bool:
        """Whether the stream is closed, or was asked to."""
        return not self._is_open

    @property
    def peername(self) -> object:
        """The address of the peer, as `socket.socket.getpeername` gives it; or None."""
        fd = self.fileno()
        if fd < 0:
            return None
        try:
            with socket.socket(fileno=os.dup(fd)) as sock:
                peer: object = sock.getpeername()
        except OSError:
            return None
        return peer

    @property
    def buffered(self) -> int:
        """How many bytes wait for the peer to take them; 0 when the stream is over.

        What was written in this batch is sent first, as far as the kernel takes it.
        """
        return self._stats().queued

    @property
    def received(self) -> int:
        """How many bytes have arrived; 0 when the stream is over."""
        return self._stats().received

    @property
    def sent(self) -> int:
        """How many bytes the kernel has taken; 0 when the stream is over."""
        return self._stats().sent

    def _stats(self) -> CStreamStats:
        stats = ffi.new("struct fdmux_stream_stats *")
        stats.struct_size = ffi.sizeof("struct fdmux_stream_stats")
        if not self._is_over:
            hub = self._hub
            hub.settle()
            # On failure the counters stay 0: C has ended it, and will say so.
            lib.fdmux_stream_stats(hub.c_loop, hub.token(self._slot), stats)
        return stats

    # What the hub tells ------------------------------------------------------------

    def event(self, kind: int, _first: int, last: int) -> None:
        """Pass a record on to the handler; called by the hub."""
        if kind == CLOSED:
            self._finish(last)
        elif not self._is_open:
            return
        elif kind == CONNECTED:
            self._name = self._name.replace("connect", "stream", 1)
            self._handler.on_connect(self)
        elif kind == END:
            self._handler.on_end(self)
        elif kind == WRITABLE:
            self._handler.on_writable(self)
        elif kind == DRAINED:
            self._handler.on_drain(self)

    def _finish(self, code: int) -> None:
        self._is_open = self._can_write = False
        self._is_over = True
        error = self._error
        if error is None and code:
            error = OSError(code, f"{self._name}: {os.strerror(code)}")
        self._error = None  # its traceback would keep frames alive
        self._handler.on_close(self, error)

    def callback_failed(self, error: Exception) -> None:
        """Report an exception of the handler, and end the stream with it."""
        logger.error("a callback of %r raised", self, exc_info=error)
        self.abort(error)


def add_stream(
    loop: SelectorEventLoop,
    sock: socket.socket,
    handler: StreamHandler,
    *,
    limits: StreamLimits = STREAM_LIMITS,
) -> Stream:
    """Serve a connected socket as a stream of ``loop``; the stream owns it then.

    Raises:
        OSError: The kernel refused to watch it; ``sock`` is still the caller's.
    """
    sock.setblocking(False)
    hub = loop.streams
    slot = hand_over(hub, lib.fdmux_stream_add, sock, limits.to_c())
    return Stream(hub, slot, handler)


def hand_over(
    hub: StreamHub, start: StartStream, sock: socket.socket, options: CStreamOptions
) -> int:
    """Give a socket to C, which owns it from then on; returns its slot."""
    token = ffi.new("uint64_t *")
    result = start(hub.c_loop, sock.fileno(), options, token)
    check(result, f"make a stream of fd {sock.fileno()}")
    sock.detach()
    return token[0] & SLOT_MASK


def connect_stream(
    loop: SelectorEventLoop,
    address: tuple[str, int] | str,
    handler: StreamHandler,
    *,
    limits: StreamLimits = STREAM_LIMITS,
) -> Stream:
    """Begin to connect to ``address``; `on_connect`, or `on_close`, follows.

    What is written before that is sent when the connection stands.

    Args:
        loop: Whose callbacks they will be.
        address: Host and port, the host as an IPv4 or IPv6 address, since resolving a
            name would block the loop; or the path of a Unix socket.
        handler: Whom to tell.
        limits: What the stream may take.

    Raises:
        ValueError: The host is a name.
        OverflowError: The port is not in 0 to 65535.
        OSError: The connection cannot even be begun; the message names the address.
    """
    family, where = parse_address(address)
    hub = loop.streams
    attempt = f"connect to {address!r}"
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        error = sock.connect_ex(where)
        if error not in CONNECT_UNDER_WAY:
            raise OSError(error, f"{attempt}: {os.strerror(error)}")
        slot = hand_over(hub, lib.fdmux_stream_connect, sock, limits.to_c())
    return Stream(hub, slot, handler, attempt)


def parse_address(address: tuple[str, int] | str) -> tuple[int, SocketAddress]:
    """Return the family and what `socket.connect` takes."""
    if isinstance(address, str):
        return socket.AF_UNIX, address
    host, port = address
    if not 0 <= port <= 65535:
        raise OverflowError(f"connect to {address!r}: port must be 0-65535")
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except socket.gaierror:
        raise ValueError(
            f"connect to {address!r}: not an IP address; resolve names first"
        ) from None
    family, _kind, _protocol, _name, where = found[0]
    return family, cast("SocketAddress", where)
