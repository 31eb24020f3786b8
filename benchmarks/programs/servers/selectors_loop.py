"""Echo on the standard library's selector: the usual callback loop, done right."""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING

from benchmarks.programs.servers.announce import BUFFER_SIZE, announce, listen

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable


class Connection:
    """One client: echoes at once, and keeps what the kernel does not take."""

    def __init__(self, selector: selectors.BaseSelector, sock: socket.socket) -> None:
        self._selector = selector
        self._sock = sock
        self._kept = bytearray()
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, self.on_readable)

    def on_readable(self) -> None:
        try:
            received = self._sock.recv(BUFFER_SIZE)
            sent = self._sock.send(received) if received else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            received = b""
        if not received:
            self._selector.unregister(self._sock)
            self._sock.close()
        elif sent < len(received):
            self._kept += memoryview(received)[sent:]
            self._watch(selectors.EVENT_WRITE, self.on_writable)

    def on_writable(self) -> None:
        del self._kept[: self._sock.send(self._kept)]
        if not self._kept:
            self._watch(selectors.EVENT_READ, self.on_readable)

    def _watch(self, events: int, callback: Callable[[], None]) -> None:
        self._selector.modify(self._sock, events, callback)


def main() -> None:
    selector = selectors.DefaultSelector()
    listener = listen()

    def on_connection() -> None:
        Connection(selector, listener.accept()[0])

    selector.register(listener, selectors.EVENT_READ, on_connection)
    announce(listener.getsockname()[1])
    while True:
        for key, _ in selector.select():
            key.data()


if __name__ == "__main__":
    main()
