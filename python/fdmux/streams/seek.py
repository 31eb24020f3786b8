"""Seek: resolves a name, and races its addresses for a connected socket (RFC 8305).

Its one rule: it never blocks the loop, and when it is over no socket of it is open but
the one that it has handed out.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, cast

from fdmux._native import LoopClosed
from fdmux.sockets.lookup import lookups
from fdmux.sockets.race import Race, look_up

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from fdmux.loop.event_loop import SelectorEventLoop
    from fdmux.loop.timers import TimerHandle
    from fdmux.sockets.race import Target
    from fdmux.sockets.schedule import Address


class Seek:
    """Finds a connected socket for ``target``. Every method: the loop's thread.

    Args:
        loop: Waits.
        target: Host and port.
        on_won: Called with the socket, which is the callee's.
        on_lost: Called with the error, if it cannot be found.
    """

    def __init__(
        self,
        loop: SelectorEventLoop,
        target: Target,
        on_won: Callable[[socket.socket], None],
        on_lost: Callable[[Exception], None],
    ) -> None:
        self._loop = loop
        self._target = target
        self._on_won = on_won
        self._on_lost = on_lost
        self._race: Race | None = None
        self._timer: TimerHandle | None = None
        self._is_over = False
        lookups.add(self._look_up)

    def stop(self) -> None:
        """Forget the socket that was sought; no function is called. Idempotent."""
        self._is_over = True
        lookups.cancel(self._look_up)
        if self._timer is not None:
            self._timer.cancel()
        if self._race is not None:
            for sock in self._race.under_way:
                self._loop.unregister(sock)
            self._race.close()

    def listed(self) -> str:
        """List the addresses that have failed, for a message."""
        return "" if self._race is None else self._race.listed()

    def _look_up(self) -> None:
        """Resolve, in a thread that may wait."""
        answer: list[Address] | Exception
        try:
            answer = look_up(self._target)
        except Exception as error:  # noqa: BLE001 - on_lost gets it
            answer = error
        # Nobody waits for it; or the loop cannot be woken, and its deadline comes.
        with contextlib.suppress(LoopClosed, OSError):
            self._loop.call_soon_threadsafe(self._resolved, answer)

    def _resolved(self, answer: list[Address] | Exception) -> None:
        if self._is_over:
            return
        if isinstance(answer, Exception):
            self._lose(answer)
        else:
            self._race = Race(self._target, answer)
            self._go_on(self._race)

    def _go_on(self, race: Race) -> None:
        """Start the attempts whose time has come."""
        while (address := race.schedule.take(self._loop.time())) is not None:
            known = set(race.under_way)
            winner = race.start(address)
            if winner is not None:
                self._win(winner)
                return
            for sock in set(race.under_way) - known:
                self._watch(race, sock)
        if race.is_lost:
            self._lose(race.error())
            return
        if self._timer is not None:
            self._timer.cancel()
        if not race.schedule.is_over:
            when = race.schedule.next_start
            self._timer = self._loop.call_at(when, self._go_on, race)

    def _watch(self, race: Race, sock: socket.socket) -> None:
        try:
            self._loop.register_write(sock, self._attempt_ended)
        except OSError as error:
            race.drop(sock, error)

    def _attempt_ended(self, sock: socket.socket) -> None:
        race = cast("Race", self._race)
        self._loop.unregister(sock)
        winner = race.look(sock)
        if winner is None:
            self._go_on(race)
        else:
            self._win(winner)

    def _win(self, sock: socket.socket) -> None:
        self.stop()
        with sock:  # closed, unless the callee has detached it
            self._on_won(sock)

    def _lose(self, error: Exception) -> None:
        self.stop()
        self._on_lost(error)
