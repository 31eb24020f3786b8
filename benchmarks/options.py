"""What the command line decided, as every row gets it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The options of a run; each row uses those that concern it."""

    rounds: int
    is_quick: bool
    situations: tuple[tuple[int, int], ...]  # connections, and bytes of a message
    servers: tuple[str, ...] | None
    messages: int | None
    is_pinned: bool
    has_instructions: bool
