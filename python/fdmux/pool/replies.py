"""When a reply is whole: the three ways to say so, brought to one form.

Its one rule: a finder sees all bytes so far and answers with a length or "not yet".
No socket, no clock.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    ReplyRule = int | bytes | Callable[[bytes], int]
    ReplyFinder = Callable[[bytearray, int], int | None]


def reply_finder(rule: ReplyRule) -> ReplyFinder:
    """Return a function of (bytes so far, how many of them it saw last time).

    It returns the length of the first whole reply, or None if more must come.

    Raises:
        ValueError: A negative length, or an empty delimiter.
        TypeError: ``rule`` is none of the three.
    """
    if callable(rule):
        return measured(rule)
    if isinstance(rule, bytes):
        return delimited(rule)
    return counted(operator.index(rule))


def counted(length: int) -> ReplyFinder:
    """Find a reply of exactly ``length`` bytes."""
    if length < 0:
        raise ValueError(f"a reply cannot have {length} bytes")

    def find(received: bytearray, _seen: int) -> int | None:
        return length if len(received) >= length else None

    return find


def delimited(delimiter: bytes) -> ReplyFinder:
    """Find a reply that ends with ``delimiter``, which counts as part of it."""
    if not delimiter:
        raise ValueError("the delimiter of a reply is empty")
    overlap = len(delimiter) - 1

    def find(received: bytearray, seen: int) -> int | None:
        # Only the new bytes, and what may be the delimiter's beginning before them:
        # a long reply is searched once, not once for each read.
        at = received.find(delimiter, max(0, seen - overlap))
        return None if at < 0 else at + len(delimiter)

    return find


def measured(measure: Callable[[bytes], int]) -> ReplyFinder:
    """Find a reply whose length ``measure`` tells, 0 meaning "not yet".

    It gets a copy of everything so far each time: O(n) for each read.
    """

    def find(received: bytearray, _seen: int) -> int | None:
        length = operator.index(measure(bytes(received)))
        if not 0 <= length <= len(received):
            raise ValueError(
                f"the reply function returned {length} for {len(received)} bytes"
            )
        return length or None

    return find
