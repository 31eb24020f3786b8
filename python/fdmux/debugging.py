"""Debug mode: whether it is on, and where in the program things were made.

On with ``python -X dev`` or ``FDMUX_DEBUG=1``, as asyncio's with
``PYTHONASYNCIODEBUG``. It is asked when a loop or a selector is made, which then gets a
class that looks at more (loop/debug.py, debug_selector.py). Without it, nothing of that
runs.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

VARIABLE = "FDMUX_DEBUG"
OWN_FOLDER = str(Path(__file__).parent) + os.sep


class State:
    """Of this process.

    Attributes:
        is_used: Whether there has been a loop in debug mode: streams and endpoints then
            remember where they were made.
    """

    is_used = False


state = State()


def is_debug() -> bool:
    """Whether debug mode is on, for a loop or a selector that is made now."""
    if sys.flags.dev_mode:
        return True
    is_asked = os.environ.get(VARIABLE, "") not in {"", "0"}
    return is_asked and not sys.flags.ignore_environment


def place_of_caller() -> str:
    """Return the file and line of the program that has called fdmux."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - as `logging` and `warnings` do
    while frame is not None and frame.f_code.co_filename.startswith(OWN_FOLDER):
        frame = frame.f_back
    return "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def place_of_function(function: object) -> str:
    """Return where a function is defined, as ``" at file:line"``; "" if not known."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return "" if code is None else f" at {code.co_filename}:{code.co_firstlineno}"


def warn_unclosed(text: str, source: object) -> None:
    """Warn of what was not closed."""
    warnings.warn(text, ResourceWarning, stacklevel=2, source=source)


def warn_misuse(text: str, source: object) -> None:
    """Warn of what leads to errors elsewhere."""
    warnings.warn(text, RuntimeWarning, stacklevel=2, source=source)
