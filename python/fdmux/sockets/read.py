"""A timed read of exactly n bytes that loses nothing.

One job: n bytes, or an error that carries what came before it. One rule: the
socket's mode belongs to its owner. A plain socket is read without touching it; a TLS
socket has no per-call flag, so its mode changes for the call and is put back.
"""

from __future__ import annotations

import errno
import operator
import os
import socket
import sys
from contextlib import contextmanager, suppress
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from time import monotonic
from typing import TYPE_CHECKING

from fdmux.sockets.wait import deadline_after, wait_readable, wait_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

__all__ = ["IncompleteReadError", "ReadTimeoutError", "read_with_timeout"]

# Asked of the kernel at once: the buffer grows with the data, never with ``n``.
_CHUNK = 256 * 1024


class ReadTimeoutError(TimeoutError):
    """The time was over before all bytes had come.

    ``partial`` holds those that came, ``expected`` is how many were asked for.
    """

    partial: bytes = b""
    expected: int = 0


class IncompleteReadError(ConnectionError):
    """The peer ended the stream before all bytes had come.

    ``partial`` holds those that came, ``expected`` is how many were asked for.
    """

    partial: bytes = b""
    expected: int = 0


def read_with_timeout(
    sock: socket.socket, n: int, timeout: float | None = 5.0
) -> bytes:
    """Read exactly ``n`` bytes from a connected stream socket.

    Blocking or not, the socket's mode and timeout are not consulted, and are the
    same afterwards. Bytes that an ``ssl.SSLSocket`` has decrypted already are served
    first.

    Args:
        sock: A stream socket or an ``ssl.SSLSocket``. Stays yours, also on error.
        n: How many bytes; 0 returns ``b""`` without touching the socket.
        timeout: For all of it, not for each piece. None or ``inf`` waits for ever;
            0 or less takes what is there, at most 256 KiB.

    Returns:
        ``n`` bytes, never fewer.

    Units:   seconds
    Raises:
        ReadTimeoutError: A TimeoutError; the time was over.
        IncompleteReadError: A ConnectionError; the stream ended.
        OSError: What the socket reports, such as ConnectionResetError.
        ValueError: ``n`` is negative, or ``timeout`` is NaN.
        TypeError: ``n`` is not an integer.
    Order:   Every exception raised after reading began has ``partial``, the bytes
             already taken from the socket, and ``expected``, which is ``n``: put
             ``partial`` in front of what you read next, and nothing is lost.
    Threads: Any, one reader at a time. While a TLS socket is read, its other users
             see it non-blocking.
    Source:  recv(2) for MSG_DONTWAIT
    """
    n = operator.index(n)
    if n < 0:
        raise ValueError(f"cannot read {n} bytes")
    deadline = deadline_after(timeout)
    if n == 0:
        return b""
    buffer = bytearray()
    try:
        _read(sock, buffer, n, deadline)
    except BaseException as error:  # a signal handler's too: nobody else has the bytes
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
            f"read of {n} bytes from fd {sock.fileno()} met the end of the stream "
            f"after {len(buffer)} bytes"
        )


def fill(
    buffer: bytearray, n: int, receive: Callable[[int], bytes | int]
) -> Generator[int, None, None]:
    """Receive into ``buffer`` until it has ``n`` bytes or the stream ends.

    Knows no clock: it yields whenever the caller should look at its own, with what
    must be waited for before going on.

    Args:
        receive: Takes a size; returns that many bytes or fewer, ``b""`` at the end
            of the stream, or what to wait for if that would block.

    Shape:   yields EVENT_READ, EVENT_WRITE, or 0 to go on at once
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
    """Give a function that receives without waiting, whatever the socket's mode."""
    if not _is_tls(sock):
        yield partial(_receive, sock)
        return
    timeout = sock.gettimeout()
    sock.setblocking(False)
    try:
        yield partial(_receive_tls, sock)
    finally:
        with suppress(OSError):  # closed in the meantime: no mode to put back
            sock.settimeout(timeout)


def _receive(sock: socket.socket, size: int) -> bytes | int:
    # CPython waits before it receives from a socket that has a timeout, whatever
    # the flags say; so such a one is polled here first, and read past its object.
    try:
        if not sock.gettimeout():
            return sock.recv(size, socket.MSG_DONTWAIT)
        fd = _descriptor(sock)
        return os.read(fd, size) if wait_readable([fd], 0) else EVENT_READ
    except BlockingIOError:
        return EVENT_READ


def _is_tls(sock: socket.socket) -> bool:
    """Whether ``sock`` is an ssl.SSLSocket; who has one has imported ssl."""
    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(sock, ssl.SSLSocket)


def _receive_tls(sock: socket.socket, size: int) -> bytes | int:
    import ssl  # noqa: PLC0415 - its 10 ms are for those who use TLS

    try:
        return sock.recv(size)
    except (BlockingIOError, ssl.SSLWantReadError):
        return EVENT_READ
    except ssl.SSLWantWriteError:  # a renegotiation or key update
        return EVENT_WRITE


def _wait(sock: socket.socket, direction: int, timeout: float) -> None:
    """Wait on the descriptor, not the object: pending TLS bytes were just asked for."""
    if direction == EVENT_READ:
        wait_readable([_descriptor(sock)], timeout)
    elif direction == EVENT_WRITE:
        wait_writable([_descriptor(sock)], timeout)


def _descriptor(sock: socket.socket) -> int:
    fd = sock.fileno()
    if fd < 0:
        raise OSError(errno.EBADF, "read from a socket that is closed")
    return fd
