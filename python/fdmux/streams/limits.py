"""What streams, and the clients of a server, may take: times, counts and bytes.

Its one rule: limits that contradict each other cannot be made. They are kept in C
(csrc/stream); this is how they are said. Knows no sockets.
"""

from __future__ import annotations

import dataclasses
import math
import resource
from typing import TYPE_CHECKING

from fdmux._ffi import ffi

if TYPE_CHECKING:
    from fdmux._ffi import CStreamOptions

# What one stream receives in one iteration, so that a blaster cannot starve others.
RECEIVE_MAX = 256 * 1024
QUEUE_MAX = (1 << 31) - 1

# Left to the program for files, pipes and name lookups (redis keeps as many).
DESCRIPTORS_RESERVED = 64

NS_PER_S = 1_000_000_000
TIMEOUT_NS_MAX = (1 << 63) - 1


@dataclasses.dataclass(frozen=True)
class StreamLimits:
    """What one stream may take.

    Attributes:
        receive_max: Bytes received, and so given to `on_data`, at once.
        queue_max: Bytes written and not yet taken by the kernel; more end the stream.
        queue_high: Bytes queued at which the socket is no longer read.
        queue_low: Bytes queued at which reading goes on, and `on_writable` is called.
        idle_timeout: Time without a byte in either direction; ``None``: for ever.
        stall_timeout: Time in which the peer takes nothing of what is queued for it;
            ``None``: for ever.

    Units:   bytes; seconds, kept to half a second, and never early
    Raises:
        ValueError: One of them is out of range; the message says which.
    """

    receive_max: int = 64 * 1024
    queue_max: int = 256 * 1024
    queue_high: int = 64 * 1024
    queue_low: int = 16 * 1024
    idle_timeout: float | None = None
    stall_timeout: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that contradict each other."""
        if not 1 <= self.receive_max <= RECEIVE_MAX:
            raise ValueError(
                f"receive_max is {self.receive_max}; it must be in 1..{RECEIVE_MAX}"
            )
        if not 1 <= self.queue_high <= self.queue_max <= QUEUE_MAX:
            raise ValueError(
                f"queue_high is {self.queue_high}; it must be >= 1 and not above "
                f"queue_max, {self.queue_max}, which may be {QUEUE_MAX} at most"
            )
        if not 0 <= self.queue_low < self.queue_high:
            raise ValueError(
                f"queue_low is {self.queue_low}; it must be >= 0 and below "
                f"queue_high, {self.queue_high}"
            )
        for name in ("idle_timeout", "stall_timeout"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:  # also refuses NaN
                raise ValueError(f"{name} is {seconds}; it must be > 0, or None")

    def to_c(self) -> CStreamOptions:
        """Return the options for one stream."""
        options = ffi.new("struct fdmux_stream_options *")
        options.struct_size = ffi.sizeof("struct fdmux_stream_options")
        options.receive_max = self.receive_max
        options.queue_max = self.queue_max
        options.queue_high = self.queue_high
        # 0 would mean the default: at 1 the queue is as good as empty.
        options.queue_low = max(self.queue_low, 1)
        options.idle_timeout_ns = c_timeout(self.idle_timeout)
        options.stall_timeout_ns = c_timeout(self.stall_timeout)
        return options


@dataclasses.dataclass(frozen=True)
class ServerLimits(StreamLimits):
    """What the clients of a server may take: each as `StreamLimits`, and all together.

    Attributes:
        connection_max: Further clients are closed at once. Never more than the soft
            limit of open files less 64.
        total_max: Bytes queued in the whole loop, at most. From three quarters on, no
            client with a queue is read; what would go beyond closes the clients with
            the longest queues.
    """

    idle_timeout: float | None = 60.0
    stall_timeout: float | None = 60.0
    connection_max: int = 1000
    total_max: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        """Refuse limits that contradict each other."""
        super().__post_init__()
        if self.connection_max < 1:
            raise ValueError(
                f"connection_max is {self.connection_max}; it must be >= 1"
            )
        if self.total_max < self.queue_max:
            raise ValueError(
                f"total_max is {self.total_max}; it must not be below "
                f"queue_max, {self.queue_max}"
            )

    def connections_allowed(self) -> int:
        """Return ``connection_max``, or what the limit of open files leaves."""
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return self.connection_max
        return max(1, min(self.connection_max, soft - DESCRIPTORS_RESERVED))

    def to_c(self) -> CStreamOptions:
        """Return the options for a listener."""
        options = super().to_c()
        options.connection_max = self.connections_allowed()
        return options


def c_timeout(seconds: float | None) -> int:
    """Convert a timeout for C, where 0 is for ever."""
    if seconds is None or seconds >= TIMEOUT_NS_MAX / NS_PER_S:
        return 0
    return max(math.ceil(seconds * NS_PER_S), 1)


STREAM_LIMITS = StreamLimits()
SERVER_LIMITS = ServerLimits()
