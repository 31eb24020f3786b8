"""EchoServer: a TCP server that sends back what it receives, whatever clients do.

server.py has what all servers share.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fdmux.checks import checked_integer, checked_port
from fdmux.streams.checks import check_limits
from fdmux.streams.limits import RECEIVE_MAX, SERVER_LIMITS, ServerLimits
from fdmux.streams.server import StreamServer
from fdmux.streams.stream import StreamHandler

if TYPE_CHECKING:
    from ssl import SSLContext

    from fdmux.loop.event_loop import SelectorEventLoop
    from fdmux.streams.listener import ServerStats
    from fdmux.streams.stream import Stream


class EchoHandler(StreamHandler):
    """Answers with what it receives."""

    @staticmethod
    def on_data(_stream: Stream, data: bytes) -> bytes:
        """Answer with ``data``. A static method, which is called a little faster."""
        return data


class EchoServer(StreamServer):
    """A server that sends back what it receives.

    >>> with EchoServer(port=0) as server:
    ...     thread = server.run_in_thread()
    ...     with connect_with_timeout(*server.address, timeout=5.0) as sock:
    ...         sock.sendall(b"hello")
    ...         read_with_timeout(sock, 5)
    b'hello'

    A client that sends without reading is not read beyond ``limits``, and gets every
    byte when it reads. A client that has ended its side gets what is queued for it,
    then the end. Idle and stalled clients are closed. When the process is out of
    descriptors, the server accepts again as soon as some become free.

    Args:
        host: An address or name of this machine; the first address that a name resolves
            to is bound. "0.0.0.0" or "::" is every interface.
        port: 0 lets the kernel choose; see `address`.
        bufsize: Bytes received at once, 1 to 262,144.
        limits: Bounds of the clients.
        loop: Serve on this loop, beside everything else in it; the caller closes it.
            None makes a loop of the server's own.
        ssl: Encrypt with this context.

    Raises:
        TypeError: An argument has a wrong type; the message names it.
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
        ssl: SSLContext | None = None,
    ) -> None:
        bufsize = checked_integer("bufsize", bufsize, 1, RECEIVE_MAX)
        check_limits(limits, ServerLimits)
        needed = limits.queue_high + bufsize
        if limits.queue_max < needed:
            raise ValueError(
                f"queue_max is {limits.queue_max}; queue_high and one read need "
                f"{needed}"
            )
        super().__init__(
            host,
            checked_port(port),
            EchoHandler(),
            limits=dataclasses.replace(limits, receive_max=bufsize),
            loop=loop,
            ssl=ssl,
        )

    @property
    def stats(self) -> ServerStats:
        """The counters as of now; what is neither queued nor dropped counts as out.

        With TLS, what is encrypted counts as out, since ciphertext is queued.
        """
        stats = super().stats
        if self._tls is not None:
            return stats
        bytes_out = stats.bytes_in - stats.bytes_queued - stats.bytes_dropped
        return dataclasses.replace(stats, bytes_out=bytes_out)
