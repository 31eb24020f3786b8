"""How a command says that what was asked for did not work.

Its one rule: the text is the one line that the user reads, so it names what was
attempted and what happened. Anything else that leaves a command is a bug of ours, and
gets its traceback.
"""

from __future__ import annotations


class Failure(Exception):  # noqa: N818 - a result one reports, not a mistake
    """The command failed; the text is for the user."""


def reason(error: OSError) -> str:
    """Return the text of an error without its number."""
    return error.strerror or str(error)
