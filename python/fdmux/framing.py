"""framing: whole messages out of a stream; see `fdmux.streams.framing`."""

from fdmux.streams.framing import (
    Delimited,
    FixedSize,
    FrameHandler,
    FrameTooLongError,
    Framing,
    IncompleteFrameError,
    LengthPrefixed,
    ReceiveBuffer,
)

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
