"""A server, and functions that connect to it in every way a client can.

The words used here:

* a shape: one such function. It opens connections, compares what comes back with what
  it sent, and returns.
* the books: the handler of the server. It counts bytes received and answered,
  connections begun and ended, and errors, so that no byte goes uncounted.
* a storm: many short connections at once.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from typing import TYPE_CHECKING

from tests.peers import receive, reset

from fdmux import StreamHandler, StreamServer, wait_readable, wait_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fdmux import SelectorEventLoop, Stream

    Shape = Callable[["Network"], None]

LONG = 30.0
KIB = 1024
SMALL = 4 * KIB  # a receive buffer that is full soon
QUIET = 0.05  # not writable for so long: the peer's window is closed
HALF = b"half-close"  # asks the server to shut down its side and read on


class Books(StreamHandler):
    """Echoes; counts the bytes received and answered, and each end."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.received = self.answered = self.ends = 0
        self.errors: list[Exception] = []
        # For each half-closed stream: how many bytes arrived after our shutdown.
        self.came_after_half: queue.SimpleQueue[int] = queue.SimpleQueue()

    def on_connect(self, stream: Stream) -> None:
        # None while it answers; later, the bytes that arrived after our shutdown.
        stream.data = None
        self.begun.release()

    def on_data(self, stream: Stream, data: bytes) -> bytes | None:
        self.received += len(data)
        if isinstance(stream.data, int):
            stream.data += len(data)
            return None
        self.answered += len(data)
        if data == HALF:
            stream.write(data)
            stream.shutdown()
            stream.data = 0
            return None
        return data

    def on_close(self, stream: Stream, error: Exception | None) -> None:
        self.ends += 1
        if isinstance(stream.data, int):
            self.came_after_half.put(stream.data)
        if error is not None:
            self.errors.append(error)
        self.ended.release()


class Network:
    """A server of one address family in its own thread, and its clients."""

    def __init__(
        self, loop: SelectorEventLoop, family: socket.AddressFamily, path: str
    ) -> None:
        self.books = Books()
        self._loop = loop
        self._family = family
        self._stack = contextlib.ExitStack()
        host = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}.get(family, path)
        port = None if family == socket.AF_UNIX else 0
        self.server = StreamServer(host, port, self.books, loop=loop, backlog=1024)
        self.server.start()
        self._thread = threading.Thread(target=loop.run, args=(None,))
        self._thread.start()
        self.connections = self.sent = self.compared = self.wrong = 0

    @property
    def is_tcp(self) -> bool:
        return self._family != socket.AF_UNIX

    def connect(self, *, window: int | None = None) -> socket.socket:
        sock = self._stack.enter_context(socket.socket(self._family))
        if window is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        address = self.server.address
        # Without a timeout yet: with one, a full backlog of a Unix socket is an error.
        sock.connect(address if self.is_tcp else address[0])
        sock.settimeout(LONG)
        if self.is_tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        return sock

    def compare(self, came: bytes, sent: bytes) -> None:
        """Count the bytes compared, and the comparison if it fails."""
        self.compared += len(sent)
        self.wrong += came != sent

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Block the server's thread during the block."""
        stands, goes_on = threading.Event(), threading.Event()

        def stand() -> None:
            stands.set()
            goes_on.wait(LONG)

        self._loop.call_soon_threadsafe(stand)
        assert stands.wait(LONG)
        try:
            yield
        finally:
            goes_on.set()

    def accepted(self) -> socket.socket:
        """Connect, and wait until the server has accepted."""
        for _ in range(self.connections):  # of earlier shapes
            self.books.begun.acquire(blocking=False)
        sock = self.connect()
        assert self.books.begun.acquire(timeout=LONG)
        return sock

    def wait_for_ends(self) -> None:
        """Return when the server has seen the end of each connection."""
        for _ in range(self.connections):
            if not self.books.ended.acquire(timeout=LONG):
                return

    def close(self) -> None:
        """Close the clients and the server; the counts stay. Idempotent."""
        if not self._thread.is_alive():
            return
        self._stack.close()
        self.wait_for_ends()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LONG)
        self.server.stop()


# ---- doing things to a socket --------------------------------------------------------


def receive_all(sock: socket.socket, size: int = 64 * KIB) -> bytes:
    """Read to the end of the stream."""
    parts = []
    while part := sock.recv(size):
        parts.append(part)
    return b"".join(parts)


def send_and_end(sock: socket.socket, data: bytes) -> threading.Thread:
    """Send in a thread of its own, then shut down the writing side."""

    def send() -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def fill(sock: socket.socket) -> bytes:
    """Send until the kernel accepts no more; return what it accepted."""
    taken = b""
    chunk = os.urandom(64 * KIB)
    while wait_writable([sock], QUIET):
        sent = sock.send(chunk, socket.MSG_DONTWAIT)
        taken += chunk[:sent]
    return taken


# ---- shapes: every byte comes back ---------------------------------------------------


def messages_of_one_byte(net: Network) -> None:
    sock = net.connect()
    for number in range(256):
        sock.send(bytes([number]))
        net.compare(sock.recv(2), bytes([number]))


def dribble(net: Network) -> None:
    """Send bytes one by one without waiting for an answer."""
    sock = net.connect()
    data = os.urandom(500)
    for number in data:
        sock.send(bytes([number]))
    net.compare(receive(sock, len(data)), data)


def burst(net: Network, size: int = 1024 * KIB) -> None:
    sock = net.connect()
    data = os.urandom(size)
    thread = send_and_end(sock, data)
    net.compare(receive_all(sock), data)
    thread.join()


