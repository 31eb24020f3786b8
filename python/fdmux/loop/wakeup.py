"""WakeChannel: how another thread or a signal ends the wait of a loop.

Its one rule: the channel carries no data. The caller of `WakeChannel.wake` stores what
the loop has to do before, and a full channel is no error: the loop has not read the
earlier wake-ups yet, so it will wake up in any case.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

from fdmux._ffi import lib
from fdmux._native import c_loop_of, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fdmux._native import NativeLoop

DRAIN_SIZE = 4096
QUIET = (-errno.ESTALE, -errno.ECHILD)  # closed, or the parent's


class WakeChannel:
    """A connected pair of sockets; the loop's selector watches the reading end.

    Args:
        native: The core loop that the selector waits in, if there is one: waking that
            costs less. Signals use the sockets in any case.
    """

    def __init__(self, native: NativeLoop | None = None) -> None:
        self._native = native
        # socketpair(2) of AF_UNIX: nobody else can connect to it. A pair, not an
        # eventfd, since set_wakeup_fd writes single bytes and an eventfd wants eight.
        self.reader, self._writer = socket.socketpair()
        if sys.platform == "win32":  # a pair is TCP there, which would delay wake-ups
            self._writer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
            result = lib.fdmux_loop_wake(c_loop_of(self._native))
            if result < 0 and result not in QUIET:
                check(result, "wake the loop")
            return
        with self._lock:
            if self._writer.fileno() < 0:
                return
            with contextlib.suppress(BlockingIOError):
                self._writer.send(b"\0")

    def drain(self) -> None:
        """Read all wake-ups, so that the reading end is not readable any more."""
        with contextlib.suppress(BlockingIOError):
            while len(self.reader.recv(DRAIN_SIZE)) == DRAIN_SIZE:
                pass

    @contextlib.contextmanager
    def woken_by_signals(self) -> Iterator[None]:
        """Let every signal end the wait, for as long as the block runs.

        Without it, a signal that arrives between Python's last check and the system
        call is handled only after the wait. Does nothing outside the main thread, where
        no signal handler runs, or when somebody else has set a wakeup fd already.

        Source: signal.set_wakeup_fd
        """
        if not self._take_signals():
            yield
            return
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            self._may_have_signals = False

    def _take_signals(self) -> bool:
        """Make signals write to the channel, if nobody else has a wakeup fd.

        CPython itself knows which thread runs signal handlers. `threading.main_thread`
        may not: in a program that embeds Python it is the thread that imported
        `threading` first, and a subinterpreter runs no handlers at all.
        """
        own = self._writer.fileno()
        self._may_have_signals = True  # before: Ctrl-C may come with the call
        try:
            previous = signal.set_wakeup_fd(own, warn_on_full_buffer=False)
        except ValueError:  # not the thread that runs signal handlers
            self._may_have_signals = False
            return False
        if previous in (-1, own):
            return True
        signal.set_wakeup_fd(previous)
        self._may_have_signals = False
        return False

    def abandon_after_fork(self) -> None:
        """Run in the child: stop using the sockets, which it shares with the parent."""
        self._lock = threading.RLock()  # another thread may have held the old one
        self._release_signals()

    def _release_signals(self) -> None:
        """Make signals no longer write to the channel, if they do."""
        own = self._writer.fileno()
        with contextlib.suppress(ValueError):  # not the main thread
            previous = signal.set_wakeup_fd(-1)
            if previous not in (-1, own):
                signal.set_wakeup_fd(previous)

    def close(self) -> None:
        """Close both ends. Idempotent.

        Ctrl-C at the end of `woken_by_signals` may have left our descriptor as the
        wakeup fd. It must not be: another file may get the number.
        """
        if self._may_have_signals:
            self._release_signals()
        with self._lock:
            self._writer.close()
            self.reader.close()
