"""A program: one client that sends at full speed and reads what comes back.

    python full_speed_client.py PORT

Prints `sending` when a first megabyte has come back; goes on until a line arrives,
then prints how many bytes came back. Plain sockets and epoll.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys

CHUNK = bytes(64 * 1024)
ENOUGH = 1 << 20


def pump(sock: socket.socket) -> int:
    """Move what can be moved; return how much came back."""
    with contextlib.suppress(BlockingIOError):
        sock.send(CHUNK)
    try:
        return len(sock.recv(len(CHUNK)))
    except BlockingIOError:
        return 0


def main() -> None:
    echoed = 0
    has_said = False
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as sock:
        sock.setblocking(False)
        with select.epoll() as epoll:
            epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)
            epoll.register(sys.stdin, select.EPOLLIN)
            while True:
                ready = [fd for fd, _events in epoll.poll()]
                if sys.stdin.fileno() in ready:
                    break
                echoed += pump(sock)
                if echoed > ENOUGH and not has_said:
                    has_said = True
                    print("sending", flush=True)  # noqa: T201 - the answer
    print(echoed, flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
