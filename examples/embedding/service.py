"""A service in Python that runs in the loop of a C program.

Its one rule: it never waits. The host watches the one descriptor and calls `dispatch`;
the exception of a callback leaves `dispatch` and reaches C.
"""

from __future__ import annotations

import socket
import threading

import fdmux

TICK = 0.001


class Service:
    """Talks to the host over one socket, whose other end is the host's.

    Args:
        fd: The socket; the service owns it from now on.
    """

    def __init__(self, fd: int) -> None:
        self._sock = socket.socket(fileno=fd)
        self._guest = fdmux.Guest()
        self._guest.loop.register_read(self._sock, self._on_readable)
        self.fileno = self._guest.fileno
        self.dispatch = self._guest.dispatch

    def _on_readable(self, sock: socket.socket) -> None:
        """Handle a request of the host; each request is one message."""
        request = sock.recv(4096)
        if request == b"fail":
            raise ValueError("the host wanted it")
        if request == b"timer":
            self._guest.loop.call_later(TICK, sock.send, b"a timer")
        elif request == b"thread":
            threading.Thread(target=self._work).start()
        elif request:
            sock.send(request)
        else:  # the host has hung up
            self._guest.loop.unregister(sock)

    def _work(self) -> None:
        """Runs in another thread, which may call only `call_soon_threadsafe`."""
        self._guest.loop.call_soon_threadsafe(self._sock.send, b"a thread")

    def close(self) -> None:
        """End everything, before the host ends Python."""
        self._guest.close()
        self._sock.close()
