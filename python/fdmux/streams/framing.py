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
import sys
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, cast

from fdmux import _delivery
from fdmux.streams.stream import FRAMES, StreamHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux._delivery import Buffer
    from fdmux.streams.stream import Stream

    FramesCallback = Callable[[Stream, list[bytes]], Buffer | None]

FRAME_MAX = 1 << 20
LENGTH_SIZES = (1, 2, 4, 8)
SIZE_MAX = sys.maxsize // 2


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
        self._framer = _delivery.length_prefixed(
            size, byteorder == "little", min(self._frame_max, SIZE_MAX)
        )

    def __fdmux_framer__(self) -> object:
        """Return what cuts frames in C."""
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
        self._framer = _delivery.delimited(delimiter, min(frame_max, SIZE_MAX))

    def __fdmux_framer__(self) -> object:
        """Return what cuts frames in C."""
        return self._framer

    def take(self, buffer: ReceiveBuffer) -> bytes | None:
        """Take a frame, without its delimiter."""
        return buffer.take_until(self._delimiter, self._frame_max)

    def encode(self, frame: Buffer) -> bytes:
        """Put the delimiter after ``frame``.

        Raises:
            ValueError: ``frame`` contains it, and would arrive as two.
        """
        data = bytes_of(frame)
        check_length(len(data), self._frame_max)
        encoded = data + self._delimiter
        if encoded.find(self._delimiter) != len(data):
            raise ValueError(f"a frame with {self._delimiter!r} in it would be two")
        return encoded


class FixedSize:
    """Frames of one size, with nothing between them."""

    def __init__(self, size: int) -> None:
        self._size = checked_frame_max(size)
        self._framer = _delivery.length_prefixed(0, False, size)

    def __fdmux_framer__(self) -> object:
        """Return what cuts frames in C."""
        return self._framer

    def take(self, buffer: ReceiveBuffer) -> bytes | None:
        """Take a frame."""
        return buffer.take_exact(self._size)

    def encode(self, frame: Buffer) -> bytes:
        """Return ``frame``.

        Raises:
            ValueError: It is of another size.
        """
        data = bytes_of(frame)
        if len(data) != self._size:
            raise ValueError(f"a frame has {len(data)} bytes instead of {self._size}")
        return data


class FrameHandler(StreamHandler):
    """A handler that is told of whole frames.

    Set `framing`, and override `on_frame`. A frame that is too long closes its stream
    with that error, as does an end in the middle of a frame; neither is logged, since
    any peer can cause it.

    Attributes:
        framing: How frames lie in the stream; of all streams of this handler.
    """

    framing: ClassVar[Framing]

    def on_frame(self, stream: Stream, frame: bytes) -> Buffer | None:
        """Take a frame; what this returns is sent back as one."""
        raise NotImplementedError

    def send(self, stream: Stream, frame: Buffer) -> None:
        """Write ``frame`` to any stream, the way `framing` says."""
        stream.write(self.framing.encode(frame))

    def on_frames(self, stream: Stream, frames: list[bytes]) -> Buffer | None:
        """Call `on_frame` for each frame; override it to take all at once.

        Called once for all frames that are whole. What this returns is written as it
        is, without `framing`.
        """
        for frame in frames:
            if stream.is_closing:
                break
            answer = self.on_frame(stream, frame)
            if answer is not None:
                self.send(stream, answer)
        return None

    def on_data(self, stream: Stream, data: bytes) -> Buffer | None:
        """Call `on_frames`, and keep the rest; for framings that C cannot cut."""
        buffer = rest_of(stream)
        if buffer is None:
            buffer = ReceiveBuffer()
        buffer.feed(data)
        frames: list[bytes] = []
        error: FrameTooLongError | None = None
        try:
            while (frame := self.framing.take(buffer)) is not None:
                frames.append(frame)
        except FrameTooLongError as problem:
            error = problem
        keep_rest(stream, buffer if len(buffer) else None)
        answer = self.on_frames(stream, frames) if frames else None
        if error is not None:
            if answer is not None:
                stream.write(answer)
            if not stream.is_closing:
                self.on_frame_error(stream, error)
            return None
        return answer

    def cut_with(self) -> tuple[object, FramesCallback] | None:
        """Return what cuts frames in C, and who takes them; None if Python does it."""
        make = getattr(self.framing, "__fdmux_framer__", None)
        if make is None or type(self).on_data is not FrameHandler.on_data:
            return None
        return make(), self.on_frames

    def on_frame_error(self, stream: Stream, error: Exception) -> None:
        """Close the stream with ``error``: what has come is no frame, or too long.

        Called after `on_frames` got those before it. An override that has a last word
        writes it first; it closes the stream in any case, or pauses it until it does.
        """
        stream.close(error)

    def frame_error(self, rest: bytes) -> Exception:
        """Return why the frame that begins with ``rest`` cannot be taken."""
        take = getattr(self.framing, "take", None)
        buffer = ReceiveBuffer()
        buffer.feed(rest)
        try:
            if take is not None:
                take(buffer)
        except ValueError as error:
            return error
        return FrameTooLongError("a frame is malformed or too long")

    def on_end(self, stream: Stream) -> None:
        """Close the stream; in the middle of a frame, with an error."""
        kept = rest_of(stream)
        rest = stream._take_rest() if kept is None else kept.take_all()  # noqa: SLF001 - kept there for us
        stream.close(IncompleteFrameError(rest) if rest else None)


def rest_of(stream: Stream) -> ReceiveBuffer | None:
    """Return what has come of a frame that is not whole."""
    return cast("ReceiveBuffer | None", stream.kept(FRAMES))


def keep_rest(stream: Stream, rest: ReceiveBuffer | None) -> None:
    """Keep it with the stream, which drops it at its end."""
    stream.keep(FRAMES, rest)


def bytes_of(frame: Buffer) -> bytes:
    """Return the bytes of ``frame``, whatever its items are."""
    return frame if isinstance(frame, bytes) else memoryview(frame).tobytes()


def checked_frame_max(size: int) -> int:
    """Refuse what is no size of a frame."""
    if operator.index(size) < 1:
        raise ValueError(f"a frame of at most {size} bytes; it must be >= 1")
    return size


def check_length(length: int, length_max: int) -> None:
    """Refuse a frame that is too long."""
    if length > length_max:
        raise FrameTooLongError(f"a frame of {length} bytes; at most {length_max}")
