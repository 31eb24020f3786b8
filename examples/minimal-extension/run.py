"""Count in C what a Python callback sends, in one loop; exit 1 if the counts differ."""

import socket
import sys

import counter

from fdmux import SelectorEventLoop

SIZE = 1_000_000

reader, writer = socket.socketpair()
with reader, writer, SelectorEventLoop() as loop:
    reader.setblocking(False)
    counter.watch(loop, reader.fileno())
    left = SIZE

    def send(sock: socket.socket) -> None:
        """Send what fits; stop watching at the end."""
        global left  # noqa: PLW0603 - a script
        left -= sock.send(bytes(min(left, 65536)))
        if not left:
            loop.unregister(sock)

    loop.register_write(writer, send)
    while counter.count() < SIZE:
        loop.run_once(timeout=0.1)

print(f"sent {SIZE:,} bytes from Python, counted {counter.count():,} in C")
sys.exit(counter.count() != SIZE)
