"""Framings: how a stream of bytes is divided into frames, that is, whole messages.

Its one rule: the length of a frame is limited. Knows no sockets and no streams;
`FrameHandler` (frame_handler.py) uses framings on streams.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal, Protocol

from fdmux._delivery import delimited, length_prefixed
from fdmux.checks import checked_integer, refusal
from fdmux.streams.receive_buffer import FrameTooLongError

if TYPE_CHECKING:
    from fdmux._delivery import Buffer
    from fdmux.streams.receive_buffer import ReceiveBuffer

FRAME_MAX = 1 << 20
LENGTH_SIZES = (1, 2, 4, 8)
SIZE_MAX = sys.maxsize // 2


class Framing(Protocol):
    """How a stream of bytes is divided into frames. Has no state of any stream."""

    def take(self, buffer: ReceiveBuffer) -> bytes | None:
        """Take the first frame if it is whole; else take nothing and return None.

        Raises:
            FrameTooLongError: It is, or will be, longer than ``frame_max``.
        """

    def encode(self, frame: Buffer) -> bytes:
        """Return ``frame`` as it is sent.

        Raises:
            FrameTooLongError: It is longer than the framing allows.
        """


class LengthPrefixed:
    r"""Frames that follow their length, an unsigned integer.

    >>> LengthPrefixed(size=2).encode(b"abc")
    b'\x00\x03abc'

    Args:
        size: Bytes of the integer: 1, 2, 4 or 8.
        byteorder: ``"big"``, as in most protocols, or ``"little"``.
        frame_max: The longest frame to accept or encode.
    """

    def __init__(
        self,
        size: int = 4,
        byteorder: Literal["big", "little"] = "big",
        *,
        frame_max: int = FRAME_MAX,
    ) -> None:
        if size not in LENGTH_SIZES:
            raise ValueError(refusal("size", size, "1, 2, 4 or 8"))
        if byteorder not in ("big", "little"):
            raise ValueError(refusal("byteorder", byteorder, '"big" or "little"'))
        self._size = size
        self._byteorder: Literal["big", "little"] = byteorder
        self._frame_max = min(
            checked_integer("frame_max", frame_max, 1), (1 << 8 * size) - 1
        )
        self._framer = length_prefixed(
            size, byteorder == "little", min(self._frame_max, SIZE_MAX)
        )

    def __fdmux_framer__(self) -> object:
        """Return the framer in C."""
        return self._framer

    def take(self, buffer: ReceiveBuffer) -> bytes | None:
        """Take a frame, without its length."""
        size = self._size
        if len(buffer) < size:
            return None
        length = int.from_bytes(buffer.peek(size), self._byteorder)
        check_length(length, self._frame_max)
        if len(buffer) < size + length:
            return None
        buffer.take_exact(size)
        return buffer.take_exact(length)

    def encode(self, frame: Buffer) -> bytes:
        """Put the length before ``frame``."""
        data = bytes_of(frame)
        check_length(len(data), self._frame_max)
        return len(data).to_bytes(self._size, self._byteorder) + data


class Delimited:
    r"""Frames that end with a delimiter, such as ``b"\n"``; they cannot contain it.

    >>> Delimited(b"\r\n").encode(b"abc")
    b'abc\r\n'

    Args:
        delimiter: Is not part of the frame.
        frame_max: The longest frame to accept or encode, without the delimiter.
    """

    def __init__(self, delimiter: bytes = b"\n", *, frame_max: int = FRAME_MAX) -> None:
        if not isinstance(delimiter, bytes):
            raise TypeError(refusal("delimiter", delimiter, "bytes"))
        if not delimiter:
            raise ValueError("delimiter is empty")
        self._delimiter = delimiter
        self._frame_max = checked_integer("frame_max", frame_max, 1)
        self._framer = delimited(delimiter, min(self._frame_max, SIZE_MAX))

    def __fdmux_framer__(self) -> object:
        """Return the framer in C."""
        return self._framer

    def take(self, buffer: ReceiveBuffer) -> bytes | None:
        """Take a frame, without its delimiter."""
        return buffer.take_until(self._delimiter, self._frame_max)

    def encode(self, frame: Buffer) -> bytes:
        """Put the delimiter after ``frame``.

        Raises:
            ValueError: ``frame`` contains the delimiter, so it would arrive as two.
        """
        data = bytes_of(frame)
        check_length(len(data), self._frame_max)
        encoded = data + self._delimiter
        if encoded.find(self._delimiter) != len(data):
            raise ValueError(f"a frame with {self._delimiter!r} in it would be two")
        return encoded


class FixedSize:
    """Frames of one size, with nothing between them.

    >>> buffer = ReceiveBuffer()
    >>> buffer.feed(b"abcde")
    >>> FixedSize(4).take(buffer)
    b'abcd'

    Args:
        size: Bytes of each frame.
    """

    def __init__(self, size: int) -> None:
        self._size = checked_integer("size", size, 1, SIZE_MAX)
        self._framer = length_prefixed(0, False, self._size)

    def __fdmux_framer__(self) -> object:
        """Return the framer in C."""
        return self._framer

    def take(self, buffer: ReceiveBuffer) -> bytes | None:
        """Take a frame."""
        return buffer.take_exact(self._size)

    def encode(self, frame: Buffer) -> bytes:
        """Return ``frame``.

        Raises:
            ValueError: It has another size.
        """
        data = bytes_of(frame)
        if len(data) != self._size:
            raise ValueError(f"a frame has {len(data)} bytes instead of {self._size}")
        return data


def bytes_of(frame: Buffer) -> bytes:
    """Return the bytes of ``frame``, also if its items are not bytes."""
    return frame if isinstance(frame, bytes) else memoryview(frame).tobytes()


def check_length(length: int, length_max: int) -> None:
    """Refuse a frame that is longer than ``length_max``."""
    if length > length_max:
        raise FrameTooLongError(f"a frame of {length} bytes; at most {length_max}")
