"""What to do when a contender cannot run here: leave it out, and say so.

The peers must be measurable without fdmux, and fdmux without every peer.
"""

from __future__ import annotations

import importlib
import importlib.util


class Unavailable(Exception):  # noqa: N818 - a fact about the machine, not an error
    """A contender cannot run here; the message says what is missing."""


def require(*modules: str) -> None:
    """Say which of these modules of others is not installed, if one is not."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise Unavailable(f"{name} is not installed")


def load_fdmux(name: str) -> object:
    """Return ``fdmux.<name>``, or say what is missing."""
    try:
        module = importlib.import_module("fdmux")
    except ImportError as error:
        raise Unavailable(f"fdmux cannot be imported ({error})") from error
    if not hasattr(module, name):
        where = getattr(module, "__file__", None)
        raise Unavailable(f"fdmux.{name} does not exist in {where}")
    found: object = getattr(module, name)
    return found
