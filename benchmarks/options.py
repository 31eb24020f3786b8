"""What the command line decided, as every row gets it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The knobs of a run; each row uses those that concern it."""

    rounds: int
    is_quick: bool
    connections: tuple[int, ...]
    sizes: tuple[int, ...]
    servers: tuple[str, ...] | None
    messages: int | None
    is_pinned: bool
    has_instructions: bool
