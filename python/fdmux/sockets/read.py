"""Read exactly n bytes with a deadline; an error has the bytes read so far.

Its one rule: the socket's mode belongs to its owner. A plain socket is read without
changing it; a TLS socket has no flag for one call, so its mode is changed for the call
and restored.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import contextmanager, suppress
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from time import monotonic
from typing import TYPE_CHECKING

from fdmux.checks import checked_integer
from fdmux.sockets.wait import deadline_after, wait_readable, wait_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from fdmux.checks import Seconds

__all__ = ["IncompleteReadError", "ReadTimeoutError", "read_with_timeout"]

# The size of one receive: the buffer grows with the data, never with ``n``.
_CHUNK = 256 * 1024


class ReadTimeoutError(TimeoutError):
    """The timeout was over before all bytes had arrived.

    Attributes:
        partial: The bytes that arrived.
        expected: How many bytes were asked for.
    """

    partial: bytes = b""
    expected: int = 0


class IncompleteReadError(ConnectionError):
    """The peer ended the stream before all bytes had arrived.

    Attributes:
        partial: The bytes that arrived.
        expected: How many bytes were asked for.
    """

    partial: bytes = b""
    expected: int = 0


def read_with_timeout(
    sock: socket.socket, n: int, timeout: Seconds | None = 5.0
) -> bytes:
    """Read exactly ``n`` bytes from a connected stream socket.

    >>> read_with_timeout(sock, 5, timeout=2.0)
    b'hello'

    The socket may be blocking or not, and may have a timeout: both are ignored, and are
    the same afterwards. Bytes that an ``ssl.SSLSocket`` has already decrypted come
    first.

    Args:
        sock: A stream socket or an ``ssl.SSLSocket``. It stays the caller's.
        n: How many bytes; 0 returns ``b""`` without touching the socket.
        timeout: For all ``n`` bytes together; any real number. None or ``inf`` waits
            for ever; 0 or less reads once what has arrived, at most 256 KiB.

    Returns:
        Exactly ``n`` bytes.

    Units:   seconds
    Raises:
        ReadTimeoutError: A TimeoutError; ``timeout`` is over.
        IncompleteReadError: A ConnectionError; the peer ended the stream.
        OSError: An error of the socket, such as ConnectionResetError.
        ValueError: ``n`` is negative, or ``timeout`` is NaN.
        TypeError: ``n`` is not an integer, or ``timeout`` not a real number.
    Order:   Every exception that is raised after reading began has ``partial``, the
             bytes already read from the socket, and ``expected``, which is ``n``. To go
             on later, put ``partial`` before what you read next.
    Threads: Any, one reader at a time. A TLS socket is non-blocking for other threads
             while it is read.
    Source:  recv(2) for MSG_DONTWAIT
    """
    n = checked_integer("n", n, 0)
    deadline = deadline_after(timeout)
    if n == 0:
        return b""
    buffer = bytearray()
    try:
        _read(sock, buffer, n, deadline)
    except (
        BaseException
    ) as error:  # also one of a signal handler: the bytes are here alone
        error.partial = bytes(buffer)  # type: ignore[attr-defined] # documented
        error.expected = n  # type: ignore[attr-defined] # documented
        raise
    return bytes(buffer)


def _read(sock: socket.socket, buffer: bytearray, n: int, deadline: float) -> None:
    started = monotonic()
    with _receiver(sock) as receive:
        for direction in fill(buffer, n, receive):
            now = monotonic()
            if now >= deadline:
                raise ReadTimeoutError(
                    f"read of {n} bytes from fd {sock.fileno()} timed out after "
                    f"{now - started:.3g} s with {len(buffer)} bytes read"
                )
            _wait(sock, direction, deadline - now)
    if len(buffer) < n:
        raise IncompleteReadError(
            f"read of {n} bytes from fd {sock.fileno()}: the peer ended the stream "
            f"after {len(buffer)} bytes"
        )


def fill(
    buffer: bytearray, n: int, receive: Callable[[int], bytes | int]
) -> Generator[int, None, None]:
    """Receive into ``buffer`` until it has ``n`` bytes or the stream ends.

    Reads no clock. It yields after each receive, so that the caller can look at its
    deadline, and wait if the receive would have blocked.

    Args:
        receive: Takes a size; returns that many bytes or fewer, ``b""`` at the end of
            the stream, or the event to wait for if it would block.

    Shape:   yields EVENT_READ or EVENT_WRITE to wait for, or 0 to continue at once
    """
    while True:
        data = receive(min(n - len(buffer), _CHUNK))
        if isinstance(data, int):
            yield data
            continue
        buffer += data
        if not data or len(buffer) == n:
            return
        yield 0


@contextmanager
def _receiver(sock: socket.socket) -> Iterator[Callable[[int], bytes | int]]:
    """Yield a function that receives without waiting, whatever the socket's mode."""
    if not _is_tls(sock):
        yield partial(_receive, sock)
        return
    timeout = sock.gettimeout()
    sock.setblocking(False)
    try:
        yield partial(_receive_tls, sock)
    finally:
        with suppress(OSError):  # closed meanwhile: there is no mode to restore
            sock.settimeout(timeout)


def _receive(sock: socket.socket, size: int) -> bytes | int:
    # CPython waits before it receives from a socket with a timeout, whatever the flags
    # are. Such a socket is polled first, and read through its descriptor.
    try:
        if sys.platform == "win32":
            return _receive_on_windows(sock, size)
        if not sock.gettimeout():
            return sock.recv(size, socket.MSG_DONTWAIT)
        fd = _descriptor(sock)
        return os.read(fd, size) if wait_readable([fd], 0) else EVENT_READ
    except BlockingIOError:
        return EVENT_READ


def _receive_on_windows(sock: socket.socket, size: int) -> bytes | int:
    """Receive where os.read takes no sockets, and no flag keeps recv from waiting."""
    fd = _descriptor(sock)
    if sock.gettimeout() == 0 or wait_readable([fd], 0):
        return sock.recv(size, 0)
    if sock.type == socket.SOCK_STREAM:
        sock.getpeername()  # raises for one without a peer, of which no wait tells
    return EVENT_READ


def _is_tls(sock: socket.socket) -> bool:
    """Whether ``sock`` is an ssl.SSLSocket; without importing ssl."""
    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(sock, ssl.SSLSocket)


def _receive_tls(sock: socket.socket, size: int) -> bytes | int:
    import ssl  # noqa: PLC0415 - 10 ms that only users of TLS pay

    try:
        return sock.recv(size)
    except (BlockingIOError, ssl.SSLWantReadError):
        return EVENT_READ
    except ssl.SSLWantWriteError:  # a renegotiation or key update
        return EVENT_WRITE


def _wait(sock: socket.socket, direction: int, timeout: float) -> None:
    """Wait on the descriptor, since the object's pending bytes were just read."""
    if direction == EVENT_READ:
        wait_readable([_descriptor(sock)], timeout)
    elif direction == EVENT_WRITE:
        wait_writable([_descriptor(sock)], timeout)


def _descriptor(sock: socket.socket) -> int:
    fd = sock.fileno()
    if fd < 0:
        raise OSError(errno.EBADF, "read from a socket that is closed")
    return fd
