"""`connect_stream` makes a stream that connects; `add_stream` one of a socket.

What a stream does while it connects is in connecting.py.

Its one rule: a call that raises opens nothing, and does not change the socket that it
was given.
"""

from __future__ import annotations

import errno
import socket
from math import inf
from typing import TYPE_CHECKING, TypeVar, cast

from fdmux.checks import checked_timeout
from fdmux.errnos import IN_PROGRESS, text_of
from fdmux.loop.event_loop import check_loop, delivery_of
from fdmux.sockets.poll import POLLIN, poll
from fdmux.streams.address import parse_address
from fdmux.streams.checks import (
    check_handler,
    check_limits,
    check_stream_socket,
    is_listening,
)
from fdmux.streams.connecting import ConnectingStream, SeekingStream
from fdmux.streams.limits import STREAM_LIMITS, StreamLimits
from fdmux.streams.stream import Stream, taker_of
from fdmux.streams.tls import client_options, make_tls

if TYPE_CHECKING:
    from ssl import SSLContext, SSLSession

    from fdmux._delivery import Delivery
    from fdmux.checks import Seconds
    from fdmux.loop.event_loop import SelectorEventLoop
    from fdmux.streams.address import SocketAddress
    from fdmux.streams.stream import StreamHandler

Data = TypeVar("Data")

# connect(2): after EINTR the attempt continues, as after EINPROGRESS.
CONNECTING = frozenset({IN_PROGRESS, errno.EINTR})
# As the idle timeout of servers. Linux itself gives up after 127 s (tcp(7)).
CONNECT_TIMEOUT = 60.0


def add_stream(
    loop: SelectorEventLoop,
    sock: socket.socket,
    handler: StreamHandler[Data],
    *,
    limits: StreamLimits = STREAM_LIMITS,
) -> Stream[Data]:
    """Make a stream of a connected socket; the stream owns the socket from then on.

    >>> stream = add_stream(loop, sock, StreamHandler())
    >>> stream.write(b"welcome")

    Args:
        loop: The loop that calls ``handler``.
        sock: A connected stream socket, without TLS.
        handler: Its callbacks are called, except `on_connect`.
        limits: Bounds of the stream.

    Raises:
        TypeError: ``sock`` is not a socket, or carries TLS; ``loop``, ``handler`` or
            ``limits`` has a wrong type.
        ValueError: ``sock`` is not a connected stream socket.
        OSError: The kernel refused to watch it.
            After any error ``sock`` is still the caller's.
    Threads: The loop's.
    """
    check_arguments(loop, handler, limits)
    check_connected(sock)
    return cast("Stream[Data]", AddedStream(delivery_of(loop), handler, sock, limits))


def check_arguments(loop: object, handler: object, limits: object) -> None:
    """Refuse what every stream needs, if it has a wrong type."""
    check_loop(loop)
    check_handler(handler)
    check_limits(limits, StreamLimits)


def check_connected(sock: socket.socket) -> None:
    """Refuse what a stream cannot serve; the message gives the reason."""
    check_stream_socket(sock, "make a stream of")
    attempt = f"make a stream of fd {sock.fileno()}"
    if is_listening(sock):
        raise ValueError(f"{attempt}: it is listening, not connected")
    try:
        sock.getpeername()
    except OSError as error:
        if error.errno == errno.ENOTCONN and not was_connected(sock):
            raise ValueError(f"{attempt}: it is not connected") from None


def was_connected(sock: socket.socket) -> bool:
    """Whether a socket that has no peer had one, which has reset the connection."""
    poller = poll()
    poller.register(sock, POLLIN)
    return any(events & POLLIN for _fd, events in poller.poll(0))


class AddedStream(Stream):
    """A stream of a socket that the user has connected."""

    __slots__ = ()

    def __init__(
        self,
        delivery: Delivery,
        handler: StreamHandler,
        sock: socket.socket,
        limits: StreamLimits,
    ) -> None:
        self._attach(delivery, handler, taker_of(handler))
        timeout = sock.gettimeout()
        sock.setblocking(False)
        try:
            self._take_over("add", sock, limits)
        except BaseException:
            sock.settimeout(timeout)
            raise
        self._note_peer()


