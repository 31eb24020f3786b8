"""Standard output: where the commands write what they have to say.

Its one rule: output that cannot be written is a failure like any other. It ends the
command with one line on stderr, or without one if whoever read the output has gone.
"""

from __future__ import annotations

import os
import sys

from fdmux.commands.failure import Failure, reason


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


def discard() -> None:
    """Drop what is still buffered, which the interpreter would flush at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
