"""SocketView: options of a socket that C owns.

Its one rule: it cannot close the socket, nor use another one that has its number later.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class SocketView:
    """The options and addresses of an endpoint's socket, as `socket.socket` has them.

    Raises:
        OSError: The kernel refused; or with EBADF the endpoint has ended.
    """

    __slots__ = ("_fileno",)

    def __init__(self, fileno: Callable[[], int]) -> None:
        self._fileno = fileno

    def __repr__(self) -> str:
        return f"<fdmux.SocketView fd={self._fileno()}>"

    def fileno(self) -> int:
        """Return the descriptor, which the endpoint owns; -1 if it has ended."""
        return self._fileno()

    def _duplicate(self) -> socket.socket:
        """Return a second descriptor of the socket; closing it closes nothing else."""
        fd = self._fileno()
        if fd < 0:
            raise OSError(errno.EBADF, "the endpoint has ended")
        return socket.socket(fileno=socket.dup(fd))

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Set an option, such as ``IP_ADD_MEMBERSHIP``."""
        with self._duplicate() as sock:
            sock.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        """Return an option: a number, or with a ``size`` its bytes."""
        with self._duplicate() as sock:
            if size:
                return sock.getsockopt(level, option, size)
            return sock.getsockopt(level, option)

    def getsockname(self) -> object:
        """Return the own address."""
        with self._duplicate() as sock:
            return sock.getsockname()

    def getpeername(self) -> object:
        """Return the address of the peer."""
        with self._duplicate() as sock:
            return sock.getpeername()
