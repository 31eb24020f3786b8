"""Peer: the other side of an adapter's connections, in a thread for each.

Its one rule: it takes no low descriptor number, so that a client that reconnects gets
its old number again.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    Answer = Callable[[socket.socket], bool]

HIGH_FD = 200
END_WITHIN = 5.0


def to_high_number(sock: socket.socket) -> socket.socket:
    """Move a socket to a descriptor number from `HIGH_FD` on."""
    import fcntl  # noqa: PLC0415 - the rest of the kit works without, as on Windows

    with sock:
        fd = fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
    return socket.socket(fileno=fd)


class Peer:
    """A listening socket and its connections.

    Attributes:
        port: The port of 127.0.0.1 on which it listens.
        is_silent: Whether new connections stay without answers.
    """

    def __init__(self, answer: Answer) -> None:
        self.is_silent = False
        self._answer = answer
        self._listener = to_high_number(socket.create_server(("127.0.0.1", 0)))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="peer")]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.is_silent = True
        self._listener.shutdown(socket.SHUT_RDWR)  # ends accept(2)
        self._threads[0].join(END_WITHIN)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(END_WITHIN)

    def drop(self) -> None:
        """End all connections."""
        connections, self._connections = self._connections, []
        for connection in connections:
            with contextlib.suppress(OSError):  # the client has ended it already
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            connection = to_high_number(connection)
            self._connections.append(connection)
            thread = threading.Thread(
                target=self._serve, args=(connection,), name="peer of one connection"
            )
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            answer = receive_only if self.is_silent else self._answer
            while answer(connection):
                pass


def receive_only(connection: socket.socket) -> bool:
    """Receive and answer nothing; ``False`` at the end of the stream."""
    return bool(connection.recv(4096))
