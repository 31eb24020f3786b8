"""A transport of asyncio whose datagrams are received and sent in batches by C.

Its one rule: what C does not do, asyncio's own transport does, from which it derives:
addresses that are names, empty datagrams, wrong arguments, and all that is rare. C
receives up to 64 datagrams with one system call, calls the protocol for each, and sends
what it has sent with another one. The transport owns the socket, which C borrows.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections import deque
from typing import TYPE_CHECKING, cast

from fdmux._delivery import Endpoint
from fdmux._ffi import ffi, lib
from fdmux.errnos import errno_from_c, text_of
from fdmux.hosts.asyncio.private import DatagramTransportBase, report_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux._delivery import Delivery
    from fdmux._ffi import CDatagramOptions
    from fdmux.hosts.asyncio.private import Handle, SelectorEventLoop

CLOSED = lib.FDMUX_DATAGRAM_CLOSED
ERROR = lib.FDMUX_DATAGRAM_ERROR
FULL = 101  # as ENDPOINT_FULL in csrc/python/datagram_object.h
QUEUE_MAX = (1 << 31) - 1  # asyncio's flow control has no bound
UDP_SIZE_MAX = 64 * 1024
DEFERRED_MAX = 64


class DatagramTransport(DatagramTransportBase):
    """The transport that `EventLoop.create_datagram_endpoint` makes."""

    def __init__(  # noqa: PLR0913, PLR0917 - as asyncio's own
        self,
        loop: SelectorEventLoop,
        streams: Delivery,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        address: object,
        waiter: asyncio.Future[None] | None,
        extra: dict[str, object] | None,
    ) -> None:
        self._streams = streams
        self._core = Endpoint()
        self._is_begun = False
        self._deferred: deque[tuple[bytes, object]] = deque()
        super().__init__(loop, sock, protocol, address, waiter, extra)

    # Beginning ---------------------------------------------------------------------

    def _add_reader(
        self, fd: int, callback: Callable[[], object], *args: object
    ) -> None:
        """Let C receive; asyncio calls this after `connection_made`."""
        if self._is_begun or not self._receives():
            return
        core = self._core
        core._bind(self._streams, None, None, self)  # noqa: SLF001 - ours
        self._context = contextvars.copy_context()
        core._run = self._context.run  # noqa: SLF001 - the same
        sock = cast("socket.socket", self._sock)
        result = core._open(fd, sock.family, ffi.buffer(options_for(sock)))  # noqa: SLF001 - the same
        if result < 0:  # such as ENOSPC of the kernel: asyncio tries itself
            super()._add_reader(fd, callback, *args)
            return
        self._is_begun = True
        core._is_connected = bool(self._extra["peername"])  # noqa: SLF001 - ours
        core._set_flow(bounded(self._high_water))  # noqa: SLF001 - the same
        self._take_with(self._protocol)
        # Found before the method of the class: one call into C for each datagram.
        send = core._sendto  # noqa: SLF001 - ours
        self.sendto = send  # type: ignore[method-assign] # on purpose

    def _take_with(self, protocol: asyncio.BaseProtocol) -> None:
        self._core._on_datagram = getattr(protocol, "datagram_received", None)  # noqa: SLF001 - ours

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give datagrams and events to another protocol from now on."""
        super().set_protocol(protocol)
        if self._is_begun:
            self._take_with(protocol)

    # Reading -----------------------------------------------------------------------

    def _receives(self) -> bool:
        """As `is_reading`, which transports of datagrams have since 3.11.3."""
        return not self._closing and not getattr(self, "_paused", False)

    def pause_reading(self) -> None:
        """Receive nothing until `resume_reading`."""
        self._core._check_thread("pause")  # noqa: SLF001 - ours
        super().pause_reading()
        self._core._pause()  # noqa: SLF001 - ours

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        self._core._check_thread("resume")  # noqa: SLF001 - ours
        super().resume_reading()
        if self._receives():
            self._go_on()

    def _defer(self, datagrams: list[tuple[bytes, object]]) -> None:
        """Deliver after what is ready already, one in each iteration, as asyncio does.

        Called from C. With many waiting, the rest stays in the socket.
        """
        core = self._core
        self._deferred.extend(datagrams)
        if not core._is_deferring:  # noqa: SLF001 - ours
            core._is_deferring = True  # noqa: SLF001 - the same
            self._deliver_soon()
        if len(self._deferred) >= DEFERRED_MAX:
            core._pause()  # noqa: SLF001 - the same

    def _go_on(self) -> None:
        """Deliver the next deferred datagram soon, or receive again."""
        if self._deferred:
            self._deliver_soon()
            return
        self._core._is_deferring = False  # noqa: SLF001 - ours
        self._core._resume()  # noqa: SLF001 - the same

    def _deliver_soon(self) -> None:
        self._loop.call_soon(self._read_ready, context=self._context)

    def _read_ready(self) -> None:
        """Deliver a datagram that was deferred; or else receive one, as asyncio."""
        if not self._is_begun:
            super()._read_ready()
            return
        if not self._deferred or not self._receives():
            return
        data, addr = self._deferred.popleft()
        try:
            self._protocol.datagram_received(data, cast("tuple[str, int]", addr))
        finally:
            if self._receives():
                self._go_on()

    # Writing -----------------------------------------------------------------------

    def _sendto_slowly(self, data: bytes, addr: object) -> None:
        """Send what C has refused, after what it has gathered."""
        self._core._flush()  # noqa: SLF001 - ours
        super().sendto(data, addr)  # type: ignore[arg-type] # whatever was given

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the kernel has not taken, 64 for each datagram more."""
        return super().get_write_buffer_size() + self._core._queued()  # noqa: SLF001 - ours

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Set the sizes at which the protocol is paused and resumed, as in asyncio."""
        self._core._check_thread("set the limits of")  # noqa: SLF001 - ours
        super().set_write_buffer_limits(high, low)
        self._core._set_flow(bounded(self._high_water))  # noqa: SLF001 - ours
        if self._protocol_paused:
            self._core._await_writable(bounded(self._low_water))  # noqa: SLF001 - the same

    # Events from C -----------------------------------------------------------------

    def _event(self, kind: int, code: int, _address: object) -> None:
        """Handle an event other than a datagram; called from C."""
        code = errno_from_c(code)
        if kind == CLOSED:
            self._core._owner = None  # noqa: SLF001 - ours; ends the cycle
            if code and not self._conn_lost:
                error = OSError(code, text_of(code))
                self._fatal_error(error, "Fatal read error on datagram transport")
        elif self._conn_lost:
            return
        elif kind == ERROR:
            self._protocol.error_received(OSError(code, text_of(code)))
        elif kind == FULL:
            self._core._await_writable(bounded(self._low_water))  # noqa: SLF001 - ours
            self._maybe_pause_protocol()
        else:
            self._sent_some()

    def _sent_some(self) -> None:
        self._maybe_resume_protocol()
        if not self._closing:
            return
        if self.get_write_buffer_size():
            self._core._await_writable(0)  # noqa: SLF001 - ours
        else:
            self._conn_lost += 1
            self._call_connection_lost(None)

    def _callback_failed(self, error: BaseException, _what: str) -> None:
        """Report what a protocol has raised, as the handle of a reader does."""
        loop = self._loop
        report_error(cast("Handle", asyncio.Handle(self._read_ready, (), loop)), error)

    # The end -----------------------------------------------------------------------

    def close(self) -> None:
        """Send what is queued, then close; `connection_lost` follows. Idempotent."""
        core = self._core
        if self._closing or not self._is_begun:
            super().close()
            return
        core._check_thread("close")  # noqa: SLF001 - ours
        core._on_datagram = None  # noqa: SLF001 - ours
        core._flush()  # noqa: SLF001 - the same
        if not core._queued() or self._buffer:  # noqa: SLF001 - the same
            super().close()
            return
        self._closing = True
        core._pause()  # noqa: SLF001 - the same
        core._await_writable(0)  # noqa: SLF001 - the same

    def _force_close(self, exc: BaseException | None) -> None:
        self._core._check_thread("abort")  # noqa: SLF001 - ours
        self._core._on_datagram = None  # noqa: SLF001 - ours
        self._core.abort()
        super()._force_close(exc)

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        self._core._on_datagram = self._core._run = None  # noqa: SLF001 - ours
        self._core.abort()  # gives the socket back
        super()._call_connection_lost(exc)

    def __repr__(self) -> str:
        text = super().__repr__()
        if self._is_begun and not self._closing:
            state = "polling" if self._receives() else "idle"
            return text.replace("read=idle", f"read={state}")
        return text


def bounded(size: float) -> int:
    """Return a size for C; asyncio takes any number."""
    return QUEUE_MAX if size >= QUEUE_MAX else int(size)


def options_for(sock: socket.socket) -> CDatagramOptions:
    """Return the options in C for a socket that the transport owns."""
    options = ffi.new("struct fdmux_datagram_options *")
    options.struct_size = ffi.sizeof("struct fdmux_datagram_options")
    is_unix = sock.family == getattr(socket, "AF_UNIX", None)  # Windows has none
    options.size_max = DatagramTransport.max_size if is_unix else UDP_SIZE_MAX
    options.queue_max = QUEUE_MAX
    options.flags = lib.FDMUX_DATAGRAM_BORROW
    return options
