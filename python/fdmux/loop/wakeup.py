"""What ends a wait from outside: another thread, or a signal.

Its one rule: the channel carries no information but "look again". A full channel is
therefore a success (somebody has woken the loop and it has not looked yet), and what
there is to look at is stored elsewhere before `WakeChannel.wake` is called.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import threading
from typing import TYPE_CHECKING

from fdmux._ffi import lib
from fdmux._native import check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fdmux._native import NativeLoop

DRAIN_SIZE = 4096
QUIET = (-errno.ESTALE, -errno.ECHILD)  # closed, or the parent's


class WakeChannel:
    """A connected pair of sockets; the reading end belongs into a selector.

    Args:
        native: The core loop that the selector waits in, if it is one of ours: waking
            that costs less. Signals take the sockets in any case.
    """

    def __init__(self, native: NativeLoop | None = None) -> None:
        self._native = native
        # socketpair(2) of AF_UNIX: nobody else can connect to it. A pair, not an
        # eventfd, since set_wakeup_fd writes single bytes and an eventfd wants eight.
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._may_have_signals = False
        # Re-entrant, as a signal handler may interrupt `wake` in order to wake. It
        # keeps `close` from freeing the number while another thread sends on it.
        self._lock = threading.RLock()

    def wake(self) -> None:
        """End the wait that is under way, or the next one.

        Raises:
            OSError: The kernel refused, as a sandbox may: no wait was ended.
        Threads: Any, also a signal handler. Quiet after `close`.
        """
        if self._native is not None:
            result = lib.fdmux_loop_wake(self._native._c_loop)  # noqa: SLF001 - ours
            if result < 0 and result not in QUIET:
                check(result, "wake the loop")
            return
        with self._lock:
            if self._writer.fileno() < 0:
                return
            with contextlib.suppress(BlockingIOError):
                self._writer.send(b"\0")

    def drain(self) -> None:
        """Take the wake-ups out, so that the reading end is quiet again."""
        with contextlib.suppress(BlockingIOError):
            while len(self.reader.recv(DRAIN_SIZE)) == DRAIN_SIZE:
                pass

    @contextlib.contextmanager
    def woken_by_signals(self) -> Iterator[None]:
        """Let every signal end the wait, for as long as the block runs.

        A signal that arrives between Python's last check and the system call would
        otherwise be handled only after the wait. Does nothing outside the main thread
        or when somebody else has set a wakeup fd already.

        Source: signal.set_wakeup_fd
        """
        own = self._writer.fileno()
        self._may_have_signals = True  # before: Ctrl-C may come with the call
        try:
            previous = signal.set_wakeup_fd(own, warn_on_full_buffer=False)
        except ValueError:  # not the main thread, where no signal handler runs
            yield
            return
        if previous not in (-1, own):
            signal.set_wakeup_fd(previous)
            self._may_have_signals = False
            yield
            return
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            self._may_have_signals = False

    def abandon_after_fork(self) -> None:
        """Cut the child's ties to the pair, which still belongs to the parent."""
        self._lock = threading.RLock()  # another thread may have held the old one
        self._release_signals()

    def _release_signals(self) -> None:
        """Let no signal go to our writing end, if that is where they go."""
        own = self._writer.fileno()
        with contextlib.suppress(ValueError):  # not the main thread
            previous = signal.set_wakeup_fd(-1)
            if previous not in (-1, own):
                signal.set_wakeup_fd(previous)

    def close(self) -> None:
        """Close both ends. Idempotent.

        Ctrl-C just as `woken_by_signals` ends leaves signals with our number, which is
        somebody else's soon; so that is looked at first.
        """
        if self._may_have_signals:
            self._release_signals()
        with self._lock:
            self._writer.close()
            self.reader.close()
