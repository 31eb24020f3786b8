"""Limits of streams, and of the clients of a server: times, counts and bytes.

Its one rule: limits that contradict each other cannot be made. C enforces them
(csrc/stream). Knows no sockets.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from fdmux._ffi import ffi
from fdmux.checks import checked_integer, checked_timeout, refusal

if TYPE_CHECKING:
    from fdmux._ffi import CStreamOptions
    from fdmux.checks import Seconds

# At most received for one stream in one batch, so that it cannot starve others.
RECEIVE_MAX = 256 * 1024
QUEUE_MAX = (1 << 31) - 1

# Kept free for files, pipes and name lookups of the program, as in redis.
DESCRIPTORS_RESERVED = 64

# As nginx's time for a request's head, halved: a client needs two round trips.
HANDSHAKE_TIMEOUT = 30.0
# As nginx's lingering_timeout: the answer to a close_notify is one round trip away.
SHUTDOWN_TIMEOUT = 5.0

NS_PER_S = 1_000_000_000
TIMEOUT_NS_MAX = (1 << 63) - 1


@dataclasses.dataclass(frozen=True)
class StreamLimits:
    """Bounds of one stream.

    Attributes:
        receive_max: Bytes received, and so given to `on_data`, at once.
        queue_max: Bytes queued; a write that would queue more closes the stream.
        queue_high: Bytes queued at which the socket is no longer read.
        queue_low: Bytes queued at which reading resumes, and `on_writable` is called.
        idle_timeout: After this time without a byte in either direction the stream is
            closed; None: never. Also counts while connecting.
        stall_timeout: After this time in which the peer takes no queued byte the stream
            is closed; None: never.
        handshake_timeout: With TLS: the longest time that the handshake may take; None:
            no limit.
        shutdown_timeout: With TLS: how long a stream that is closed waits until its
            queue is sent and the peer has ended its side; 0: only until the queue is
            sent.

    Units:   bytes; seconds (any real number), at most half a second late, never early
    Raises:
        TypeError: A value has a wrong type; the message names it.
        ValueError: A value is out of range; the message names it.
    """

    receive_max: int = 64 * 1024
    queue_max: int = 256 * 1024
    queue_high: int = 64 * 1024
    queue_low: int = 16 * 1024
    idle_timeout: Seconds | None = None
    stall_timeout: Seconds | None = None
    handshake_timeout: Seconds | None = HANDSHAKE_TIMEOUT
    shutdown_timeout: Seconds = SHUTDOWN_TIMEOUT

    def __post_init__(self) -> None:
        """Refuse limits that contradict each other."""
        checked_integer("receive_max", self.receive_max, 1, RECEIVE_MAX)
        checked_integer("queue_max", self.queue_max, 1, QUEUE_MAX)
        checked_integer("queue_high", self.queue_high, 1)
        checked_integer("queue_low", self.queue_low, 0)
        not_above("queue_high", self.queue_high, "queue_max", self.queue_max)
        if self.queue_low >= self.queue_high:
            wanted = f"below queue_high, which is {self.queue_high}"
            raise ValueError(refusal("queue_low", self.queue_low, wanted))
        for name in ("idle_timeout", "stall_timeout", "handshake_timeout"):
            seconds = getattr(self, name)
            if seconds is not None and checked_timeout(seconds, name) <= 0:
                raise ValueError(refusal(name, seconds, "> 0, or None"))
        check_shutdown_timeout(self.shutdown_timeout)


@dataclasses.dataclass(frozen=True)
class ServerLimits(StreamLimits):
    """Bounds of the clients of a server: each as `StreamLimits`, and all together.

    >>> ServerLimits(idle_timeout=600.0, connection_max=10_000).connection_max
    10000

    Attributes:
        connection_max: Connections at a time; further ones are closed at once. Never
            more than the soft limit of open files less 64.
        total_max: Bytes queued in the whole loop. From three quarters on, no stream
            with a queue is read. A write over the limit closes the streams with the
            longest queues.
    """

    idle_timeout: Seconds | None = 60.0
    stall_timeout: Seconds | None = 60.0
    connection_max: int = 1000
    total_max: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        """Refuse limits that contradict each other."""
        super().__post_init__()
        checked_integer("connection_max", self.connection_max, 1)
        checked_integer("total_max", self.total_max, 1)
        not_above("queue_max", self.queue_max, "total_max", self.total_max)


def check_shutdown_timeout(timeout: Seconds) -> None:
    """Refuse a ``shutdown_timeout`` without a limit, or below 0.

    Raises:
        TypeError: It is None, or no number.
        ValueError: It is NaN or negative.
    """
    if timeout is None or checked_timeout(timeout, "shutdown_timeout") < 0:
        error = TypeError if timeout is None else ValueError
        raise error(refusal("shutdown_timeout", timeout, "a number >= 0"))


def not_above(name: str, value: int, bound_name: str, bound: int) -> None:
    """Refuse a limit that is above another one."""
    if value > bound:
        wanted = f"not above {bound_name}, which is {bound}"
        raise ValueError(refusal(name, value, wanted))


def connections_allowed(connection_max: int) -> int:
    """Return ``connection_max``, or what the limit of open files leaves."""
    try:
        import resource  # noqa: PLC0415 - Windows has no such limit
    except ImportError:
        return connection_max
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connection_max
    return max(1, min(connection_max, soft - DESCRIPTORS_RESERVED))


def c_options(limits: StreamLimits) -> CStreamOptions:
    """Return the options in C for a stream; for `ServerLimits`, for a listener."""
    options = ffi.new("struct fdmux_stream_options *")
    options.struct_size = ffi.sizeof("struct fdmux_stream_options")
    options.receive_max = limits.receive_max
    options.queue_max = limits.queue_max
    options.queue_high = limits.queue_high
    # 0 would mean the default. With 1 byte queued, reading can as well resume.
    options.queue_low = max(limits.queue_low, 1)
    options.idle_timeout_ns = c_timeout(limits.idle_timeout)
    options.stall_timeout_ns = c_timeout(limits.stall_timeout)
    if isinstance(limits, ServerLimits):
        options.connection_max = connections_allowed(limits.connection_max)
    return options


def c_timeout(timeout: Seconds | None) -> int:
    """Convert a timeout for C, where 0 means none."""
    seconds = checked_timeout(timeout)
    if seconds >= TIMEOUT_NS_MAX / NS_PER_S:
        return 0
    return max(math.ceil(seconds * NS_PER_S), 1)


STREAM_LIMITS = StreamLimits()
SERVER_LIMITS = ServerLimits()
