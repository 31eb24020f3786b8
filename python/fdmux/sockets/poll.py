"""poll(2), and on Windows, which has none, the same on select.

Its one rule: whoever waits for a few sockets once takes `poll` and its constants from
here. Windows waits for sockets only, and for no more than 512 at once.
"""

from __future__ import annotations

import select
import sys

__all__ = ["POLLIN", "POLLNVAL", "POLLOUT", "poll"]

if sys.platform != "win32":
    from select import POLLIN, POLLNVAL, POLLOUT, poll
else:
    POLLIN, POLLOUT, POLLNVAL = 0x1, 0x4, 0x20

    class poll:  # noqa: N801 - named as the function that it stands for
        """As an object of ``select.poll``, as far as it is used here."""

        def __init__(self) -> None:
            self._events: dict[int, int] = {}

        def register(self, fd: int, events: int = POLLIN | POLLOUT) -> None:
            """Wait for ``events`` of a descriptor, or of an object that has one."""
            number = fd if isinstance(fd, int) else fd.fileno()
            self._events[number] = events

        def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
            """Wait for milliseconds, at most; ``None`` waits for ever."""
            readers = [fd for fd, events in self._events.items() if events & POLLIN]
            writers = [fd for fd, events in self._events.items() if events & POLLOUT]
            seconds = None if timeout is None or timeout < 0 else timeout / 1000
            try:
                ready = select.select(readers, writers, writers, seconds)
            except OSError:
                closed = [(fd, POLLNVAL) for fd in self._events if is_closed(fd)]
                if not closed:
                    raise
                return closed
            found: dict[int, int] = dict.fromkeys(ready[0], POLLIN)
            # A connection that failed is exceptional on Windows, and writable here.
            for fd in {*ready[1], *ready[2]}:
                found[fd] = found.get(fd, 0) | POLLOUT
            return [(fd, found[fd]) for fd in self._events if fd in found]

    def is_closed(fd: int) -> bool:
        """Whether select refuses ``fd``."""
        try:
            select.select([fd], [], [], 0)
        except (OSError, ValueError):
            return True
        return False
