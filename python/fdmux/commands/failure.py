"""Failure: how a command reports that it did not work.

The user reads one line, which names what was attempted and what happened.
Any other exception that leaves a command is a bug of ours and shows its traceback.
"""

from __future__ import annotations


class Failure(Exception):  # noqa: N818 - a result one reports, not a mistake
    """The command failed; its text is what the user reads."""


def reason(error: OSError) -> str:
    """Return the text of an error without its number."""
    return error.strerror or str(error)


class NotHereError(Exception):
    """A step of the demo shows what this system does not have."""
