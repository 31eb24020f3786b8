"""Waiting for readiness, once, without building a selector.

One job: say which of the given sockets are ready, in the order given. One rule:
never early; what the kernel counts in milliseconds is rounded up. The wait is
poll(2): it needs no descriptor of its own, knows every kind of file, and a fresh
poll object costs a sixth of a fresh epoll selector.
"""

from __future__ import annotations

import errno
from math import inf, isnan
from select import POLLIN, POLLNVAL, POLLOUT, poll
from socket import socket
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    PollOnce = Callable[[float | None], list[tuple[int, int]]]

__all__ = ["HasFileno", "deadline_after", "wait_readable", "wait_writable"]


class HasFileno(Protocol):
    """Anything that has a descriptor: a socket, a pipe end, a server object."""

    def fileno(self) -> int:
        """Return the descriptor."""


Waitable = TypeVar("Waitable", bound="int | HasFileno")

# poll(2) takes an int of milliseconds (24.8 days); longer waits go in such steps.
_LONGEST_STEP = float((2**31 - 1) // 1000)


def wait_readable(
    sockets: Iterable[Waitable], timeout: float | None = 1.0
) -> list[Waitable]:
    """Wait until something can be read from one of ``sockets``, and say from which.

    Readable means that a read returns at once: data, an end of file, an error, or
    for a listening socket a connection. An object with a ``pending()`` method, as
    ``ssl.SSLSocket`` has, is also readable while that returns more than 0, because
    those bytes have left the kernel and no poll would report them.

    Args:
        sockets: Descriptors or objects with ``fileno()``, duplicates allowed.
        timeout: The longest wait; None or ``inf`` waits for ever, 0 or less looks
            once. At most a millisecond late by itself, never early.

    Returns:
        The ready ones, the very objects given, in the order given. ``[]`` if none
        became ready in time, and at once if none were given.

    Units:   seconds
    Raises:
        ValueError: ``timeout`` is NaN, a descriptor is negative (a closed socket),
            or something given is neither an int nor has a ``fileno()``.
        OSError: ``EBADF`` if a descriptor is not open, whatever the others do.
    Threads: Any; calls share nothing.
    Source:  poll(2); PEP 475 for signals: the wait goes on with the time left
    """
    return _wait(sockets, timeout, POLLIN)


def wait_writable(
    sockets: Iterable[Waitable], timeout: float | None = 1.0
) -> list[Waitable]:
    """Wait until one of ``sockets`` takes data, and say which ones do.

    A connecting socket becomes writable when the attempt has ended, well or not.
    A socket whose peer has gone is writable: the write tells the error. The rest is
    as in `wait_readable`, without its rule about ``pending()``.
    """
    return _wait(sockets, timeout, POLLOUT)


def deadline_after(timeout: float | None) -> float:
    """Return when ``timeout`` seconds from now are over; ``inf`` for None.

    Units:   seconds of ``time.monotonic``
    Raises:
        ValueError: ``timeout`` is NaN.
    """
    if timeout is None:
        return inf
    if isnan(timeout):
        raise ValueError("timeout is NaN")
    return monotonic() + timeout


def _wait(
    sockets: Iterable[Waitable], timeout: float | None, direction: int
) -> list[Waitable]:
    given = list(sockets)
    one = given[0] if len(given) == 1 else None
    if type(one) is not socket:
        return _wait_for_many(given, timeout, direction)
    # One plain socket, the usual case: the same without sets and comprehensions.
    fd = one.fileno()
    poller = poll()
    poller.register(fd, direction)  # refuses -1, a closed one, as _fd_of does
    events = _poll_until(poller.poll, timeout)
    if not events:
        return []
    if events[0][1] & POLLNVAL:
        raise _not_open(fd)
    return given


def _wait_for_many(
    given: list[Waitable], timeout: float | None, direction: int
) -> list[Waitable]:
    if timeout is not None and isnan(timeout):
        raise ValueError("timeout is NaN")
    if not given:
        return []
    pairs = [(_fd_of(one), one) for one in given]
    poller = poll()
    for fd, _ in pairs:
        poller.register(fd, direction)
    ready: set[int] = set()
    if direction == POLLIN:
        ready.update(fd for fd, one in pairs if _has_pending(one))
    for fd, event in _poll_until(poller.poll, 0 if ready else timeout):
        if event & POLLNVAL:
            raise _not_open(fd)
        ready.add(fd)  # whatever the event: POLLHUP and POLLERR wake both directions
    return [one for fd, one in pairs if fd in ready]


def _fd_of(one: int | HasFileno) -> int:
    try:
        fd = one if isinstance(one, int) else int(one.fileno())
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"Invalid file object: {one!r}") from None
    if fd < 0:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return fd


def _has_pending(one: int | HasFileno) -> bool:
    """Whether a TLS layer holds decrypted bytes; asks without importing ssl."""
    pending: Callable[[], int] | None = getattr(one, "pending", None)
    return callable(pending) and pending() > 0


def _not_open(fd: int) -> OSError:
    return OSError(errno.EBADF, f"wait on fd {fd}: the descriptor is not open")


def _poll_until(poll_once: PollOnce, timeout: float | None) -> list[tuple[int, int]]:
    """Poll, in milliseconds, until something is reported or ``timeout`` is over."""
    if timeout is None:
        return poll_once(None)
    if timeout <= _LONGEST_STEP:
        return poll_once(timeout * 1000 if timeout > 0 else 0)  # rounds up itself
    if isnan(timeout):
        raise ValueError("timeout is NaN")
    deadline = monotonic() + timeout
    while not (events := poll_once(min(timeout, _LONGEST_STEP) * 1000)):
        timeout = deadline - monotonic()
        if timeout <= 0:
            break
    return events
