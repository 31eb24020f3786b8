"""The schedule of a connect: which address of a host to try when (RFC 8305).

Its one rule: no socket and no clock. The caller passes the time and reports failures,
so every case can be tested without waiting.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

# RFC 8305 section 5: the recommended delay between two attempts.
STAGGER = 0.25


class Address(NamedTuple):
    """What an attempt needs of one getaddrinfo(3) entry."""

    family: int
    protocol: int
    sockaddr: tuple[str | int | bytes, ...]


def interleave(addresses: Iterable[Address]) -> list[Address]:
    """Order addresses so that the families take turns; drop repeated addresses.

    Order:   As the resolver gave them (RFC 6724) within each family; the family of the
             first address begins.
    Source:  RFC 8305 section 4, with a First Address Family Count of 1
    """
    families: dict[int, deque[Address]] = {}
    for address in dict.fromkeys(addresses):
        families.setdefault(address.family, deque()).append(address)
    turns: list[Address] = []
    while families:
        turns += [queue.popleft() for queue in families.values()]
        families = {family: queue for family, queue in families.items() if queue}
    return turns


class Schedule:
    """When each attempt may start: one after the other, `STAGGER` seconds apart.

    Units:   seconds, on whatever clock the caller passes as ``now``
    """

    def __init__(self, addresses: Iterable[Address]) -> None:
        self._waiting = deque(interleave(addresses))
        self._next_start = -inf

    @property
    def next_start(self) -> float:
        """When `take` returns the next address; ``inf`` if none is left."""
        return self._next_start if self._waiting else inf

    @property
    def is_over(self) -> bool:
        """Whether every address was taken."""
        return not self._waiting

    def take(self, now: float) -> Address | None:
        """Return the address to try at ``now``; None if it is too early."""
        if now < self.next_start or not self._waiting:
            return None
        self._next_start = now + STAGGER
        return self._waiting.popleft()

    def hasten(self) -> None:
        """Let the next attempt start at once; for use after a failed attempt."""
        self._next_start = -inf
