"""A transport of asyncio whose connection is a stream of the C core.

Its one rule: whatever asyncio's own transport promises holds here, to the exception and
its message. It keeps the socket, which C only borrows; C keeps the bytes that the
kernel does not take at once. How transports take turns is asyncio_streams.py.

Names with an underscore that nothing here reads are read by asyncio: sslproto.py and
the `sendfile` of its loops use them on any transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import socket
import warnings
from asyncio import trsock
from typing import TYPE_CHECKING, cast

from fdmux._ffi import ffi, lib
from fdmux._native import check
from fdmux.hosts.asyncio_private import (
    LOST_WRITES_MAX,
    SENDFILE_MODE,
    SERVER_ARGUMENTS,
    FlowControl,
)
from fdmux.hosts.asyncio_streams import NOBODY, ignore_data

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from fdmux.hosts.asyncio_private import SelectorEventLoop, Server
    from fdmux.hosts.asyncio_streams import DataCallback, StreamBatch

    Buffer = bytes | bytearray | memoryview

    class Warn(Protocol):
        """`warnings.warn`, which is gone when the interpreter ends."""

        def __call__(
            self, message: str, category: type[Warning], *, source: object
        ) -> None:
            """Warn."""


logger = logging.getLogger("asyncio")

SEND = lib.FDMUX_PY_SEND
SHUTDOWN = lib.FDMUX_PY_SHUTDOWN
CLOSED = lib.FDMUX_STREAM_CLOSED
END = lib.FDMUX_STREAM_END
SLOT_MASK = (1 << 28) - 1
# While the protocol is paused, and writes on, C is given so much at once.
PAUSED_STEP = 1 << 18
NEVER = -1
NO_TOKEN = 0  # no token is 0
INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})


class StreamTransport(FlowControl, asyncio.Transport):
    """What `EventLoop.create_server`, `create_connection` and the like make.

    A protocol's `data_received` is looked up when the connection is made, and when
    `set_protocol` is called, not for each message.
    """

    # All in slots, since every message looks at some; whoever adds attributes of their
    # own gets the dictionary that is empty otherwise.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_closing",
        "_conn_lost",
        "_context",
        "_empty_waiter",
        "_eof",
        "_held",
        "_is_begun",
        "_look_at",
        "_paused",
        "_protocol",
        "_protocol_connected",
        "_send_word",
        "_server",
        "_slot",
        "_sock",
        "_sock_fd",
        "_streams",
        "_token",
        "_writes",
        "_written",
    )

    _start_tls_compatible = True
    _sendfile_compatible = SENDFILE_MODE

    def __init__(
        self,
        loop: SelectorEventLoop,
        streams: StreamBatch,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        extra: dict[str, object] | None,
    ) -> None:
        super().__init__(extra, loop)
        self._describe(sock)
        self._streams = streams
        self._writes = streams.writes
        self._sock: socket.socket | None = sock
        self._sock_fd = sock.fileno()
        self._token = NO_TOKEN
        self._slot = 0
        self._send_word = 0
        self._is_begun = False
        self._context = contextvars.copy_context()
        self._closing = False
        self._conn_lost = 0
        self._paused = False
        self._eof = False
        self._empty_waiter: asyncio.Future[None] | None = None
        # What came while paused; None stands for the end.
        self._held: list[bytes | None] = []
        # Bytes written so far; and how many there may be until we have to look how many
        # of them the kernel has taken. NEVER: each write goes the long way.
        self._written = 0
        self._look_at = NEVER
        self._server: Server | None = None
        self.set_protocol(protocol)

    def begin(self, server: Server | None, waiter: asyncio.Future[None] | None) -> None:
        """Let `connection_made` be called soon; and then ``waiter`` be done."""
        loop = self._loop
        self._server = server
        if server is not None:
            server._attach(*(self,) * SERVER_ARGUMENTS)  # noqa: SLF001 - see asyncio_private.py
        loop._transports[self._sock_fd] = self  # noqa: SLF001 - the same
        if self._sock is not None:
            set_no_delay(self._sock)
        loop.call_soon(self._begin)
        if waiter is not None:
            loop.call_soon(set_unless_cancelled, waiter)

    def _describe(self, sock: socket.socket) -> None:
        extra = self._extra
        extra["socket"] = trsock.TransportSocket(sock)
        try:
            extra["sockname"] = sock.getsockname()
        except OSError:
            extra["sockname"] = None
        if "peername" not in extra:
            try:
                extra["peername"] = sock.getpeername()
            except OSError:
                extra["peername"] = None

    def __repr__(self) -> str:
        info = [type(self).__name__]
        if self._sock is None:
            info.append("closed")
        elif self._closing:
            info.append("closing")
        info.append(f"fd={self._sock_fd}")
        if self._loop is not None and not self._loop.is_closed():
            info.append("read=polling" if self._is_polling() else "read=idle")
            size = self.get_write_buffer_size()
            state = "polling" if size else "idle"
            info.append(f"write=<{state}, bufsize={size}>")
        return f"<{' '.join(info)}>"

    def _is_polling(self) -> bool:
        return self._is_begun and self.is_reading()

    def __del__(self, _warn: Warn = warnings.warn) -> None:
        sock: socket.socket | None = getattr(self, "_sock", None)
        if sock is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._give_back()
            sock.close()
            self._leave_server()

    # Birth -------------------------------------------------------------------------

    def _begin(self) -> None:
        """Call `connection_made`, then let data come."""
        if not self._closing:
            self._open()
        try:
            self._protocol.connection_made(self)
        finally:
            self._is_begun = True
            self._context = contextvars.copy_context()
            self._bind()

    def _open(self) -> None:
        """Lend the socket to C, unless that is done."""
        if self._token:
            return
        streams = self._streams
        token = ffi.new("uint64_t *")
        try:
            result = lib.fdmux_py_stream_lend(
                streams.c_loop, self._sock_fd, streams.options, token
            )
            check(result, f"make a stream of fd {self._sock_fd}")
        except Exception as error:  # noqa: BLE001 - ends this connection
            self._fatal_error(error, "Fatal error on transport")
            return
        self._token = token[0]
        self._slot = self._token & SLOT_MASK
        self._send_word = SEND | self._slot
        streams.adopt(self._slot, self)
        self._look_at = self._high_water
        if self._paused:
            lib.fdmux_stream_pause(streams.c_loop, self._token)

    # The protocol ------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol take what comes from now on."""
        self._protocol = protocol
        self._protocol_connected = True
        self._bind()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return whoever takes what comes."""
        return self._protocol

    def _bind(self) -> None:
        """Say who takes the data that C has received, as things stand now."""
        if not self._token:
            return
        self._streams.runs[self._slot] = self._context.run
        self._streams.takers[self._slot] = self._taker()

    def _taker(self) -> DataCallback:
        if self._closing or not self._is_begun:
            return ignore_data
        if self._paused or self._held:
            return self._held.append
        if isinstance(self._protocol, asyncio.BufferedProtocol):
            return self._fill
        return cast("asyncio.Protocol", self._protocol).data_received

    def _fill(self, data: bytes) -> None:
        """Hand data to a `BufferedProtocol`, as much at a time as it has room for."""
        view = memoryview(data)
        while view:
            protocol = self._protocol
            if self._closing:
                return
            if self._paused or not isinstance(protocol, asyncio.BufferedProtocol):
                self._keep(bytes(view))
                return
            count = self._copy(protocol, view)
            if not count:
                return
            view = view[count:]

    def _copy(self, protocol: asyncio.BufferedProtocol, view: memoryview) -> int:
        """Copy into the protocol's buffer; return how much, 0 if that ended it."""
        what = "get_buffer"
        try:
            with memoryview(protocol.get_buffer(-1)).cast("B") as buffer:
                count = min(len(buffer), len(view))
                buffer[:count] = view[:count]
            if not count:
                raise RuntimeError("get_buffer() returned an empty buffer")  # noqa: TRY301 - its own error
            what = "buffer_updated"
            protocol.buffer_updated(count)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - ends this connection
            self._fatal_error(error, f"Fatal error: protocol.{what}() call failed.")
            return 0
        return count

    def _keep(self, data: bytes | None) -> None:
        """Hold what may not be told now; it is when reading goes on."""
        self._held.append(data)
        self._bind()
        if not self._paused:
            self._loop.call_soon(self._tell_held, context=self._context)

    def _tell_held(self) -> None:
        """Tell what was held, in its order, for as long as reading goes on."""
        while self._held and self.is_reading():
            data = self._held.pop(0)
            if data is None:
                self._tell_end()
            elif isinstance(self._protocol, asyncio.BufferedProtocol):
                self._tell_one(self._fill, data)
            else:
                protocol = cast("asyncio.Protocol", self._protocol)
                self._tell_one(protocol.data_received, data)
        self._bind()

    def _tell_one(self, take: DataCallback, data: bytes) -> None:
        try:
            take(data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - ends this connection
            self.callback_failed(error)

    def _tell_end(self) -> None:
        if self._loop.get_debug():
            logger.debug("%r received EOF", self)
        try:
            keep_open = cast("asyncio.Protocol", self._protocol).eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - ends this connection
            self._fatal_error(
                error, "Fatal error: protocol.eof_received() call failed."
            )
            return
        if not keep_open:
            self.close()

    # What C tells ------------------------------------------------------------------

    def event(self, kind: int, code: int) -> None:
        """Take a record that is not data; called by the batch."""
        self._context.run(self._event, kind, code)

    def _event(self, kind: int, code: int) -> None:
        if kind == CLOSED:
            self._token = NO_TOKEN
            self._look_at = NEVER
            if not self._conn_lost:
                error = OSError(code, os.strerror(code))
                self._fatal_error(error, "Fatal error on socket transport")
        elif self._conn_lost:
            return
        elif kind != END:
            self._sent_some()
        elif self._paused or self._held:
            self._keep(None)
        elif not self._closing:
            self._tell_end()

    def callback_failed(self, error: BaseException) -> None:
        """End the connection as `data_received` raised; called by the batch."""
        self._fatal_error(error, "Fatal error: protocol.data_received() call failed.")

    def _sent_some(self) -> None:
        """The queue has become short enough, or empty."""
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

    # Reading -----------------------------------------------------------------------

    def is_reading(self) -> bool:
        """Whether data may come."""
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        """Let no data come until `resume_reading`. Idempotent."""
        if not self.is_reading():
            return
        self._paused = True
        if self._token:
            lib.fdmux_stream_pause(self._streams.c_loop, self._token)
            self._bind()
        if self._loop.get_debug():
            logger.debug("%r pauses reading", self)

    def resume_reading(self) -> None:
        """Undo `pause_reading`. Idempotent."""
        if self._closing or not self._paused:
            return
        self._paused = False
        # As asyncio does, which makes a new handle here.
        self._context = contextvars.copy_context()
        if self._token:
            lib.fdmux_stream_resume(self._streams.c_loop, self._token)
            self._bind()
        if self._held:
            self._loop.call_soon(self._tell_held)
        if self._loop.get_debug():
            logger.debug("%r resumes reading", self)

    # Writing -----------------------------------------------------------------------

    def write(self, data: Buffer) -> None:
        """Send ``data``, with what else is written in this turn of the loop."""
        if type(data) is bytes:
            size = len(data)
            written = self._written + size
            if size and written <= self._look_at:
                self._written = written
                # Both or neither: Ctrl-C comes only where a function is called.
                self._writes += (self._send_word, data)
                return
        self._write_slowly(data)

    def _write_slowly(self, data: Buffer) -> None:
        """Write what is not bytes, not welcome, or more than has been looked after."""
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
        self._written += len(data)
        self._writes += (self._send_word, bytes(data))
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
        self._look_at = NEVER
        self._writes += (SHUTDOWN | self._slot, b"")

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    # Flow control ------------------------------------------------------------------

    def _look(self) -> None:
        """See how much is unsent; pause the protocol if that is too much.

        Sets how much may be written until the next look.
        """
        unsent = self._written - self._sent()
        if unsent > self._high_water:
            self._maybe_pause_protocol()
            unsent = self.get_write_buffer_size()
        if self._eof or self._conn_lost or not self._token:
            self._look_at = NEVER
        elif self._protocol_paused:
            self._await_low()
            self._look_at = self._written + PAUSED_STEP
        else:
            self._look_at = self._written - unsent + self._high_water

    def _await_low(self) -> None:
        streams = self._streams
        lib.fdmux_py_stream_await_low(streams.c_loop, self._token, self._low_water)

    def _sent(self) -> int:
        """Return how many bytes the kernel has taken: all, for want of an answer."""
        streams = self._streams
        stats = streams.stats
        if lib.fdmux_stream_stats(streams.c_loop, self._token, stats) < 0:
            return self._written
        return stats.sent

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the kernel has not taken yet."""
        if self._conn_lost or not self._token:
            return 0
        self._streams.settle()
        return self._written - self._sent()

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Say when the protocol is to be paused and resumed; see asyncio."""
        super().set_write_buffer_limits(high, low)
        if self._token:
            self._look()

    # The end -----------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether the connection is closed, or was asked to."""
        return self._closing

    def close(self) -> None:
        """Send what was written, then close; `connection_lost` follows. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self._bind()
        if self.get_write_buffer_size():
            lib.fdmux_stream_pause(self._streams.c_loop, self._token)
            self._look_at = NEVER
            return
        self._lose(None)

    def abort(self) -> None:
        """Close at once, and drop what was not sent; `connection_lost` follows."""
        self._force_close(None)

    def _fatal_error(
        self, exc: BaseException, message: str = "Fatal error on transport"
    ) -> None:
        """Report what ends the connection, and end it."""
        if isinstance(exc, OSError):
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=exc)
        else:
            self._loop.call_exception_handler(
                {
                    "message": message,
                    "exception": exc,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
        self._force_close(exc)
        if self._empty_waiter is not None and not self._empty_waiter.done():
            self._empty_waiter.set_exception(exc)

    def _force_close(self, exc: BaseException | None) -> None:
        if self._conn_lost:
            return
        self._streams.settle()  # written before: sent as far as the kernel takes it
        self._closing = True
        self._bind()
        self._lose(exc)

    def _lose(self, exc: BaseException | None) -> None:
        self._conn_lost += 1
        self._look_at = NEVER
        self._loop.call_soon(self._call_connection_lost, exc)

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        try:
            if self._protocol_connected:
                self._protocol.connection_lost(cast("Exception | None", exc))
        finally:
            self._give_back()
            sock, self._sock = self._sock, None
            if sock is not None:
                sock.close()
            self._leave_server()
            # As asyncio's own: what uses it now fails, and there is no cycle.
            self._protocol = None  # type: ignore[assignment] # the last there is
            self._loop = None  # type: ignore[assignment] # the same
            if self._empty_waiter is not None and not self._empty_waiter.done():
                self._empty_waiter.set_exception(
                    ConnectionError("Connection is closed by peer")
                )

    def _give_back(self) -> None:
        """Take the socket back from C; what is queued is dropped."""
        token, self._token = self._token, NO_TOKEN
        self._held.clear()
        if not token:
            return
        streams = self._streams
        streams.adopt(self._slot, NOBODY)
        lib.fdmux_py_stream_give_back(streams.c_loop, token)

    def _leave_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server._detach(*(self,) * SERVER_ARGUMENTS)  # noqa: SLF001 - as above

    # What asyncio's sendfile asks for ------------------------------------------------

    def _make_empty_waiter(self) -> asyncio.Future[None]:
        """Return what is done when nothing is queued any more."""
        if self._empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self._empty_waiter = self._loop.create_future()
        self._look_at = NEVER
        if not self.get_write_buffer_size():
            self._empty_waiter.set_result(None)
        return self._empty_waiter

    def _reset_empty_waiter(self) -> None:
        self._empty_waiter = None
        if not self._conn_lost:
            self._look()


def set_no_delay(sock: socket.socket) -> None:
    """Let small messages of TCP leave at once."""
    if sock.family in INTERNET and sock.proto == socket.IPPROTO_TCP:
        with contextlib.suppress(OSError):  # reset meanwhile
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def set_unless_cancelled(waiter: asyncio.Future[None]) -> None:
    """Wake whoever waits for the transport."""
    if not waiter.cancelled():
        waiter.set_result(None)
