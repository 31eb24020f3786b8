"""Echo from C in a SelectorEventLoop, while Python does its own work in it.

    python server.py

Prints its address, then once a second what C has done and the worst lateness of
Python's timer. Ctrl-C or SIGTERM ends it.
"""

from __future__ import annotations

import signal

import native_echo

from fdmux import SelectorEventLoop

TICK = 0.01
REPORT_TICKS = 100


class Clock:
    """A timer in Python, every 10 ms, which must stay on time."""

    def __init__(self, loop: SelectorEventLoop, server: native_echo.Server) -> None:
        self._loop = loop
        self._server = server
        self._due = loop.time() + TICK
        self._lateness_max = 0.0
        self._ticks = 0
        loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._lateness_max = max(self._lateness_max, self._loop.time() - self._due)
        self._ticks += 1
        if self._ticks % REPORT_TICKS == 0:
            late = self._lateness_max * 1000
            print(f"{self._server.counts()}, Python at most {late:.2f} ms late")
            self._lateness_max = 0.0
        self._due += TICK
        self._loop.call_at(self._due, self._tick)


def main() -> None:
    """Serve until a signal ends it."""
    with SelectorEventLoop() as loop:
        server = native_echo.serve(loop)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: loop.stop())
        print(f"echo in C on 127.0.0.1:{server.port()}", flush=True)
        Clock(loop, server)
        loop.run(timeout=None)
        print(f"ended: {server.counts()}")
        server.close()


main()
