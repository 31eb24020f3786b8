"""Tour: connecting and reading with a timeout."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from typing import TYPE_CHECKING

from fdmux import connect_with_timeout, read_with_timeout
from fdmux.commands.tour.expect import UnexpectedError, expect, milliseconds_since
from fdmux.sockets.read import IncompleteReadError, ReadTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
TIMEOUT = 0.1


def connected() -> str:
    """A server listens: the result is a socket in blocking mode."""
    with socket.create_server((HOST, 0)) as listener:
        began = time.monotonic()
        with connect_with_timeout(HOST, port_of(listener), timeout=5) as sock:
            expect(sock.getblocking(), "the socket is not in blocking mode")
            return f"in {milliseconds_since(began):.1f} ms"


def refused() -> str:
    """Connect to a port that refuses: the error is the kernel's, with the address."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        try:
            connect_with_timeout(HOST, port_of(taken), timeout=5).close()
        except ConnectionRefusedError as error:
            return str(error.strerror)
    raise UnexpectedError("connected to a port where nobody listens")


def timed_out() -> str:
    """A server does not answer: the attempt ends in time."""
    with deaf_listener() as port:
        began = time.monotonic()
        try:
            connect_with_timeout(HOST, port, timeout=TIMEOUT).close()
        except TimeoutError as error:
            expect(time.monotonic() - began >= TIMEOUT, "it gave up early")
            return str(error)
    raise UnexpectedError("connected to a listener whose backlog is full")


def read_whole() -> str:
    """The bytes arrive in pieces and are put together."""
    with connected_pair() as (client, server):
        pieces = (b"he", b"ll", b"o")
        for piece in pieces:
            server.sendall(piece)
        data = read_with_timeout(client, 5, timeout=5)
        expect(data == b"hello", f"read {data!r}")
        return f"{data!r} from {len(pieces)} pieces"


def read_partial() -> str:
    """The rest does not arrive in time: the error has what arrived."""
    with connected_pair() as (client, server):
        server.sendall(b"he")
        try:
            read_with_timeout(client, 5, timeout=TIMEOUT)
        except ReadTimeoutError as error:
            expect(error.partial == b"he", f"partial is {error.partial!r}")
            return f"{error.partial!r} of {error.expected} bytes kept"
    raise UnexpectedError("read 5 bytes where 3 were sent")


def read_ended() -> str:
    """The connection ends too early: the error has what arrived."""
    with connected_pair() as (client, server):
        server.sendall(b"hell")
        server.shutdown(socket.SHUT_WR)
        try:
            read_with_timeout(client, 5, timeout=5)
        except IncompleteReadError as error:
            expect(error.partial == b"hell", f"partial is {error.partial!r}")
            return f"{error.partial!r} of {error.expected} bytes kept"
    raise UnexpectedError("read 5 bytes where 4 were sent")


def port_of(sock: socket.socket) -> int:
    """Return the port that the socket is bound to."""
    port: int = sock.getsockname()[1]
    return port


@contextlib.contextmanager
def connected_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection."""
    with socket.create_server((HOST, 0)) as listener:
        client = connect_with_timeout(HOST, port_of(listener), timeout=5)
        with client:
            server, _ = listener.accept()
            with server:
                yield client, server


@contextlib.contextmanager
def deaf_listener() -> Iterator[int]:
    """A port that never answers: its backlog is full, so the kernel drops each SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, 0)))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            status = filler.connect_ex(listener.getsockname())
            expect(
                status in {0, errno.EINPROGRESS, errno.EWOULDBLOCK},
                f"connect: errno {status}",
            )
        yield port_of(listener)
