"""Connect by TCP with one deadline for resolving and for every attempt.

Its one rule: whatever happens, no socket stays open but the one that is returned.
schedule.py decides which address is tried when; this file makes the system calls.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from fdmux.checks import check_host, check_tls_context, checked_port
from fdmux.sockets.handshake import wrap_with_deadline
from fdmux.sockets.schedule import Address, Schedule
from fdmux.sockets.wait import deadline_after, wait_writable

if TYPE_CHECKING:
    from ssl import SSLContext

    from fdmux.checks import Seconds

    _Failure = tuple[Address, OSError]

__all__ = ["connect_with_timeout"]

# connect(2): the attempt continues; a second call would fail.
_UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EINTR, errno.EALREADY})

# These are errors of this machine (no such protocol, no route), not of the host.
_LESS_TELLING = frozenset(
    {
        errno.EAFNOSUPPORT,
        errno.EPROTONOSUPPORT,
        errno.EADDRNOTAVAIL,
        errno.ENETUNREACH,
    }
)


def connect_with_timeout(
    host: str,
    port: int,
    timeout: Seconds | None = 5.0,
    *,
    ssl: SSLContext | None = None,
    server_hostname: str | None = None,
) -> socket.socket:
    """Connect to ``host`` by TCP, or TLS; ``timeout`` bounds all of it.

    A name may have several addresses. The families take turns: the next address is
    tried when the previous one has failed, or has not answered within 250 ms. The first
    attempt that connects is returned, and the others are closed. A daemon thread
    resolves a name; after a timeout it ends by itself, since getaddrinfo(3) cannot be
    cancelled. A literal address needs no thread.

    Args:
        host: A name, or a literal IPv4 or IPv6 address.
        port: 1 to 65535.
        timeout: Any real number. None or ``inf`` waits as long as the kernel tries;
            0 or less raises TimeoutError at once.
        ssl: Encrypt with this context; ``timeout`` bounds the handshake as well.
        server_hostname: The name of the server, which its certificate must have; by
            default ``host``. "" is no name, for a context that does not check it.

    Returns:
        A connected socket in blocking mode, close-on-exec, yours to close; with
        ``ssl`` an `ssl.SSLSocket`.

    Units:   seconds
    Raises:
        TimeoutError: ``timeout`` is over, or the kernel gave up (errno ETIMEDOUT).
        ConnectionRefusedError: Nothing listens there. Also for port 0, and when TCP
            connected the socket to itself, which can happen to a client that keeps
            trying a free local port.
        socket.gaierror: The name does not resolve.
        OSError: Every address failed. The class is that of the first error that the
            host caused, or else of the first error; the message lists them all.
        ssl.SSLError: The handshake failed. It is one with a single address, the first
            that has connected.
        TypeError: ``host`` is not a str, ``port`` not an integer, ``timeout`` not a
            real number, ``ssl`` not an `ssl.SSLContext`.
        ValueError: ``host`` is empty, has 256 or more characters, a NUL or a label
            that no name can have; ``timeout`` is NaN; ``server_hostname`` is given
            without ``ssl``, or "" for a context that checks it.
        OverflowError: ``port`` is not in 0 to 65535.
    Threads: Any; calls share nothing.
    Source:  RFC 8305 sections 4 and 5; connect(2) for EINPROGRESS and EINTR
    """
    check_host(host)
    if ssl is not None:
        check_tls_context(ssl)
    elif server_hostname is not None:
        raise ValueError("server_hostname is for TLS; pass ssl")
    target = (host, _usable_port(host, port))
    deadline = deadline_after(timeout)
    failures: list[_Failure] = []
    addresses = _resolve(target, deadline)
    if addresses:
        sock = _Race(target, addresses, failures).run(deadline)
        if sock is not None and ssl is None:
            return sock
        if sock is not None and ssl is not None:
            name = host if server_hostname is None else server_hostname or None
            with contextlib.suppress(TimeoutError):
                return wrap_with_deadline(sock, ssl, name, deadline)
            raise TimeoutError(
                f"connect to {target!r}: the TLS handshake timed out after {timeout} s"
            )
    raise TimeoutError(
        f"connect to {target!r} timed out after {timeout} s{_listed(failures)}"
    )


def _usable_port(host: str, port: int) -> int:
    """Return ``port``, unless nothing can listen on it."""
    port = checked_port(port)
    if port == 0:
        raise ConnectionRefusedError(
            errno.ECONNREFUSED,
            f"connect to {(host, port)!r} refused: nothing can listen on port 0",
        )
    return port


def _resolve(target: tuple[str, int], deadline: float) -> list[Address]:
    """Return the addresses of ``target``; ``[]`` if the deadline comes first."""
    if monotonic() >= deadline:
        return []
    try:
        return _lookup(target, socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass  # A name, so this may take long.
    answers: SimpleQueue[list[Address] | Exception] = SimpleQueue()
    threading.Thread(
        target=_lookup_into,
        args=(answers, target),
        name=f"fdmux resolves {target[0]}",
        daemon=True,
    ).start()
    while (remaining := deadline - monotonic()) > 0:
        try:
            answer = answers.get(timeout=min(remaining, threading.TIMEOUT_MAX))
        except Empty:
            continue
        if isinstance(answer, Exception):
            raise answer
        return answer
    return []


def _lookup_into(
    answers: SimpleQueue[list[Address] | Exception], target: tuple[str, int]
) -> None:
    """Look up ``target`` in the resolving thread; put the addresses or the error."""
    try:
        answers.put(_lookup(target, 0))
    except socket.gaierror as error:
        message = f"connect to {target!r} failed: {error.strerror}"
        answers.put(socket.gaierror(error.errno, message))
    except Exception as error:  # noqa: BLE001 - the calling thread raises it
        answers.put(error)


def _lookup(target: tuple[str, int], flags: int) -> list[Address]:
    found = socket.getaddrinfo(*target, type=socket.SOCK_STREAM, flags=flags)
    addresses = [Address(entry[0], entry[2], entry[4]) for entry in found]
    if not addresses:
        raise OSError(errno.EADDRNOTAVAIL, f"connect to {target!r}: no address found")
    return addresses


class _Race:
    """Attempts at several addresses; the first that connects wins.

    Args:
        failures: The caller's list; each failed attempt is appended to it.
    """

    def __init__(
        self,
        target: tuple[str, int],
        addresses: list[Address],
        failures: list[_Failure],
    ) -> None:
        self._target = target
        self._schedule = Schedule(addresses)
        self._failures = failures
        self._under_way: dict[socket.socket, Address] = {}

    def run(self, deadline: float) -> socket.socket | None:
        """Return the winner, or None at the deadline; raise if every attempt failed."""
        try:
            return self._first_connected(deadline)
        finally:
            for sock in self._under_way:
                sock.close()

    def _first_connected(self, deadline: float) -> socket.socket | None:
        while (now := monotonic()) < deadline:
            address = self._schedule.take(now)
            if address is not None:
                sock = self._start(address)
            elif self._under_way:
                sock = self._wait(min(self._schedule.next_start, deadline) - now)
            else:
                raise _most_telling(self._target, self._failures)
            if sock is not None:
                return sock
        return None

    def _start(self, address: Address) -> socket.socket | None:
        """Begin an attempt; return its socket if it connects at once."""
        try:
            sock = socket.socket(address.family, socket.SOCK_STREAM, address.protocol)
        except OSError as error:
            self._failed(address, error)
            return None
        self._under_way[sock] = address
        try:
            sock.setblocking(False)
            status = sock.connect_ex(address.sockaddr)
        except OSError as error:
            self._drop(sock, error)
            return None
        return None if status in _UNDER_WAY else self._settle(sock, status)

    def _wait(self, timeout: float) -> socket.socket | None:
        """Wait until attempts end; return the first that has connected."""
        for sock in wait_writable(self._under_way, timeout):
            try:
                status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            except OSError as error:
                self._drop(sock, error)
                continue
            if self._settle(sock, status) is not None:
                return sock
        return None

    def _settle(self, sock: socket.socket, status: int) -> socket.socket | None:
        """Remove an attempt that has ended; return its socket if it is connected."""
        try:
            _check_connected(sock, status)
            sock.setblocking(True)
        except OSError as error:
            self._drop(sock, error)
            return None
        del self._under_way[sock]
        return sock

    def _drop(self, sock: socket.socket, error: OSError) -> None:
        sock.close()
        self._failed(self._under_way.pop(sock), error)

    def _failed(self, address: Address, error: OSError) -> None:
        self._failures.append((address, error))
        self._schedule.hasten()


def _check_connected(sock: socket.socket, status: int) -> None:
    """Raise unless the attempt that ended with errno ``status`` has connected."""
    if status not in {0, errno.EISCONN}:
        raise OSError(status, os.strerror(status))
    try:
        peer = sock.getpeername()
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            sock.recv(1)  # something else has read SO_ERROR: this raises the cause
        raise
    if peer == sock.getsockname():
        # A simultaneous open with itself: local port and target are the same.
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connected to itself")


def _most_telling(target: tuple[str, int], failures: list[_Failure]) -> OSError:
    """Return the error to raise when every address has failed."""
    errors = [error for _, error in failures]
    told = next((one for one in errors if one.errno not in _LESS_TELLING), errors[0])
    return OSError(told.errno, f"connect to {target!r} failed{_listed(failures)}")


def _listed(failures: list[_Failure]) -> str:
    """List the error of each address: ``: 10.0.0.1: Connection refused; ...``."""
    told = [f"{address.sockaddr[0]!s}: {error.strerror}" for address, error in failures]
    return f": {'; '.join(told)}" if told else ""
