"""Attempts to connect to several addresses; the first that connects wins (RFC 8305).

Its one rule: it never waits. Who uses it waits for the sockets, on whatever loop, and
closes what is left. schedule.py decides which address is tried when.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from fdmux.errnos import IN_PROGRESS, text_of
from fdmux.sockets.schedule import Address, Schedule

if TYPE_CHECKING:
    Target = tuple[str, int]
    Failure = tuple[Address, OSError]

# connect(2): the attempt continues; a second call would fail.
UNDER_WAY = frozenset({IN_PROGRESS, errno.EINTR, errno.EALREADY})

# These are errors of this machine (no such protocol, no route), not of the host.
LESS_TELLING = frozenset(
    {
        errno.EAFNOSUPPORT,
        errno.EPROTONOSUPPORT,
        errno.EADDRNOTAVAIL,
        errno.ENETUNREACH,
    }
)


def look_up(target: Target, flags: int = 0) -> list[Address]:
    """Return the addresses of ``target``; blocks, unless AI_NUMERICHOST forbids it.

    Raises:
        socket.gaierror: It does not resolve; the message names it.
        OSError: It has no address.
    """
    try:
        found = socket.getaddrinfo(*target, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        message = f"connect to {target!r} failed: {error.strerror}"
        raise socket.gaierror(error.errno, message) from None
    addresses = [Address(entry[0], entry[2], entry[4]) for entry in found]
    if not addresses:
        raise OSError(errno.EADDRNOTAVAIL, f"connect to {target!r}: no address found")
    return addresses


class Race:
    """Attempts at the addresses of one target.

    Attributes:
        under_way: The sockets of the attempts that have not ended.
        schedule: When the next attempt may start.
    """

    def __init__(self, target: Target, addresses: list[Address]) -> None:
        self.under_way: dict[socket.socket, Address] = {}
        self.schedule = Schedule(addresses)
        self._target = target
        self._failures: list[Failure] = []

    def start(self, address: Address) -> socket.socket | None:
        """Begin an attempt; return its socket if it connects at once."""
        try:
            sock = socket.socket(address.family, socket.SOCK_STREAM, address.protocol)
        except OSError as error:
            self._failed(address, error)
            return None
        self.under_way[sock] = address
        try:
            sock.setblocking(False)
            status = sock.connect_ex(address.sockaddr)
        except OSError as error:
            self.drop(sock, error)
            return None
        return None if status in UNDER_WAY else self._settle(sock, status)

    def look(self, sock: socket.socket) -> socket.socket | None:
        """Look at an attempt that has ended; return its socket if it is connected."""
        try:
            status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except OSError as error:
            self.drop(sock, error)
            return None
        return self._settle(sock, status)

    def drop(self, sock: socket.socket, error: OSError) -> None:
        """End an attempt that has failed; the next one may start at once."""
        sock.close()
        self._failed(self.under_way.pop(sock), error)

    def close(self) -> None:
        """Close the attempts that are under way."""
        while self.under_way:
            self.under_way.popitem()[0].close()

    @property
    def is_lost(self) -> bool:
        """Whether every attempt has failed."""
        return not self.under_way and self.schedule.is_over

    def error(self) -> OSError:
        """Return the error to raise when every address has failed."""
        errors = [error for _, error in self._failures]
        telling = (one for one in errors if one.errno not in LESS_TELLING)
        told = next(telling, errors[0])
        return OSError(told.errno, f"connect to {self._target!r} failed{self.listed()}")

    def listed(self) -> str:
        """List the errors so far: ``: 10.0.0.1: Connection refused; ...``."""
        told = [
            f"{address.sockaddr[0]!s}: {error.strerror}"
            for address, error in self._failures
        ]
        return f": {'; '.join(told)}" if told else ""

    def _settle(self, sock: socket.socket, status: int) -> socket.socket | None:
        """Remove an attempt that has ended; return its socket if it is connected."""
        try:
            check_connected(sock, status)
        except OSError as error:
            self.drop(sock, error)
            return None
        del self.under_way[sock]
        return sock

    def _failed(self, address: Address, error: OSError) -> None:
        self._failures.append((address, error))
        self.schedule.hasten()


def check_connected(sock: socket.socket, status: int) -> None:
    """Raise unless the attempt that ended with errno ``status`` has connected."""
    if status not in {0, errno.EISCONN}:
        raise OSError(status, text_of(status))
    try:
        peer = sock.getpeername()
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            sock.recv(1)  # something else has read SO_ERROR: this raises the cause
        raise
    if peer == sock.getsockname():
        # A simultaneous open with itself: local port and target are the same.
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connected to itself")
