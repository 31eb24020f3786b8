"""Limits of an endpoint of datagrams: bytes.

Its one rule: limits that contradict each other cannot be made. C enforces them
(csrc/datagram). Knows no sockets.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fdmux._ffi import ffi
from fdmux.checks import checked_integer, refusal

if TYPE_CHECKING:
    from fdmux._ffi import CDatagramOptions

SIZE_MAX = 256 * 1024
QUEUE_MAX = (1 << 31) - 1


@dataclasses.dataclass(frozen=True)
class DatagramLimits:
    """Bounds of one endpoint.

    Attributes:
        size_max: Bytes of a received datagram; longer ones are truncated, and say so.
        queue_max: Bytes queued, 64 for each datagram included; what would queue more is
            dropped and counted.
        queue_low: Bytes queued at which `on_writable` is called, after something was
            dropped.

    Units:   bytes
    Raises:
        TypeError: A value is not an integer; the message names it.
        ValueError: A value is out of range; the message names it.
    """

    size_max: int = 64 * 1024
    queue_max: int = 256 * 1024
    queue_low: int = 16 * 1024

    def __post_init__(self) -> None:
        """Refuse limits that contradict each other."""
        checked_integer("size_max", self.size_max, 1, SIZE_MAX)
        checked_integer("queue_max", self.queue_max, 1, QUEUE_MAX)
        checked_integer("queue_low", self.queue_low, 0)
        if self.queue_low >= self.queue_max:
            wanted = f"below queue_max, which is {self.queue_max}"
            raise ValueError(refusal("queue_low", self.queue_low, wanted))


def c_options(limits: DatagramLimits, flags: int) -> CDatagramOptions:
    """Return the options in C for an endpoint."""
    options = ffi.new("struct fdmux_datagram_options *")
    options.struct_size = ffi.sizeof("struct fdmux_datagram_options")
    options.size_max = limits.size_max
    options.queue_max = limits.queue_max
    # 0 would mean the default; no datagram costs as little as one byte.
    options.queue_low = max(limits.queue_low, 1)
    options.flags = flags
    return options


DATAGRAM_LIMITS = DatagramLimits()
