r"""Framed protocols on streams: whole messages out of bytes that come in any division.

Its one rule: no byte is lost, and none is kept without a bound. `ReceiveBuffer` and the
framings know no sockets and no streams; `FrameHandler` puts them on a `Stream`.

A server that answers each line with the line in capitals:

>>> class Shout(FrameHandler):
...     framing = Delimited(b"\n", frame_max=1000)
...
...     def on_frame(self, stream, frame):
...         return frame.upper()
>>> with StreamServer("127.0.0.1", 0, Shout()) as server:
...     thread = server.run_in_thread()
...     with connect_with_timeout(*server.address) as sock:
...         sock.sendall(b"hello\n")
...         sock.recv(100)
b'HELLO\n'
"""

from __future__ import annotations

import errno
import operator
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from fdmux.stream import StreamHandler

if TYPE_CHECKING:
    from fdmux.stream import Buffer, Stream

FRAME_MAX = 1 << 20
LENGTH_SIZES = (1, 2, 4, 8)


class FrameTooLongError(ValueError):
    """A frame is longer than its bound; whoever sends such is not to be waited for."""


class IncompleteFrameError(ConnectionError):
    """The peer has ended the stream in the middle of a frame.

    Attributes:
        partial: What had come of it.
    """

    def __init__(self, partial: bytes) -> None:
        super().__init__(
            errno.ECONNRESET,
            f"the stream ended in a frame, {len(partial)} bytes after its beginning",
        )
        self.partial = partial


class ReceiveBuffer:
    """Bytes that have arrived and were not taken yet.

    What cannot be taken whole is left where it is: ask again when more has arrived.
    """

    __slots__ = ("_data", "_searched", "_taken")

    def __init__(self) -> None:
        self._data = bytearray()
        self._taken = 0  # they are cut off when more arrives, not one by one
        self._searched = 0  # up to here there is no delimiter

    def __len__(self) -> int:
        return len(self._data) - self._taken

    def feed(self, data: Buffer) -> None:
        """Append what has arrived."""
        if self._taken:
            del self._data[: self._taken]
            self._searched = max(self._searched - self._taken, 0)
            self._taken = 0
        self._data += data

    def peek(self, count: int) -> bytes:
        """Return the first ``count`` bytes, or as many as there are; they stay."""
        return bytes(self._data[self._taken : self._taken + count])

    def take_exact(self, count: int) -> bytes | None:
        """Take ``count`` bytes; ``None`` while there are fewer."""
        end = self._taken + count
        if end > len(self._data):
            return None
        taken = bytes(self._data[self._taken : end])
        self._taken = end
        return taken

    def take_until(self, delimiter: bytes, count_max: int) -> bytes | None:
        """Take what lies before ``delimiter``, and the delimiter, which is dropped.

        Returns:
            ``None`` while there is no delimiter.

        Raises:
            FrameTooLongError: More than ``count_max`` bytes lie before it.
        """
        start = max(self._searched, self._taken)
        # No delimiter further on could be in time.
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
        # A delimiter may have arrived in part.
        self._searched = max(len(self._data) - len(delimiter) + 1, start)
        return None

    def take_all(self) -> bytes:
        """Take whatever there is."""
        return self.take_exact(len(self)) or b""


class Framing(Protocol):
    """How frames lie in a stream of bytes. Keeps nothing of any one stream."""

    def take(self, buffer: ReceiveBuffer) -> bytes | None:
        """Take the first frame, if it is whole; leave everything if it is not.

        Raises:
            FrameTooLongError: It is, or will be, longer than the bound.
        """

    def encode(self, frame: Buffer) -> bytes:
        """Return the bytes that stand for ``frame``.

        Raises:
            FrameTooLongError: The framing cannot express it, or its bound forbids it.
        """


