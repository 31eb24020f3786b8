"""Standard output: where the commands write what they have to say.

Its one rule: output that cannot be written is a failure like any other. It ends the
command with one line on stderr, or without one if whoever read the output has gone.
Colours are for terminals, and for people who have not set NO_COLOR (no-color.org).
"""

from __future__ import annotations

import json
import os
import sys

from fdmux.commands.failure import Failure, reason

COLOURS = {"good": 32, "bad": 31, "left out": 33}  # the terminal's


def write(text: str) -> None:
    """Write and flush ``text``.

    Raises:
        BrokenPipeError: Nobody reads our output any more.
        Failure: It could not be written, for instance because the disk is full.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        discard()
        raise
    except OSError as error:
        discard()
        raise Failure(f"write to standard output: {reason(error)}") from error


def write_json(facts: object) -> None:
    """Write one object in one line, for programs that read it."""
    write(f"{json.dumps(facts)}\n")


def painted(text: str, colour: str) -> str:
    """Return ``text`` in a colour of `COLOURS`, if it goes to somebody who sees it."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if is_plain or not sys.stdout.isatty():
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def discard() -> None:
    """Drop what is still buffered, which the interpreter would flush at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
