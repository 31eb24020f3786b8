"""framing: how to cut a stream into whole messages; see `fdmux.streams.framing`."""

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