class LengthPrefixed:
    """Each frame after its length, an unsigned integer.

    Args:
        size: Bytes of the integer: 1, 2, 4 or 8.
        byteorder: ``"big"``, as most protocols, or ``"little"``.
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
            raise ValueError(f"size of a length is {size}; it must be 1, 2, 4 or 8")
        if byteorder not in ("big", "little"):
            raise ValueError(f'byteorder is {byteorder!r}; it is "big" or "little"')
        self._size = size
        self._byteorder: Literal["big", "little"] = byteorder
        self._frame_max = min(checked_frame_max(frame_max), (1 << 8 * size) - 1)

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
        check_length(len(frame), self._frame_max)
        return len(frame).to_bytes(self._size, self._byteorder) + bytes(frame)


class Delimited:
    r"""Each frame before a delimiter, such as ``b"\n"``, which it cannot contain.

    Args:
        delimiter: Not part of the frame.
        frame_max: The longest frame to accept or encode, without the delimiter.
    """

    def __init__(self, delimiter: bytes = b"\n", *, frame_max: int = FRAME_MAX) -> None:
        if not isinstance(delimiter, bytes):
            raise TypeError(f"delimiter must be bytes, not {delimiter!r}")
        if not delimiter:
            raise ValueError("delimiter is empty")
        self._delimiter = delimiter
        self._frame_max = checked_frame_max(frame_max)

    def take(self, buffer: ReceiveBuffer) -> bytes | None:
        """Take a frame, without its delimiter."""
        return buffer.take_until(self._delimiter, self._frame_max)

    def encode(self, frame: Buffer) -> bytes:
        """Put the delimiter after ``frame``.

        Raises:
            ValueError: ``frame`` contains it, and would arrive as two.
        """
        check_length(len(frame), self._frame_max)
        encoded = bytes(frame) + self._delimiter
        if encoded.find(self._delimiter) != len(frame):
            raise ValueError(f"a frame with {self._delimiter!r} in it would be two")
        return encoded


class FixedSize:
    """Frames of one size, with nothing between them."""

    def __init__(self, size: int) -> None:
        self._size = checked_frame_max(size)

    def take(self, buffer: ReceiveBuffer) -> bytes | None:
        """Take a frame."""
        return buffer.take_exact(self._size)

    def encode(self, frame: Buffer) -> bytes:
        """Return ``frame``.

        Raises:
            ValueError: It is of another size.
        """
        if len(frame) != self._size:
            raise ValueError(f"a frame has {len(frame)} bytes instead of {self._size}")
        return bytes(frame)


class FrameHandler(StreamHandler):
    """A handler that is told of whole frames.

    Set `framing`, and override `on_frame`. A frame that is too long closes its stream
    with that error, as does an end in the middle of a frame; neither is logged, since
    any peer can cause it. Whoever overrides `on_close` calls this one too.

    Attributes:
        framing: How frames lie in the stream; of all streams of this handler.
    """

    framing: ClassVar[Framing]

    def __init__(self) -> None:
        # Only of streams that have a frame in pieces.
        self._rests: dict[Stream, ReceiveBuffer] = {}

    def on_frame(self, stream: Stream, frame: bytes) -> Buffer | None:
        """Take a frame; what this returns is sent back as one."""
        raise NotImplementedError

    def send(self, stream: Stream, frame: Buffer) -> None:
        """Write ``frame`` to any stream, the way `framing` says."""
        stream.write(self.framing.encode(frame))

    def on_data(self, stream: Stream, view: memoryview) -> None:
        """Tell of each frame that is whole now, and keep the rest."""
        buffer = self._rests.get(stream)
        if buffer is None:
            buffer = ReceiveBuffer()
        buffer.feed(view)
        while (
            not stream.is_closing and (frame := self._take(stream, buffer)) is not None
        ):
            answer = self.on_frame(stream, frame)
            if answer is not None:
                self.send(stream, answer)
        if len(buffer) and not stream.is_closing:
            self._rests[stream] = buffer
        else:
            self._rests.pop(stream, None)

    def _take(self, stream: Stream, buffer: ReceiveBuffer) -> bytes | None:
        try:
            return self.framing.take(buffer)
        except FrameTooLongError as error:
            stream.close(error)
            return None

    def on_end(self, stream: Stream) -> None:
        """Close the stream; in the middle of a frame, with an error."""
        rest = self._rests.pop(stream, None)
        if rest is not None:
            stream.close(IncompleteFrameError(rest.take_all()))
        else:
            stream.close()

    def on_close(self, stream: Stream, error: Exception | None) -> None:  # noqa: ARG002
        """Forget the stream."""
        self._rests.pop(stream, None)


def checked_frame_max(size: int) -> int:
    """Refuse what is no size of a frame."""
    if operator.index(size) < 1:
        raise ValueError(f"a frame of at most {size} bytes; it must be >= 1")
    return size


def check_length(length: int, length_max: int) -> None:
    """Refuse a frame that is too long."""
    if length > length_max:
        raise FrameTooLongError(f"a frame of {length} bytes; at most {length_max}")
