"""EchoServer: a TCP server that sends back what it receives, and survives its clients.

How a server lives is server.py.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import TYPE_CHECKING

from fdmux.streams.limits import RECEIVE_MAX, SERVER_LIMITS
from fdmux.streams.server import StreamServer
from fdmux.streams.stream import StreamHandler

if TYPE_CHECKING:
    from fdmux.loop.event_loop import SelectorEventLoop
    from fdmux.streams.limits import ServerLimits
    from fdmux.streams.listener import ServerStats
    from fdmux.streams.stream import Stream


class EchoHandler(StreamHandler):
    """Answer with what came."""

    @staticmethod
    def on_data(_stream: Stream, data: bytes) -> bytes:
        """Answer with ``data``; a plain function, as every call counts."""
        return data


class EchoServer(StreamServer):
    """Echo what clients send, for any number of clients up to a bound.

    >>> with EchoServer(port=0) as server:
    ...     server.run_in_thread()
    ...     sock = connect_with_timeout(*server.address[:2])

    A client that sends without reading is read no further than ``limits`` allow, and
    gets every byte when it does read. One that has ended its stream gets what is
    queued for it, then the end. Idle and stalled clients are closed. Out of
    descriptors, the server waits until some become free.

    Args:
        host: An address or name of this machine; the first that it resolves to is
            bound. Every interface only if asked by name: "0.0.0.0" or "::".
        port: 0 lets the kernel choose; see `address`.
        bufsize: Bytes read at once, 1 to 262,144.
        limits: What clients may take.
        loop: Serve on this loop, beside whatever else it does. It stays the caller's;
            ``None`` makes one.

    Raises:
        ValueError: ``host`` is empty or None, ``bufsize`` or ``limits`` out of range.
        OverflowError: ``port`` is not in 0 to 65535.
    Threads: As in `StreamServer`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 9200,
        bufsize: int = 4096,
        *,
        limits: ServerLimits = SERVER_LIMITS,
        loop: SelectorEventLoop | None = None,
    ) -> None:
        if not 1 <= operator.index(bufsize) <= RECEIVE_MAX:
            raise ValueError(f"bufsize is {bufsize}; it must be in 1..{RECEIVE_MAX}")
        needed = limits.queue_high + bufsize
        if limits.queue_max < needed:
            raise ValueError(
                f"queue_max is {limits.queue_max}; queue_high and one read need "
                f"{needed}"
            )
        super().__init__(
            host,
            operator.index(port),
            EchoHandler(),
            limits=dataclasses.replace(limits, receive_max=bufsize),
            loop=loop,
        )

    @property
    def stats(self) -> ServerStats:
        """A snapshot; what was received and neither waits nor was dropped, is out."""
        stats = super().stats
        bytes_out = stats.bytes_in - stats.bytes_queued - stats.bytes_dropped
        return dataclasses.replace(stats, bytes_out=bytes_out)
