"""Drain: the end of a server that lets its clients finish.

Its one rule: it ends once, when the listener is closed and the last client has left;
at the deadline it makes the rest leave.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

from fdmux._native import LoopClosed
from fdmux.sockets.poll import POLLIN, poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux.loop.event_loop import SelectorEventLoop
    from fdmux.loop.timers import TimerHandle
    from fdmux.streams.listener import Listener, ServerStream

# Connections that one iteration accepts: ACCEPT_MAX of csrc/stream/accept.c.
ACCEPT_MAX = 16


class Drain:
    """Waits for the clients of one listener. Every method: the loop's thread.

    Args:
        loop: Of the listener.
        listener: Accepts what the kernel has completed already, then is closed.
        backlog: How many connections the kernel may hold for the listener.
        on_end: Called once by the loop, when nothing is open any more.
    """

    def __init__(
        self,
        loop: SelectorEventLoop,
        listener: Listener,
        backlog: int,
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._on_end = on_end
        self._deadline = math.inf
        self._timer: TimerHandle | None = None
        self._untold: list[ServerStream] = []
        self._accepts_left = backlog // ACCEPT_MAX + 2
        self._is_listening = True
        self._is_ended = False

    def begin(self, deadline: float) -> None:
        """Tell the clients, and let the listener end; at ``deadline`` close the rest.

        Later calls can only make it end sooner.
        """
        if deadline < self._deadline:
            self._deadline = deadline
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._expire)
        if self._listener.is_draining:
            return
        self._listener.is_draining = True
        self._untold = self._listener.clients()
        try:
            self._tell()
        finally:
            self._accept_rest()

    def check(self) -> None:
        """End if nothing is open any more; called when a client has left."""
        if self._is_listening or self._is_ended or self._listener.stats.open:
            return
        self._is_ended = True
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(LoopClosed):  # clients also leave when it closes
            self._loop.call_soon_threadsafe(self._on_end)

    def _tell(self) -> None:
        try:
            while self._untold:
                self._untold.pop().tell_stopping()
        finally:
            if self._untold:  # Ctrl-C in a callback: the others are told all the same
                self._loop.call_soon_threadsafe(self._tell)

    def _accept_rest(self) -> None:
        """Close the listener once no connection waits in it.

        Closing a listener resets what was not accepted: to those clients the server has
        answered already (tcp(7); Linux inet_csk_listen_stop).
        """
        if not self._is_listening:
            return
        if self._accepts_left and is_readable(self._listener.fileno()):
            self._accepts_left -= 1
            self._loop.call_soon_threadsafe(self._accept_rest)  # in the next iteration
            return
        self._is_listening = False
        self._listener.close_socket()
        self.check()

    def _expire(self) -> None:
        """Close every client that is left, and count them."""
        self._is_listening = False
        self._listener.cut_off()
        self.check()


def is_readable(fd: int) -> bool:
    """Whether an accept on ``fd`` would find a connection; False once it is closed."""
    if fd < 0:
        return False
    poller = poll()
    poller.register(fd, POLLIN)
    return any(events & POLLIN for _fd, events in poller.poll(0))
