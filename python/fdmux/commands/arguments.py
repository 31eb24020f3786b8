"""Parsers of the arguments of commands: text in, checked values out.

Its one rule: a wrong argument is refused here, with exit code 2, so no command needs to
check its arguments.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    # What `add_subparsers` returns has no public name.
    Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - see above


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return a parser of integers from ``least`` to ``most``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {least} to {most}"
            )
        return value

    return parse


def seconds(text: str) -> float:
    """Parse a duration: more than 0, ``inf`` for no limit."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:  # also refuses NaN
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds above 0, nor inf"
        )
    return value


def host(text: str) -> str:
    """Parse a host: any text that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("the host is empty")
    return text
