"""Names are resolved in threads of their own, since getaddrinfo(3) blocks.

Its one rule: nobody waits for a lookup. It tells its result from its thread, and cannot
be cancelled once it runs; daemon threads do not keep the program from ending.
"""

from __future__ import annotations

import collections
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A name server that does not answer holds a thread for 10 s and more (resolv.conf(5));
# with this many held, further names wait.
THREADS_MAX = 16


class Lookups:
    """Functions that block, in at most `THREADS_MAX` threads, which end when idle."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: collections.deque[Callable[[], None]] = collections.deque()
        self._thread_count = 0

    def add(self, lookup: Callable[[], None]) -> None:
        """Call ``lookup`` in a thread. It must raise nothing.

        Raises:
            RuntimeError: No thread can be started; ``lookup`` will not be called.
        """
        with self._lock:
            self._waiting.append(lookup)
            if self._thread_count == THREADS_MAX:
                return
            self._thread_count += 1
        try:
            threading.Thread(
                target=self._run, name="fdmux resolves", daemon=True
            ).start()
        except RuntimeError:
            with self._lock:
                self._thread_count -= 1
                if self._thread_count:  # one of the others will call it
                    return
                self._waiting.remove(lookup)
            raise

    def cancel(self, lookup: Callable[[], None]) -> None:
        """Do not call ``lookup``, unless a thread has begun to."""
        with self._lock:
            if lookup in self._waiting:
                self._waiting.remove(lookup)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread_count -= 1
                    return
                lookup = self._waiting.popleft()
            lookup()
            del lookup  # of a stream, which it would keep alive


lookups = Lookups()

if hasattr(os, "register_at_fork"):  # the child has none of these threads
    os.register_at_fork(after_in_child=lookups.__init__)  # type: ignore[misc] # as new
