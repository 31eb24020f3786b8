"""A program: a process of `multiprocessing` echoes; prints how many messages came back.

    python process_echo.py 200 spawn

The parent waits in a loop that existed before the process, the process in one of its
own. Needs nothing but fdmux.
"""

from __future__ import annotations

import multiprocessing
import socket
import sys

from fdmux import EVENT_READ, Selector, SelectorEventLoop

LONG = 60.0


def serve(connection: socket.socket) -> None:
    """Run in the process: echo byte by byte until the end."""
    with connection, Selector() as selector:
        selector.register(connection, EVENT_READ)
        while selector.select(LONG):
            data = connection.recv(1)
            if not data:
                return
            connection.sendall(data)


class Parent:
    """Sends a message when the last has come back."""

    def __init__(self, loop: SelectorEventLoop, count: int) -> None:
        self._loop = loop
        self._left = count
        self.echoed = 0

    def on_readable(self, sock: socket.socket) -> None:
        if not sock.recv(1):
            self._loop.stop()
            return
        self.echoed += 1
        self._left -= 1
        if self._left:
            sock.sendall(b"m")
        else:
            sock.shutdown(socket.SHUT_WR)


def main() -> None:
    count, method = int(sys.argv[1]), sys.argv[2]
    context = multiprocessing.get_context(method)
    here, there = socket.socketpair()
    with SelectorEventLoop() as loop, here:
        parent = Parent(loop, count)
        loop.register_read(here, parent.on_readable)
        loop.call_later(LONG, loop.stop)
        process = context.Process(target=serve, args=(there,))  # type: ignore[attr-defined] # each context has it
        process.start()
        there.close()
        here.sendall(b"m")
        loop.run(None)
        process.join(LONG)
        process.close()
    print(parent.echoed)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
