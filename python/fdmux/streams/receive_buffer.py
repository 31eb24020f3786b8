"""ReceiveBuffer: bytes that have arrived, from which framings take whole frames.

Its one rule: no byte is lost. Knows no sockets and no streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fdmux._delivery import Buffer


class FrameTooLongError(ValueError):
    """A frame is longer than its framing allows."""


class ReceiveBuffer:
    """Bytes that have arrived and were not taken yet.

    >>> buffer = ReceiveBuffer()
    >>> buffer.feed(b"one,tw")
    >>> buffer.take_until(b",", 100), buffer.take_until(b",", 100)
    (b'one', None)
    >>> buffer.peek(10)
    b'tw'

    Each method takes all that it is asked for, or nothing: then call it again when more
    has arrived.
    """

    __slots__ = ("_data", "_searched", "_taken")

    def __init__(self) -> None:
        self._data = bytearray()
        self._taken = 0  # bytes taken: `feed` deletes them all at once
        self._searched = 0  # no delimiter begins before this index

    def __len__(self) -> int:
        return len(self._data) - self._taken

    def feed(self, data: Buffer) -> None:
        """Append bytes that have arrived."""
        if self._taken:
            del self._data[: self._taken]
            self._searched = max(self._searched - self._taken, 0)
            self._taken = 0
        self._data += data

    def peek(self, count: int) -> bytes:
        """Return the first ``count`` bytes, or all if there are fewer; take none."""
        return bytes(self._data[self._taken : self._taken + count])

    def take_exact(self, count: int) -> bytes | None:
        """Take ``count`` bytes; return None while there are fewer."""
        end = self._taken + count
        if end > len(self._data):
            return None
        taken = bytes(self._data[self._taken : end])
        self._taken = end
        return taken

    def take_until(self, delimiter: bytes, count_max: int) -> bytes | None:
        """Take the bytes before ``delimiter``, and drop the delimiter.

        Returns:
            The bytes before it; None while there is no delimiter.

        Raises:
            FrameTooLongError: More than ``count_max`` bytes lie before it.
        """
        start = max(self._searched, self._taken)
        # A delimiter that ends later would come too late.
        end = self._taken + count_max + len(delimiter)
        found = self._data.find(delimiter, start, end)
        if found >= 0:
            taken = bytes(self._data[self._taken : found])
            self._taken = found + len(delimiter)
            self._searched = 0
            return taken
        if len(self._data) >= end:
            raise FrameTooLongError(
                f"no {delimiter!r} within the first {count_max} bytes of a frame"
            )
        # The first part of a delimiter may have arrived.
        self._searched = max(len(self._data) - len(delimiter) + 1, start)
        return None

    def take_all(self) -> bytes:
        """Take all bytes."""
        return self.take_exact(len(self)) or b""
