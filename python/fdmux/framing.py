"""framing: whole messages out of a stream; framings, and the handler that uses them."""

from fdmux.streams.frame_handler import FrameHandler, IncompleteFrameError
from fdmux.streams.framing import Delimited, FixedSize, Framing, LengthPrefixed
from fdmux.streams.receive_buffer import FrameTooLongError, ReceiveBuffer

__all__ = [
    "Delimited",
    "FixedSize",
    "FrameHandler",
    "FrameTooLongError",
    "Framing",
    "IncompleteFrameError",
    "LengthPrefixed",
    "ReceiveBuffer",
]
