"""Addresses of endpoints, and sockets for them.

Its one rule: a function that fails leaves no socket open and no file behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from typing import TYPE_CHECKING, cast

from fdmux.checks import checked_port, refusal
from fdmux.streams.address import SocketFile, share_port, unix_family

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | str | bytes

WANTED = "(host, port), or the path of a Unix socket"


def family_of(name: str, address: Address) -> int:
    """Return the family of the sockets that can have this address.

    Raises:
        TypeError: It is neither (host, port) nor a path.
        ValueError: The host is a name, or the path is empty.
        OverflowError: The port is not in 0 to 65535.
    """
    if isinstance(address, str | bytes):
        if not address:
            wanted = "the path of a Unix socket, which is not empty"
            raise ValueError(refusal(name, address, wanted))
        return unix_family(address)
    if not isinstance(address, tuple) or len(address) not in {2, 4}:
        raise TypeError(refusal(name, address, WANTED))
    host, port = address[:2]
    if not isinstance(host, str):
        raise TypeError(refusal(name, address, WANTED))
    checked_port(port)
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, UnicodeError, ValueError):
            socket.inet_pton(family, host)
            return family
    wanted = "(host, port) with an IPv4 or IPv6 address; resolve names first"
    raise ValueError(refusal(name, address, wanted))


def open_socket(
    address: Address | None, peer: Address | None, *, reuse_port: bool
) -> tuple[socket.socket, SocketFile | None]:
    """Return a datagram socket, and its file if it is bound to a path.

    Raises:
        ValueError: ``address`` and ``peer`` are of two families, or there is neither.
        OSError: The message names the address.
    """
    own = None if address is None else family_of("address", address)
    other = None if peer is None else family_of("peer", peer)
    family = other if own is None else own
    if family is None:
        raise ValueError("an endpoint needs an address, a peer, or a socket")
    if other is not None and own is not None and own != other:
        raise ValueError(f"address is {address!r} and peer is {peer!r}: two families")
    with contextlib.ExitStack() as on_failure:
        sock = on_failure.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        sock.setblocking(False)
        file = None
        if address is not None:
            with named(f"bind to {address!r}"):
                if reuse_port:
                    share_port(sock)
                sock.bind(address)
            file = file_of(address)
            if file is not None:
                on_failure.callback(file.remove)
        if peer is not None:
            with named(f"connect to {peer!r}"):
                sock.connect(peer)
        on_failure.pop_all()
    return sock, file


def own_address(sock: socket.socket) -> Address:
    """Return the own address of a socket.

    Windows neither tells it nor receives before a socket is bound. So one that is not
    gets there what its first datagram would give it: a port that the kernel chooses.
    """
    if sys.platform == "win32":
        with contextlib.suppress(OSError):  # WSAEINVAL: it is bound
            sock.bind(("", 0))
    return cast("Address", sock.getsockname())


def file_of(address: Address) -> SocketFile | None:
    """Return the file of a Unix address; an abstract name, with a NUL, has none."""
    if isinstance(address, tuple) or address[:1] in {"\0", b"\0"}:
        return None
    return SocketFile(os.fsdecode(address))


@contextlib.contextmanager
def named(attempt: str) -> Iterator[None]:
    """Say in the message of an OSError what was attempted."""
    try:
        yield
    except OSError as error:
        # "AF_UNIX path too long" has no number.
        code = error.errno or errno.ENAMETOOLONG
        text = error.strerror or str(error)
        raise OSError(code, f"{attempt}: {text}") from error


def check_given(
    sock: socket.socket, address: Address | None, peer: Address | None
) -> None:
    """Refuse what is no datagram socket, or comes with an address."""
    if not isinstance(sock, socket.socket):
        raise TypeError(refusal("sock", sock, "a socket.socket"))
    if address is not None or peer is not None:
        raise ValueError("an endpoint of a socket takes no address and no peer")
    attempt = f"make an endpoint of fd {sock.fileno()}"
    if sock.fileno() < 0:
        raise ValueError(f"{attempt}: the socket is closed")
    if sock.type != socket.SOCK_DGRAM:
        raise ValueError(f"{attempt}: it is a {sock.type!r}, not a datagram socket")
