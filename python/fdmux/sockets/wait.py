"""Wait for readiness once, without a selector.

Its one rule: a wait never ends early; what the kernel counts in milliseconds is rounded
up. The wait is poll(2): it needs no descriptor of its own, takes every kind of file,
and a new poll object costs a sixth of a new epoll selector.
"""

from __future__ import annotations

import errno
from math import inf
from socket import socket
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TypeVar

from fdmux.checks import checked_timeout
from fdmux.descriptor import is_path_only
from fdmux.sockets.poll import POLLIN, POLLNVAL, POLLOUT, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fdmux.checks import Seconds

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
    sockets: Iterable[Waitable], timeout: Seconds | None = 1.0
) -> list[Waitable]:
    """Wait until at least one of ``sockets`` is readable; return those that are.

    >>> wait_readable([sock, idle], timeout=1.0) == [sock]
    True

    A socket is readable when a read returns at once: with data, the end of the file or
    an error; a listening socket, when a connection can be accepted. An object with a
    ``pending()`` method, such as ``ssl.SSLSocket``, is also readable while that returns
    more than 0: poll(2) does not see the bytes that TLS has already decrypted.

    Args:
        sockets: Descriptors or objects with ``fileno()``, duplicates allowed.
        timeout: The longest wait; any real number. None or ``inf`` waits for ever, 0
            or less does not wait.

    Returns:
        The objects that are ready, in the order given; ``[]`` if none became ready in
        time, and at once if ``sockets`` is empty.

    Units:   seconds; never early, at most a millisecond late
    Raises:
        TypeError: ``timeout`` is not a real number.
        ValueError: ``timeout`` is NaN; a descriptor is negative (a closed socket); an
            object is neither an int nor has a ``fileno()``, or its ``fileno()`` raised.
        OSError: ``EBADF`` if a descriptor is not open, or was opened with ``O_PATH``,
            whatever the others do.
    Threads: Any; calls share nothing.
    Source:  poll(2); PEP 475 for signals: the wait goes on with the time left
    """
    return _wait(sockets, timeout, POLLIN)


def wait_writable(
    sockets: Iterable[Waitable], timeout: Seconds | None = 1.0
) -> list[Waitable]:
    """Wait until at least one of ``sockets`` is writable; return those that are.

    >>> wait_writable([sock]) == [sock]
    True

    A connecting socket becomes writable when it has connected or failed. A socket whose
    peer has closed is writable: the write raises the error. Otherwise as
    `wait_readable`, except that ``pending()`` does not matter.
    """
    return _wait(sockets, timeout, POLLOUT)


def deadline_after(timeout: Seconds | None) -> float:
    """Return the time ``timeout`` seconds from now; ``inf`` for None.

    Units:   seconds of ``time.monotonic``
    Raises:
        TypeError: ``timeout`` is not a real number.
        ValueError: ``timeout`` is NaN.
    """
    seconds = checked_timeout(timeout)
    return inf if seconds == inf else monotonic() + seconds


def _wait(
    sockets: Iterable[Waitable], timeout: Seconds | None, direction: int
) -> list[Waitable]:
    seconds = checked_timeout(timeout)
    given = list(sockets)
    one = given[0] if len(given) == 1 else None
    if type(one) is not socket:
        return _wait_for_many(given, seconds, direction)
    # The usual case, one plain socket, without sets and comprehensions.
    fd = one.fileno()
    poller = poll()
    poller.register(fd, direction)  # refuses -1, a closed one, as _fd_of does
    events = _poll_until(poller.poll, seconds)
    if not events:
        return []
    if events[0][1] & POLLNVAL:
        raise _not_open(fd)
    return given


def _wait_for_many(
    given: list[Waitable], timeout: float, direction: int
) -> list[Waitable]:
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
        ready.add(fd)  # for any event: POLLHUP and POLLERR count in both directions
    return [one for fd, one in pairs if fd in ready]


def _fd_of(one: int | HasFileno) -> int:
    try:
        fd = one if isinstance(one, int) else int(one.fileno())
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"Invalid file object: {one!r}") from None
    except Exception as error:
        # Such as pyserial's PortNotOpenError, of a port that is closed.
        text = f"Invalid file object: {one!r}: its fileno() raised {error!r}"
        raise ValueError(text) from error
    if fd < 0:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return fd


def _has_pending(one: int | HasFileno) -> bool:
    """Whether TLS has decrypted bytes that were not read; does not import ssl."""
    pending: Callable[[], int] | None = getattr(one, "pending", None)
    return callable(pending) and pending() > 0


def _not_open(fd: int) -> OSError:
    # poll(2), as every use of the file, reports EBADF for O_PATH (open(2)).
    reason = (
        "it was opened with O_PATH, so it can be neither read nor written"
        if is_path_only(fd)
        else "the descriptor is not open"
    )
    return OSError(errno.EBADF, f"wait on fd {fd}: {reason}")


def _poll_until(poll_once: PollOnce, timeout: float) -> list[tuple[int, int]]:
    """Poll, in milliseconds, until something is reported or ``timeout`` is over."""
    if timeout <= _LONGEST_STEP:
        return poll_once(timeout * 1000 if timeout > 0 else 0)  # it rounds up
    if timeout == inf:
        return poll_once(None)
    deadline = monotonic() + timeout
    while not (events := poll_once(min(timeout, _LONGEST_STEP) * 1000)):
        timeout = deadline - monotonic()
        if timeout <= 0:
            break
    return events
