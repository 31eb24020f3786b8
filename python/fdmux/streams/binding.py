"""Where a server listens: a socket that it binds, or one that it was given.

server.py is the life of a server; this file knows only how its listening socket comes
about, and what of it must be removed at the end.

Its one rule: if the server cannot use the socket, everything is as before: a socket
that was bound here is closed, and one that was given is as it was.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, cast

from fdmux.checks import checked_integer
from fdmux.streams.address import check_own_address, listen, listen_at_path
from fdmux.streams.checks import check_listening

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from fdmux.streams.address import SocketFile


class Binding:
    """An address to bind, or a listening socket.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: As `StreamServer` says.
        OverflowError: ``port`` is not in 0 to 65535.
    """

    def __init__(
        self,
        host: str | None,
        port: int | None,
        sock: socket.socket | None,
        *,
        backlog: int,
        reuse_port: bool,
    ) -> None:
        if sock is None:
            check_own_address(host, port)
        else:
            check_listening(sock)
            if host is not None or port is not None or reuse_port:
                raise ValueError(
                    f"serve on fd {sock.fileno()}: it is bound already; leave host, "
                    "port and reuse_port out"
                )
        checked_integer("backlog", backlog, 1)
        self.backlog = backlog
        self._host = cast("str", host)  # checked above, if it is used
        self._port = port
        self._sock = sock
        self._reuse_port = reuse_port
        self._file: SocketFile | None = None

    @contextlib.contextmanager
    def opening(self) -> Iterator[socket.socket]:
        """Lend the listening socket; whoever leaves without an error has taken it.

        Raises:
            OSError: The address cannot be bound; the message names it.
            ValueError: The socket that was given is closed.
        """
        sock = self._sock
        with self._binding() if sock is None else self._lending(sock) as opened:
            yield opened

    def remove_file(self) -> None:
        """Remove the file of a Unix socket that was bound here. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            file.remove()

    @contextlib.contextmanager
    def _binding(self) -> Iterator[socket.socket]:
        sock = self._bind()
        try:
            yield sock
        except BaseException:
            sock.close()
            self.remove_file()
            raise

    @contextlib.contextmanager
    def _lending(self, sock: socket.socket) -> Iterator[socket.socket]:
        check_listening(sock)
        timeout = sock.gettimeout()
        sock.setblocking(False)
        try:
            yield sock
        except BaseException:
            sock.settimeout(timeout)
            raise

    def _bind(self) -> socket.socket:
        if self._port is not None:
            return listen(
                self._host, self._port, self.backlog, reuse_port=self._reuse_port
            )
        sock, self._file = listen_at_path(self._host, self.backlog)
        return sock
