"""Streams that this side begins: `connect_stream`, and `add_stream` for a socket."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
from typing import TYPE_CHECKING, cast

from fdmux.loop.event_loop import delivery_of
from fdmux.streams.limits import STREAM_LIMITS
from fdmux.streams.stream import Stream, hand_over, taker_of

if TYPE_CHECKING:
    from fdmux.loop.event_loop import SelectorEventLoop
    from fdmux.streams.limits import StreamLimits
    from fdmux.streams.stream import InetAddress, StreamHandler

    SocketAddress = InetAddress | str

CONNECT_UNDER_WAY = frozenset({0, errno.EINPROGRESS, errno.EINTR})


def add_stream(
    loop: SelectorEventLoop,
    sock: socket.socket,
    handler: StreamHandler,
    *,
    limits: StreamLimits = STREAM_LIMITS,
) -> Stream:
    """Serve a connected socket as a stream of ``loop``; the stream owns it then.

    Raises:
        TypeError: ``sock`` is no socket, or one that carries TLS.
        ValueError: ``sock`` is not a connected stream socket.
        OSError: The kernel refused to watch it; ``sock`` is still the caller's.
    """
    check_connected(sock)
    sock.setblocking(False)
    stream = Stream(delivery_of(loop), handler, taker_of(handler))
    hand_over(stream, "add", sock, limits)
    stream._note_peer()  # noqa: SLF001 - this module's own class
    return stream


def check_connected(sock: socket.socket) -> None:
    """Refuse what a stream cannot serve, with the reason."""
    # Not imported here: in CPython 3.12.1 that ends programs that start Python twice.
    ssl = sys.modules.get("ssl")
    if ssl is not None and isinstance(sock, ssl.SSLSocket):
        raise TypeError(
            f"make a stream of {sock!r}: it carries TLS, and a stream would send plain "
            "bytes into it"
        )
    if not isinstance(sock, socket.socket):
        raise TypeError(f"make a stream of {sock!r}: it must be a socket.socket")
    attempt = f"make a stream of fd {sock.fileno()}"
    if sock.fileno() < 0:
        raise ValueError(f"{attempt}: the socket is closed")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError(f"{attempt}: it is a {sock.type!r}, not a stream socket")
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError(f"{attempt}: it is listening, not connected")
    try:
        sock.getpeername()
    except OSError as error:
        if error.errno == errno.ENOTCONN and not was_connected(sock):
            raise ValueError(f"{attempt}: it is not connected") from None


def was_connected(sock: socket.socket) -> bool:
    """Whether a socket without a peer had one, which has reset the connection."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return any(events & select.POLLIN for _fd, events in poll.poll(0))


def connect_stream(
    loop: SelectorEventLoop,
    address: tuple[str, int] | str,
    handler: StreamHandler,
    *,
    limits: StreamLimits = STREAM_LIMITS,
) -> Stream:
    """Begin to connect to ``address``; `on_connect`, or `on_close`, follows.

    What is written before that is sent once connected.

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
    delivery = delivery_of(loop)
    attempt = f"connect to {address!r}"
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        error = sock.connect_ex(where)
        if error not in CONNECT_UNDER_WAY:
            raise OSError(error, f"{attempt}: {os.strerror(error)}")
        stream = Stream(delivery, handler, taker_of(handler), attempt)
        hand_over(stream, "connect", sock, limits)
    return stream


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
