"""Finders: functions that tell when a reply is whole.

A finder gets all bytes so far, and returns the length of the first whole reply, or
None. This file uses no socket and no clock.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from fdmux.checks import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    ReplyRule = int | bytes | Callable[[bytes], int]
    ReplyFinder = Callable[[bytearray, int], int | None]


def reply_finder(rule: ReplyRule) -> ReplyFinder:
    """Return a finder for ``rule``: an int, bytes or a callable.

    Shape:   finder(bytes so far, how many of them it got last time) -> length or None
    Raises:
        ValueError: A negative length, or an empty delimiter.
        TypeError: ``rule`` is none of the three.
    """
    if callable(rule):
        return measured(rule)
    if isinstance(rule, bytes):
        return delimited(rule)
    wanted = "an int, bytes or a callable"
    try:
        return counted(operator.index(rule))
    except TypeError:
        raise TypeError(refusal("reply", rule, wanted)) from None


def counted(length: int) -> ReplyFinder:
    """Find a reply of exactly ``length`` bytes."""
    if length < 0:
        raise ValueError(f"a reply cannot have {length} bytes")

    def find(received: bytearray, _seen: int) -> int | None:
        return length if len(received) >= length else None

    return find


def delimited(delimiter: bytes) -> ReplyFinder:
    """Find a reply that ends with ``delimiter``; the delimiter is part of the reply."""
    if not delimiter:
        raise ValueError("the delimiter of a reply is empty")
    overlap = len(delimiter) - 1

    def find(received: bytearray, seen: int) -> int | None:
        # Search only the new bytes, and those before them that may begin a delimiter,
        # so that a long reply is searched once, not once for each read.
        at = received.find(delimiter, max(0, seen - overlap))
        return None if at < 0 else at + len(delimiter)

    return find


def measured(measure: Callable[[bytes], int]) -> ReplyFinder:
    """Find a reply whose length ``measure`` returns; 0 means that it is not whole yet.

    ``measure`` gets a copy of all bytes so far: O(n) for each read.
    """

    def find(received: bytearray, _seen: int) -> int | None:
        length = operator.index(measure(bytes(received)))
        if not 0 <= length <= len(received):
            raise ValueError(
                f"the reply function returned {length} for {len(received)} bytes"
            )
        return length or None

    return find
