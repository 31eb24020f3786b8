"""DatagramEndpoint: one datagram socket of a loop; DatagramHandler: its callbacks.

C receives, calls the handler and sends (csrc/python). This file has what happens once:
how an endpoint begins, what is known of it, and how it ends.

Its one rule: a call that raises opens nothing, and leaves a socket that it was given as
it was.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, NamedTuple

from fdmux._delivery import Endpoint as CoreEndpoint
from fdmux._ffi import ffi, lib
from fdmux._native import check
from fdmux.checks import refusal
from fdmux.datagrams.address import check_given, open_socket, own_address
from fdmux.datagrams.limits import DATAGRAM_LIMITS, DatagramLimits, c_options
from fdmux.datagrams.socket_view import SocketView
from fdmux.debugging import place_of_caller, state
from fdmux.errnos import errno_from_c, text_of
from fdmux.loop.event_loop import check_loop, delivery_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from typing_extensions import Buffer

    from fdmux.datagrams.address import Address
    from fdmux.loop.event_loop import SelectorEventLoop
    from fdmux.streams.address import SocketFile

    Pair = tuple[Buffer, Address | None]

logger = logging.getLogger(__name__)

CLOSED = lib.FDMUX_DATAGRAM_CLOSED
ERROR = lib.FDMUX_DATAGRAM_ERROR
CALLBACKS = ("on_error", "on_writable", "on_close")


class DatagramHandler:
    """Callbacks of endpoints; override those you need.

    One handler may serve any number of endpoints. An exception in a callback is logged,
    and the endpoint goes on: anybody can send a datagram, so a bad one must not end a
    server. `KeyboardInterrupt` and `SystemExit` are raised by ``run`` of the loop.

    Order:   The callbacks come as things happen, `on_close` last.
    Threads: The loop's.
    """

    def on_datagram(
        self, endpoint: DatagramEndpoint, data: bytes, address: Address | None
    ) -> Buffer | None:
        """Called for each datagram; returns the answer to its sender, or None.

        The answers of a batch, at most 64, are sent together when its last datagram was
        given.

        Args:
            endpoint: Which has received it.
            data: The bytes; empty datagrams come too.
            address: Of the sender, as `socket.socket.recvfrom` returns it; None for a
                Unix socket without a name.
        """

    def on_datagrams(
        self, endpoint: DatagramEndpoint, datagrams: list[tuple[bytes, Address | None]]
    ) -> Iterable[Pair] | None:
        """Called with all datagrams of a batch, instead of `on_datagram` for each.

        Override it to be called once for up to 64 datagrams. The pairs that are
        returned are sent: the same list is an echo. With ``local_address`` or ``ecn``,
        the pairs are `Datagram` objects.
        """

    def on_error(
        self, endpoint: DatagramEndpoint, error: OSError, address: Address | None
    ) -> None:
        """Called when a datagram was not delivered, or could not be sent.

        Args:
            endpoint: Which has sent it.
            error: Such as `ConnectionRefusedError`, when nobody listens there.
            address: Where it was sent; None if that is not known.
        """

    def on_writable(self, endpoint: DatagramEndpoint) -> None:
        """Called when the queue has room again, after datagrams were dropped."""

    def on_close(self, endpoint: DatagramEndpoint, error: OSError | None) -> None:
        """Called once, last. ``error`` is None if the endpoint closed as asked."""


class DatagramStats(NamedTuple):
    """What has happened to the datagrams of an endpoint; all 0 once it has ended.

    Attributes:
        received: Datagrams that have arrived.
        received_bytes: Their bytes.
        truncated: Those that were longer than ``size_max``.
        sent: Datagrams that the kernel has taken.
        sent_bytes: Their bytes.
        dropped: Not sent: the queue or the kernel's memory was full.
        failed: Not sent: the kernel has refused each with an error.
        errors: Sent, and reported as undeliverable.
        kernel_dropped: Arrived while the buffer of the socket was full; 0 where the
            kernel does not say.
        queued: Bytes that the kernel has not taken yet, 64 for each datagram included.
        queued_count: Datagrams that the kernel has not taken yet.
    """

    received: int
    received_bytes: int
    truncated: int
    sent: int
    sent_bytes: int
    dropped: int
    failed: int
    errors: int
    kernel_dropped: int
    queued: int
    queued_count: int


class DatagramEndpoint(CoreEndpoint):
    """A datagram socket of a `SelectorEventLoop`: UDP over IPv4 or IPv6, or Unix.

    >>> class Shout(DatagramHandler):
    ...     def on_datagram(self, endpoint, data, address):
    ...         return data.upper()  # goes back to the sender
    >>> endpoint = DatagramEndpoint(loop, Shout(), address=("127.0.0.1", 0))
    >>> host, port = endpoint.sockname

    Args:
        loop: The loop that calls ``handler``.
        handler: Its callbacks are called.
        address: The own address to bind to: (host, port) with a numeric host, where
            port 0 lets the kernel choose; or the path of a Unix socket, abstract if it
            begins with a NUL. Its file is removed when the endpoint closes.
        peer: Connect to this address: the endpoint receives from there only, and sends
            there without an address.
        sock: Instead of both, a datagram socket. The endpoint owns it from then on.
        limits: Bounds of the endpoint.
        reuse_port: Share the port with other endpoints that ask for it.
        local_address: Tell the address of this machine that each datagram was sent to;
            answers leave from it.
        ecn: Tell the bits of explicit congestion notification of each datagram.
        gro: Let the kernel join datagrams of one sender that follow each other (UDP
            GRO), and divide them again here: bulk data costs less. Ignored where the
            kernel cannot.

    Attributes:
        data: For the user: the state of this endpoint. None at first.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: A host is a name; or ``address``, ``peer`` and ``sock`` do not go
            together.
        OverflowError: A port is not in 0 to 65535.
        OSError: The kernel refused; the message names the address.
    Threads: The loop's. In any other, `send`, `close` and the like raise RuntimeError;
        use ``call_soon_threadsafe`` of the loop.
    """

    __slots__ = ("_file", "_peer", "_place", "_sockname")
    _handler: DatagramHandler
    data: object

    def __init__(  # noqa: PLR0913 - each has a default
        self,
        loop: SelectorEventLoop,
        handler: DatagramHandler,
        *,
        address: Address | None = None,
        peer: Address | None = None,
        sock: socket.socket | None = None,
        limits: DatagramLimits = DATAGRAM_LIMITS,
        reuse_port: bool = False,
        local_address: bool = False,
        ecn: bool = False,
        gro: bool = False,
    ) -> None:
        check_loop(loop)
        check_handler(handler)
        if not isinstance(limits, DatagramLimits):
            raise TypeError(refusal("limits", limits, "a fdmux.DatagramLimits"))
        flags = 0 if sys.platform == "win32" else lib.FDMUX_DATAGRAM_ERRORS
        flags |= lib.FDMUX_DATAGRAM_LOCAL if local_address else 0
        flags |= lib.FDMUX_DATAGRAM_ECN if ecn else 0
        flags |= lib.FDMUX_DATAGRAM_GRO if gro else 0
        # Not every system has them, so the message of an error names them.
        asked = {"local_address": local_address, "ecn": ecn}
        wished = "".join(f" with {name}" for name, is_on in asked.items() if is_on)
        self._handler = handler
        self._file: SocketFile | None = None
        self._place = place_of_caller() if state.is_used else None
        self._bind(delivery_of(loop), *takers_of(handler), None)
        options = ffi.buffer(c_options(limits, flags))
        if sock is not None:
            check_given(sock, address, peer)
            self._take_over(sock, options, wished)
            return
        with contextlib.ExitStack() as on_failure:
            own, self._file = open_socket(address, peer, reuse_port=reuse_port)
            on_failure.callback(own.close)
            if self._file is not None:
                on_failure.callback(self._file.remove)
            self._take_over(own, options, wished)
            on_failure.pop_all()

    def _take_over(self, sock: socket.socket, options: Buffer, wished: str) -> None:
        """Give ``sock`` to C, which owns it from then on."""
        sockname = own_address(sock)
        try:
            peer = sock.getpeername()
        except OSError:  # ENOTCONN
            peer = None
        timeout = sock.gettimeout()
        sock.setblocking(False)
        try:
            result = self._open(sock.fileno(), sock.family, options)
            check(result, f"make an endpoint of fd {sock.fileno()}{wished}")
        except BaseException:
            sock.settimeout(timeout)
            raise
        sock.detach()
        self._sockname: Address = sockname
        self._peer: Address | None = peer

    def __repr__(self) -> str:
        peer = f" peer={self._peer!r}" if self.connected else ""
        return (
            f"<fdmux.DatagramEndpoint fd={self.fileno()} at {self._sockname!r}{peer}>"
        )

    def _find_place(self) -> str | None:
        """Return where the endpoint was made, if debug mode knows."""
        return self._place

    # Facts -------------------------------------------------------------------------

    @property
    def sockname(self) -> Address:
        """The own address, as `socket.socket.getsockname` returned it at first."""
        return self._sockname

    @property
    def peername(self) -> Address | None:
        """The address of the peer of a connected endpoint; or None."""
        return self._peer

    @property
    def connected(self) -> bool:
        """Whether the endpoint is connected to one peer."""
        return self._peer is not None

    @property
    def socket(self) -> SocketView:
        """A view of the socket: to set options, and to join multicast groups."""
        return SocketView(self.fileno)

    @property
    def stats(self) -> DatagramStats:
        """Counts of datagrams; what this callback has sent is sent first."""
        return DatagramStats(*self._stats())

    # Called from C -----------------------------------------------------------------

    def _event(self, kind: int, code: int, address: Address | None) -> None:
        """Call the handler for an event that is not data."""
        code = errno_from_c(code)
        if kind == CLOSED:
            self._finish(code)
        elif not self._is_open:
            return
        elif kind == ERROR:
            error = OSError(code, f"send to {address or self._peer!r}: {text_of(code)}")
            self._handler.on_error(self, error, address)
        else:  # FDMUX_DATAGRAM_WRITABLE
            self._handler.on_writable(self)

    def _finish(self, code: int) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.remove()
        error = OSError(code, f"endpoint: {text_of(code)}") if code else None
        self._handler.on_close(self, error)

    def _callback_failed(self, error: Exception, _what: str) -> None:
        """Log an exception of the handler."""
        logger.error("a callback of %r raised", self, exc_info=error)


def check_handler(handler: object) -> None:
    """Refuse what lacks a callback of `DatagramHandler`.

    Raises:
        TypeError: The message says what is missing.
    """
    if isinstance(handler, type):
        name = handler.__name__
        raise TypeError(f"handler is the class {name}; pass an object: {name}()")
    if isinstance(handler, DatagramHandler):
        return
    for name in CALLBACKS:
        if not callable(getattr(handler, name, None)):
            wanted = f"a fdmux.DatagramHandler; it has no {name}()"
            raise TypeError(refusal("handler", handler, wanted))
    takers_of(handler)


def takers_of(handler: object) -> tuple[object, object]:
    """Return what gets the datagrams: `on_datagrams`, or else `on_datagram`.

    Raises:
        TypeError: The handler has neither.
    """
    many = getattr(handler, "on_datagrams", None)
    one = getattr(handler, "on_datagram", None)
    if getattr(many, "__func__", None) is DatagramHandler.on_datagrams:
        many = None  # not overridden
    if callable(many):
        return many, None
    if callable(one):
        return None, one
    wanted = "a fdmux.DatagramHandler; it has no on_datagram()"
    raise TypeError(refusal("handler", handler, wanted))
