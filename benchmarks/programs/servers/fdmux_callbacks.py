"""Echo by callbacks of descriptors on `fdmux.SelectorEventLoop`.

``fdmux_callbacks [observed]``: one that is observed has an observer.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import fdmux
from benchmarks.programs.servers.announce import BUFFER_SIZE, announce, listen
from benchmarks.programs.servers.observer import Reader

if TYPE_CHECKING:
    import socket


def main() -> None:
    loop = fdmux.SelectorEventLoop()
    if sys.argv[1:] == ["observed"]:
        loop.observe(Reader())

    def on_readable(sock: socket.socket) -> None:
        """Echo; the load generator has one message under way, which fits."""
        received = sock.recv(BUFFER_SIZE)
        if received:
            sock.sendall(received)
        else:
            loop.unregister(sock)
            sock.close()

    def on_connection(listener: socket.socket) -> None:
        loop.register_read(listener.accept()[0], on_readable)

    listener = listen()
    loop.register_read(listener, on_connection)
    announce(listener.getsockname()[1])
    loop.run(None)


if __name__ == "__main__":
    main()
