"""How the steps of the tour check their results.

Not with ``assert``: ``python -O`` removes it, and the demo would check nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fdmux._native import NativeLoop
from fdmux.commands.failure import NotHereError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux.loop.event_loop import SelectorEventLoop

# On an idle machine no step takes a tenth of this.
PATIENCE = 10.0


class UnexpectedError(Exception):
    """A step saw a wrong result."""


def need_descriptor() -> None:
    """Leave the step unless a descriptor can stand for a loop: on Windows none can."""
    with NativeLoop() as loop:
        try:
            loop.fileno()
        except OSError as error:
            raise NotHereError(
                f"no descriptor can stand for a loop on {loop.backend}"
            ) from error


def expect(is_so: bool, otherwise: str) -> None:
    """Raise with the text ``otherwise`` unless it is so."""
    if not is_so:
        raise UnexpectedError(otherwise)


def run_until(loop: SelectorEventLoop, is_done: Callable[[], bool]) -> None:
    """Run the loop until ``is_done()``; native code may be what completes it."""
    deadline = time.monotonic() + PATIENCE
    while not is_done():
        expect(time.monotonic() < deadline, f"not done after {PATIENCE} s")
        loop.run_once(timeout=0.001)


def milliseconds_since(began: float) -> float:
    """Return how long ago ``began`` (`time.monotonic`) was."""
    return (time.monotonic() - began) * 1000
