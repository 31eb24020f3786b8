"""A timed TCP connect: one deadline over resolving and every attempt.

One job: return a connected socket or raise, in time. One rule: whatever happens,
no other socket stays open. When which address is tried is decided in
`fdmux.attempts`; here are the system calls.
"""

from __future__ import annotations

import errno
import operator
import os
import socket
import threading
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from fdmux.sockets.schedule import Address, Schedule
from fdmux.sockets.wait import deadline_after, wait_writable

if TYPE_CHECKING:
    _Failure = tuple[Address, OSError]

__all__ = ["connect_with_timeout"]

# RFC 1035 section 2.3.4; getaddrinfo(3) has no use for more either.
_HOST_LENGTH_MAX = 255

# connect(2): the attempt goes on by itself; a second call would be an error.
_UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EINTR, errno.EALREADY})

# These say that this machine has no such protocol or route, not what the host did.
_LESS_TELLING = frozenset(
    {
        errno.EAFNOSUPPORT,
        errno.EPROTONOSUPPORT,
        errno.EADDRNOTAVAIL,
        errno.ENETUNREACH,
    }
)


def connect_with_timeout(
    host: str, port: int, timeout: float | None = 5.0
) -> socket.socket:
    """Connect to ``host`` by TCP within ``timeout``, all in all.

    A name may have several addresses. The families take turns; the next address is
    tried when the last has failed, or has not answered within 250 ms; the first to
    connect wins and the others are closed. A name is resolved in a daemon thread,
    which after a timeout is left to end by itself, since getaddrinfo(3) cannot be
    cancelled. A literal address starts no thread.

    Args:
        host: A name, or a literal IPv4 or IPv6 address.
        port: 1 to 65535.
        timeout: None or ``inf`` waits as long as the kernel tries; 0 or less has no
            time for anything and raises TimeoutError at once.

    Returns:
        A connected socket in blocking mode, close-on-exec, yours to close.

    Units:   seconds
    Raises:
        TimeoutError: The time was over (or the kernel gave up: errno ETIMEDOUT).
        ConnectionRefusedError: Nobody listens there. Also for port 0, and when TCP
            joined the socket to itself, which happens to a client that keeps
            trying a free local port.
        socket.gaierror: The name does not resolve.
        OSError: The subclass of the first attempt's error, preferring those that
            the host caused; the message lists what each address said.
        ValueError: ``host`` is empty, has 256 or more characters, a NUL or a label
            that no name can have; ``timeout`` is NaN.
        OverflowError: ``port`` is not in 0 to 65535.
    Threads: Any; calls share nothing.
    Source:  RFC 8305 sections 4 and 5; connect(2) for EINPROGRESS and EINTR
    """
    _check_host(host)
    target = (host, _checked_port(host, port))
    deadline = deadline_after(timeout)
    failures: list[_Failure] = []
    addresses = _resolve(target, deadline)
    if addresses:
        sock = _Race(target, addresses, failures).run(deadline)
        if sock is not None:
            return sock
    raise TimeoutError(
        f"connect to {target!r} timed out after {timeout} s{_listed(failures)}"
    )


def _check_host(host: str) -> None:
    """Refuse what no resolver should see."""
    if not isinstance(host, str):
        raise TypeError(f"host must be a str, not {type(host).__name__}")
    if not host:
        raise ValueError("host is empty")
    if len(host) > _HOST_LENGTH_MAX:
        raise ValueError(f"host has {len(host)} characters, more than any name can")
    if "\0" in host:
        raise ValueError(f"host {host!r} contains a NUL")
    try:
        host.encode("idna")  # what getaddrinfo would do, only later
    except UnicodeError as error:
        raise ValueError(f"host {host!r} cannot be a name: {error}") from error


def _checked_port(host: str, port: int) -> int:
    port = operator.index(port)
    if not 0 <= port <= 65535:
        raise OverflowError(f"connect to {(host, port)!r}: port must be 0-65535")
    if port == 0:
        raise ConnectionRefusedError(
            errno.ECONNREFUSED,
            f"connect to {(host, port)!r} refused: nobody can listen on port 0",
        )
    return port


def _resolve(target: tuple[str, int], deadline: float) -> list[Address]:
    """Return the addresses of ``target``; none if the time is over before."""
    if monotonic() >= deadline:
        return []
    try:
        return _lookup(target, socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass  # Not a literal address, so this may take its time.
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
    """Run in the resolving thread; an exception travels as the answer."""
    try:
        answers.put(_lookup(target, 0))
    except socket.gaierror as error:
        message = f"connect to {target!r} failed: {error.strerror}"
        answers.put(socket.gaierror(error.errno, message))
    except Exception as error:  # noqa: BLE001 - raised again by the caller's thread
        answers.put(error)


def _lookup(target: tuple[str, int], flags: int) -> list[Address]:
    found = socket.getaddrinfo(*target, type=socket.SOCK_STREAM, flags=flags)
    addresses = [Address(entry[0], entry[2], entry[4]) for entry in found]
    if not addresses:
        raise OSError(errno.EADDRNOTAVAIL, f"connect to {target!r}: no address found")
    return addresses


class _Race:
    """Attempts at several addresses, of which the first to connect wins.

    ``failures`` is the caller's list: it tells why, whichever way the race ends.
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
        """Return the winner, None when time is up; raise when all have failed."""
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
        """Begin an attempt; return its socket if that connects at once."""
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
        """Wait for attempts to end; return the first that ended well."""
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
        """Take an attempt that has ended out of the race; return it if connected."""
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
            sock.recv(1)  # SO_ERROR was read by someone else: this tells the cause.
        raise
    if peer == sock.getsockname():
        # TCP simultaneous open with oneself: local port and target were the same.
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connected to itself")


def _most_telling(target: tuple[str, int], failures: list[_Failure]) -> OSError:
    """Return what to raise when each address has failed."""
    errors = [error for _, error in failures]
    told = next((one for one in errors if one.errno not in _LESS_TELLING), errors[0])
    return OSError(told.errno, f"connect to {target!r} failed{_listed(failures)}")


def _listed(failures: list[_Failure]) -> str:
    """Spell out what each address said: ``: 10.0.0.1: Connection refused; ...``."""
    told = [f"{address.sockaddr[0]!s}: {error.strerror}" for address, error in failures]
    return f": {'; '.join(told)}" if told else ""