def connect_stream(  # noqa: PLR0913 - what streams are made with; most by keyword
    loop: SelectorEventLoop,
    address: tuple[str, int] | str,
    handler: StreamHandler[Data],
    *,
    limits: StreamLimits = STREAM_LIMITS,
    timeout: Seconds | None = CONNECT_TIMEOUT,
    ssl: SSLContext | None = None,
    server_hostname: str | None = None,
    session: SSLSession | None = None,
) -> Stream[Data]:
    """Start to connect to ``address``; `on_connect` or `on_close` is called later.

    >>> class Ask(StreamHandler):
    ...     def on_connect(self, stream):
    ...         stream.write(b"hello")
    ...
    ...     def on_data(self, stream, data):
    ...         print(data)
    ...         loop.stop()
    >>> stream = connect_stream(loop, ("localhost", port), Ask(), timeout=5.0)
    >>> loop.run()
    b'hello'

    What is written before `on_connect` is sent once the stream is connected; with TLS,
    encrypted, after the handshake.

    A thread resolves a name, so that the loop goes on. If it has several addresses, the
    families take turns: the next address is tried when the one before has failed, or
    has not answered within 250 ms; the first that connects is used.

    Args:
        loop: The loop that calls ``handler``.
        address: Host and port, the host as a name or an address; or the path of a Unix
            socket. A path that begins with a NUL is abstract.
        handler: Its callbacks are called.
        limits: Bounds of the stream.
        timeout: The longest time until it is connected, for resolving and for all
            attempts together; after that, `on_close` gets a `TimeoutError`. 0 or less:
            one iteration. None or ``inf``: as long as the resolver and the kernel try,
            about 2 minutes on Linux for an address. With TLS, ``handshake_timeout`` of
            ``limits`` follows it.
        ssl: Encrypt with this context; `on_connect` is called after the handshake.
        server_hostname: The name of the server, which its certificate must have; by
            default the host of ``address``. "" is no name, for a ``context`` that
            does not check it.
        session: To resume, of an earlier stream's ``tls.session``.

    Units:   seconds, never early
    Raises:
        TypeError: ``loop``, ``address``, ``handler``, ``limits``, ``timeout`` or
            ``ssl`` has a wrong type.
        ValueError: The host can be no name, ``timeout`` is NaN, or ``server_hostname``
            is missing, or given without ``ssl``.
        RuntimeError: The host is a name, and no thread can be started; or gevent has
            replaced threads by greenlets.
        OverflowError: The port is not in 0 to 65535.
        OSError: The attempt failed at once; the message names the address. What fails
            with a name is told to `on_close`.
    Threads: The loop's.
    """
    check_arguments(loop, handler, limits)
    seconds = checked_timeout(timeout)
    parsed = parse_address(address)
    attempt = f"connect to {address!r}"
    options = None
    if ssl is not None:
        name = host_of(address) if server_hostname is None else server_hostname
        options = client_options(ssl, limits, name or None, session)
    elif server_hostname is not None or session is not None:
        raise ValueError("server_hostname and session are for TLS; pass ssl")
    tls = None if options is None else make_tls(options, is_beginning=True)
    if parsed is None:
        if_tls = None if tls is None or options is None else (tls, options)
        target = cast("tuple[str, int]", address)
        seeking = SeekingStream(loop, handler, target, limits, seconds, if_tls)
        return cast("Stream[Data]", seeking)
    family, where = parsed
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        is_connected = start_to_connect(sock, where, attempt)
        limit = inf if is_connected else seconds
        stream = ConnectingStream(loop, handler, sock, limits, attempt, limit)
    if tls is not None and options is not None:
        stream.begin_with(tls, options)
    return cast("Stream[Data]", stream)


def host_of(address: tuple[str, int] | str) -> str:
    """Return the host of a TCP address, and no name for a path."""
    return "" if isinstance(address, str) else address[0]


def start_to_connect(sock: socket.socket, where: SocketAddress, attempt: str) -> bool:
    """Start to connect ``sock``; returns whether it is connected already."""
    try:
        code = sock.connect_ex(where)
    except OSError as error:  # "AF_UNIX path too long", which has no number
        code = error.errno or errno.ENAMETOOLONG
        raise OSError(code, f"{attempt}: {error}") from None
    if code and code not in CONNECTING:
        raise OSError(code, f"{attempt}: {text_of(code)}")
    return not code
