"""Connect by TCP with one deadline for resolving and for every attempt.

Its one rule: whatever happens, no socket stays open but the one that is returned.
race.py has the attempts, schedule.py decides which address is tried when; this file
waits for them.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from fdmux.checks import check_host, check_tls_context, checked_port
from fdmux.sockets.handshake import wrap_with_deadline
from fdmux.sockets.race import Race, look_up
from fdmux.sockets.wait import deadline_after, wait_writable

if TYPE_CHECKING:
    from ssl import SSLContext

    from fdmux.checks import Seconds
    from fdmux.sockets.schedule import Address

__all__ = ["connect_with_timeout"]


def connect_with_timeout(
    host: str,
    port: int,
    timeout: Seconds | None = 5.0,
    *,
    ssl: SSLContext | None = None,
    server_hostname: str | None = None,
) -> socket.socket:
    """Connect to ``host`` by TCP, or TLS; ``timeout`` bounds all of it.

    >>> with connect_with_timeout("localhost", port, timeout=2.0) as client:
    ...     client.sendall(b"hello")
    ...     read_with_timeout(client, 5, timeout=2.0)
    b'hello'

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
    told = ""
    addresses = _resolve(target, deadline)
    if addresses:
        race = Race(target, addresses)
        sock = _run(race, deadline)
        told = race.listed()
        if sock is not None and ssl is None:
            return sock
        if sock is not None and ssl is not None:
            name = host if server_hostname is None else server_hostname or None
            with contextlib.suppress(TimeoutError):
                return wrap_with_deadline(sock, ssl, name, deadline)
            raise TimeoutError(
                f"connect to {target!r}: the TLS handshake timed out after {timeout} s"
            )
    raise TimeoutError(f"connect to {target!r} timed out after {timeout} s{told}")


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
        return look_up(target, socket.AI_NUMERICHOST)
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
        answers.put(look_up(target))
    except Exception as error:  # noqa: BLE001 - the calling thread raises it
        answers.put(error)


def _run(race: Race, deadline: float) -> socket.socket | None:
    """Return the winner, or None at the deadline; raise if every attempt failed."""
    try:
        while (now := monotonic()) < deadline:
            address = race.schedule.take(now)
            if address is not None:
                sock = race.start(address)
            elif race.under_way:
                wait = min(race.schedule.next_start, deadline) - now
                ended = wait_writable(race.under_way, wait)
                sock = next(filter(None, map(race.look, ended)), None)
            else:
                raise race.error()
            if sock is not None:
                sock.setblocking(True)
                return sock
        return None
    finally:
        race.close()