def bursts_of_many(net: Network) -> None:
    socks = [net.connect() for _ in range(50)]
    for sock in socks:
        sock.sendall(b"%4d" % sock.fileno() * 500)
    for sock in socks:
        net.compare(receive(sock, 2000), b"%4d" % sock.fileno() * 500)


def half_close_with_much_on_the_way(net: Network) -> None:
    """The client shuts down its side before it reads a byte of the answer."""
    sock = net.connect()
    data = os.urandom(100 * KIB)
    with net.standing_still():
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    net.compare(receive_all(sock), data)


def half_close_without_a_byte(net: Network) -> None:
    sock = net.connect()
    sock.shutdown(socket.SHUT_WR)
    net.compare(receive_all(sock), b"")


def half_close_by_the_server(net: Network) -> None:
    """The server reads on after its own shutdown."""
    sock = net.connect()
    sock.sendall(HALF)
    net.compare(receive_all(sock), HALF)
    sock.sendall(bytes(300 * KIB))
    sock.shutdown(socket.SHUT_WR)
    came = net.books.came_after_half.get(timeout=LONG)
    net.compare(bytes(came), bytes(300 * KIB))


def closed_window(net: Network) -> None:
    """The client reads nothing until both directions are full, then everything."""
    sock = net.connect(window=SMALL)
    data = fill(sock)
    sock.shutdown(socket.SHUT_WR)
    net.compare(receive_all(sock), data)


def slow_drip(net: Network) -> None:
    """The client reads byte by byte what it sent at once."""
    sock = net.connect(window=SMALL)
    data = os.urandom(2000)
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    net.compare(receive_all(sock, 1), data)


def nothing_sent(net: Network) -> None:
    """A send of no bytes sends nothing."""
    sock = net.connect()
    sock.send(b"")
    sock.send(b"x")
    net.compare(sock.recv(2), b"x")


def urgent_byte(net: Network) -> None:
    """An urgent byte is not part of the stream (tcp(7), MSG_OOB)."""
    if not net.is_tcp:
        return
    sock = net.connect()
    sock.send(b"before")
    sock.send(b"!", socket.MSG_OOB)
    sock.send(b"after")
    net.compare(receive(sock, 11), b"beforeafter")


# ---- shapes: an end somewhere --------------------------------------------------------


def closed_at_once(net: Network) -> None:
    net.connect().close()


def closed_before_accept(net: Network) -> None:
    with net.standing_still():
        net.connect().close()


def closed_with_unread_answer(net: Network) -> None:
    """The kernel turns this into a reset."""
    sock = net.connect()
    sock.sendall(b"x" * 1000)
    assert wait_readable([sock], LONG)
    sock.close()


def both_sides_shut_down(net: Network) -> None:
    sock = net.connect()
    sock.sendall(b"x")
    sock.shutdown(socket.SHUT_RDWR)


def reset_at_once(net: Network) -> None:
    reset(net.connect())


def reset_before_accept(net: Network) -> None:
    with net.standing_still():
        reset(net.connect())


def reset_after_accept(net: Network) -> None:
    reset(net.accepted())


def reset_before_data_is_read(net: Network) -> None:
    sock = net.accepted()
    with net.standing_still():
        sock.sendall(b"x" * 1000)
        reset(sock)


def reset_with_unread_answer(net: Network) -> None:
    sock = net.connect()
    sock.sendall(b"x" * 1000)
    assert wait_readable([sock], LONG)
    reset(sock)


def reset_with_a_full_queue(net: Network) -> None:
    sock = net.connect(window=SMALL)
    fill(sock)
    reset(sock)


def reset_after_half_close(net: Network) -> None:
    sock = net.accepted()
    with net.standing_still():
        sock.sendall(b"x" * 1000)
        sock.shutdown(socket.SHUT_WR)
        reset(sock)


def reset_after_half_close_with_a_full_queue(net: Network) -> None:
    sock = net.connect(window=SMALL)
    fill(sock)
    sock.shutdown(socket.SHUT_WR)
    reset(sock)


def reset_after_half_close_by_the_server(net: Network) -> None:
    sock = net.connect()
    sock.sendall(HALF)
    net.compare(receive_all(sock), HALF)
    reset(sock)


STORM = 100


def storm_of_closes(net: Network, count: int = STORM) -> None:
    for _ in range(count):
        net.connect().close()


def storm_of_resets(net: Network, count: int = STORM) -> None:
    for _ in range(count):
        reset(net.connect())


def storm_of_messages_without_a_reader(net: Network, count: int = STORM) -> None:
    for _ in range(count):
        sock = net.connect()
        sock.sendall(b"x" * 100)
        sock.close()


SHAPES: list[Shape] = [
    messages_of_one_byte,
    dribble,
    burst,
    bursts_of_many,
    half_close_with_much_on_the_way,
    half_close_without_a_byte,
    half_close_by_the_server,
    closed_window,
    slow_drip,
    nothing_sent,
    urgent_byte,
    closed_at_once,
    closed_before_accept,
    closed_with_unread_answer,
    both_sides_shut_down,
    reset_at_once,
    reset_before_accept,
    reset_after_accept,
    reset_before_data_is_read,
    reset_with_unread_answer,
    reset_with_a_full_queue,
    reset_after_half_close,
    reset_after_half_close_with_a_full_queue,
    reset_after_half_close_by_the_server,
    storm_of_closes,
    storm_of_resets,
    storm_of_messages_without_a_reader,
]
