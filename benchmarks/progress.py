"""Progress on standard error: what is measured, and how long it still takes.

A terminal has one line that is rewritten; a file gets a line now and then. Knows
nothing of what is measured.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

LOG_SECONDS = 15.0  # between two lines in a file
TERMINAL_SECONDS = 0.2


def progress(text: str) -> None:
    """Report a step on standard error."""
    print(text, file=sys.stderr, flush=True)


class Countdown:
    """Steps of about the same length, such as rounds; tells the time that is left."""

    def __init__(
        self,
        what: str,
        count: int,
        *,
        output: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._count = count
        self._done = 0
        self._output = sys.stderr if output is None else output
        self._clock = clock
        self._is_terminal = self._output.isatty()
        self._begin = self._shown = clock()

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        now = self._clock()
        pause = TERMINAL_SECONDS if self._is_terminal else LOG_SECONDS
        if self._done < self._count and now - self._shown >= pause:
            self._shown = now
            self._show(now)

    def end(self) -> None:
        """Clear the line of a terminal."""
        if self._is_terminal:
            self._output.write("\r\x1b[K")
            self._output.flush()

    def left(self) -> float | None:
        """Return how many seconds the rest will take; None: not known yet."""
        if self._done == 0:
            return None
        each = (self._clock() - self._begin) / self._done
        return each * (self._count - self._done)

    def _show(self, now: float) -> None:
        each = (now - self._begin) / self._done
        left = duration(each * (self._count - self._done))
        text = f"    {self._what} {self._done} of {self._count}, {left} left"
        self._output.write(f"\r{text}\x1b[K" if self._is_terminal else f"{text}\n")
        self._output.flush()


def duration(seconds: float) -> str:
    """Write a time as people say it: "40 s", "3 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"
