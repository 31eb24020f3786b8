r"""FrameHandler: a handler of streams whose callback gets whole frames.

C cuts frames if the framing has a framer in C, and calls `on_frames`. Otherwise
`on_data` cuts them here, and the stream keeps an incomplete frame.

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
from typing import TYPE_CHECKING, ClassVar, cast

from fdmux.streams.receive_buffer import FrameTooLongError, ReceiveBuffer
from fdmux.streams.stream import FRAMES, Data_co, StreamHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux._delivery import Buffer
    from fdmux.streams.framing import Framing
    from fdmux.streams.stream import Stream

    FramesCallback = Callable[[Stream[Data_co], list[bytes]], Buffer | None]


def injected_error() -> ConnectionAbortedError:
    """Return the error for plaintext behind the frame that has started TLS."""
    text = "frames came in plaintext behind the one that has started TLS"
    return ConnectionAbortedError(errno.ECONNABORTED, text)


class IncompleteFrameError(ConnectionError):
    """The peer has ended the stream in the middle of a frame.

    Attributes:
        partial: The bytes of the frame that arrived.
    """

    def __init__(self, partial: bytes) -> None:
        super().__init__(
            errno.ECONNRESET,
            f"the stream ended in the middle of a frame, after {len(partial)} bytes",
        )
        self.partial = partial


class FrameHandler(StreamHandler[Data_co]):
    """A handler whose callback gets whole frames.

    Set `framing`, and override `on_frame`. A frame that is too long closes its stream
    with `FrameTooLongError`, and an end in the middle of a frame with
    `IncompleteFrameError`. Neither is logged, since any peer can cause it.

    Attributes:
        framing: How bytes are divided into frames, for all streams of this handler.
    """

    framing: ClassVar[Framing]

    def on_frame(self, stream: Stream[Data_co], frame: bytes) -> Buffer | None:
        """Called with each frame; returns a frame to send back, or None."""
        raise NotImplementedError

    def send(self, stream: Stream[Data_co], frame: Buffer) -> None:
        """Write ``frame`` to ``stream``, encoded by `framing`."""
        stream.write(self.framing.encode(frame))

    def on_frames(self, stream: Stream[Data_co], frames: list[bytes]) -> Buffer | None:
        """Called with all frames that are whole; by default calls `on_frame` for each.

        Returns bytes to write, which are not encoded by `framing`, or None.

        If `on_frame` starts TLS and more frames have come with that one, in plaintext,
        the stream is aborted: an attacker may have put them there.
        """
        tls = stream._tls  # noqa: SLF001 - ours; looked at for each frame
        for frame in frames:
            if stream.is_closing:
                break
            if stream._tls is not tls:  # noqa: SLF001 - as above
                stream.abort(injected_error())
                break
            answer = self.on_frame(stream, frame)
            if answer is not None:
                self.send(stream, answer)
        return None

    def on_data(self, stream: Stream[Data_co], data: bytes) -> Buffer | None:
        """Call `on_frames`, and keep an incomplete frame; for framings in Python."""
        buffer = cast("ReceiveBuffer | None", stream._kept(FRAMES))  # noqa: SLF001 - ours
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
        stream._keep(FRAMES, buffer if len(buffer) else None)  # noqa: SLF001 - ours
        answer = self.on_frames(stream, frames) if frames else None
        if error is not None:
            if answer is not None:
                stream.write(answer)
            if not stream.is_closing:
                self.on_frame_error(stream, error)
            return None
        return answer

    def _cut_with(self) -> tuple[object, FramesCallback[Data_co]] | None:
        """Return the framer in C, and the callback for frames; None: Python cuts."""
        make = getattr(self.framing, "__fdmux_framer__", None)
        if make is None or type(self).on_data is not FrameHandler.on_data:
            return None
        return make(), self.on_frames

    def on_frame_error(self, stream: Stream[Data_co], error: Exception) -> None:
        """Called when a frame is malformed or too long; by default closes the stream.

        `on_frames` has got the frames before it. An override may write a last message;
        it must close the stream, or pause reading until it closes it.
        """
        stream.close(error)

    def frame_error(self, rest: bytes) -> Exception:
        """Return the error for `on_frame_error`; override it for errors of your own.

        Args:
            rest: The bytes of the frame that the framer in C has refused.
        """
        take = getattr(self.framing, "take", None)
        buffer = ReceiveBuffer()
        buffer.feed(rest)
        try:
            if take is not None:
                take(buffer)
        except ValueError as error:
            return error
        return FrameTooLongError("a frame is malformed or too long")

    def on_end(self, stream: Stream[Data_co]) -> None:
        """Close the stream; in the middle of a frame, with `IncompleteFrameError`."""
        rest = stream._take_partial_frame()  # noqa: SLF001 - kept there for us
        stream.close(IncompleteFrameError(rest) if rest else None)
