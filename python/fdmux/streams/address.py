"""Addresses of streams: what `connect_stream` and servers take, and sockets for them.

Its one rule: a function that fails leaves no socket open and no file behind.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING, cast

from fdmux.checks import check_host, checked_port, refusal

if TYPE_CHECKING:
    InetAddress = tuple[str, int] | tuple[str, int, int, int]
    SocketAddress = InetAddress | str

logger = logging.getLogger(__name__)


def parse_address(
    address: tuple[str, int] | str,
) -> tuple[int, SocketAddress] | None:
    """Return the family of ``address``, and what `socket.socket.connect` takes.

    None if the host is a name.

    Raises:
        TypeError: It is neither (host, port) nor a str, or one part has a wrong type.
        ValueError: The host can be no name, or the path is empty.
        OverflowError: The port is not in 0 to 65535.
    """
    if isinstance(address, str):
        if not address:
            raise ValueError("address is '', which is not the path of a Unix socket")
        return unix_family(address), address
    if not isinstance(address, tuple) or len(address) != 2:
        wanted = "(host, port), or the path of a Unix socket as a str"
        raise TypeError(refusal("address", address, wanted))
    host, port = address
    if not isinstance(host, str):
        raise TypeError(refusal("host", host, "a str"))
    if not host:
        raise ValueError("host is empty")
    port = checked_port(port)
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except (socket.gaierror, UnicodeError):
        check_host(host)
        return None
    family, _kind, _protocol, _name, where = found[0]
    return family, cast("SocketAddress", where)


def check_own_address(host: str | None, port: int | None) -> None:
    """Refuse what `bind` would take for "every interface", and what is no port.

    Raises:
        TypeError: ``host`` is not a str, or ``port`` not an integer.
        ValueError: ``host`` is empty or None.
        OverflowError: ``port`` is not in 0 to 65535.
    """
    if not host:
        raise ValueError(
            f"host is {host!r}, which would mean every interface; "
            'if you want that, say "0.0.0.0" or "::"'
        )
    if not isinstance(host, str):
        raise TypeError(refusal("host", host, "a str"))
    if port is not None:
        checked_port(port)


def address_of(name: str | bytes | tuple[str, int]) -> tuple[str, int]:
    """Convert what `getsockname` returns; a Unix socket has no port."""
    if isinstance(name, tuple):
        return name[:2]
    return os.fsdecode(name), 0


def listen(
    host: str, port: int, backlog: int, *, reuse_port: bool = False
) -> socket.socket:
    """Return a non-blocking socket that listens on ``host`` and ``port``.

    Raises:
        OSError: The message names the address.
    """
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as on_failure:
            sock = on_failure.enter_context(socket.socket(family, kind, protocol))
            if sys.platform != "win32":  # there it would let strangers take the port
                # Bind although old connections of this port are in TIME_WAIT.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                share_port(sock)
            sock.setblocking(False)
            sock.bind(address)
            sock.listen(backlog)
            on_failure.pop_all()
    except OSError as error:
        # OSError chooses its subclass by the errno; gaierror has numbers of its own.
        kind_of_error = type(error) if isinstance(error, socket.gaierror) else OSError
        raise kind_of_error(
            error.errno, f"listen on {(host, port)}: {error.strerror}"
        ) from error
    return sock


def share_port(sock: socket.socket) -> None:
    """Let other sockets that ask for it have the port of ``sock``, too.

    Raises:
        OSError: EOPNOTSUPP: this system has no SO_REUSEPORT.
    """
    option = getattr(socket, "SO_REUSEPORT", None)
    if option is None:
        raise OSError(errno.EOPNOTSUPP, "reuse_port: this system has no SO_REUSEPORT")
    sock.setsockopt(socket.SOL_SOCKET, option, 1)


def unix_family(path: str | bytes) -> int:
    """Return the family of Unix sockets, for the address ``path``.

    Raises:
        OSError: EAFNOSUPPORT: Python has none on this system.
    """
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise OSError(
            errno.EAFNOSUPPORT, f"{path!r}: Python has no Unix sockets on this system"
        )
    return int(family)


def listen_at_path(path: str, backlog: int) -> tuple[socket.socket, SocketFile | None]:
    """Return a non-blocking Unix socket that listens at ``path``, and its file.

    A path that begins with a NUL is abstract (unix(7)): it has no file.

    Raises:
        OSError: The message names the path.
    """
    try:
        with contextlib.ExitStack() as on_failure:
            sock = on_failure.enter_context(socket.socket(unix_family(path)))
            sock.setblocking(False)
            sock.bind(path)
            file = None if path.startswith("\0") else SocketFile(path)
            if file is not None:
                on_failure.callback(file.remove)
            sock.listen(backlog)
            on_failure.pop_all()
    except OSError as error:
        text = error.strerror or str(error)  # "AF_UNIX path too long" has no number
        code = error.errno or errno.ENAMETOOLONG
        raise OSError(code, f"listen on {path!r}: {text}") from error
    return sock, file


class SocketFile:
    """The file of a Unix socket; closing the socket does not remove it.

    Args:
        path: Of a socket that was just bound.

    Raises:
        OSError: It is not there any more.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._made = os.stat(path)  # noqa: PTH116 - a path as sockets take it

    def remove(self) -> None:
        """Remove the file, unless another one has its path by now.

        Logs what goes wrong and raises nothing.
        """
        try:
            if os.path.samestat(os.stat(self._path), self._made):  # noqa: PTH116 - as above
                os.unlink(self._path)  # noqa: PTH108 - as above
        except FileNotFoundError:
            logger.info("the Unix socket %r was removed already", self._path)
        except OSError as error:
            logger.warning("cannot remove the Unix socket %r: %s", self._path, error)
