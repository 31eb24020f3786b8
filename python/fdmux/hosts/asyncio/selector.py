"""The selector of our asyncio loop, which serves its transports inside `select`.

C receives, calls the protocols and sends, for as long as asyncio has nothing else to
do; asyncio sees only events that no transport handles. What transports wrote outside of
a protocol's callback is sent before the wait.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from fdmux import _delivery
from fdmux._delivery import Delivery
from fdmux._ffi import ffi, lib
from fdmux._native import check
from fdmux.selector import Selector

if TYPE_CHECKING:
    from fdmux._ffi import CStreamOptions
    from fdmux.hosts.asyncio.private import SelectorEventLoop
    from fdmux.selector import Pair

# asyncio bounds queues by asking the protocol to pause, not by closing connections; so
# these are as far off as numbers go.
QUEUE_MAX = (1 << 31) - 1
TOTAL_MAX = (1 << 63) - 1
RECEIVE_MAX = 1 << 18  # as asyncio's own transports


def can_serve() -> bool:
    """Whether this is the main interpreter, and C sees the sizes of queues."""
    return (
        _delivery.is_main_interpreter()
        and _delivery.size_of(collections.deque((1, 2, 3))) == 3
        and _delivery.size_of([1, 2]) == 2
    )


def transport_options() -> CStreamOptions:
    """Return the options that each transport's stream is made with."""
    options = ffi.new("struct fdmux_stream_options *")
    options.struct_size = ffi.sizeof("struct fdmux_stream_options")
    options.queue_max = options.queue_high = QUEUE_MAX
    options.receive_max = RECEIVE_MAX
    options.flags = lib.FDMUX_STREAM_BORROW  # a socket object owns the descriptor
    return options


class StreamSelector(Selector):
    """A `fdmux.Selector` that serves the transports of an asyncio loop in `select`.

    Attributes:
        streams: What it serves; None until there is a transport.
        options: What their streams are made with.
    """

    def __init__(self, backend: str | None = None) -> None:
        super().__init__(backend)
        self.streams: Delivery | None = None
        self.options = transport_options()
        self._loop: SelectorEventLoop | None = None

    def serve(self, loop: SelectorEventLoop) -> Delivery:
        """Return what the transports of ``loop``, whose selector this is, share."""
        if self.streams is None:
            streams = Delivery(self.native.__fdmux_loop__())
            streams.is_gathering = True
            result = lib.fdmux_stream_total_max(self._c_loop, TOTAL_MAX)
            check(result, "unbound queues")
            check(streams.watch(loop._ready, loop._scheduled), "watch asyncio's queues")  # noqa: SLF001 - see private.py
            self._loop = loop
            self.streams = streams
        return self.streams

    def select(self, timeout: float | None = None) -> list[Pair]:  # type: ignore[explicit-any] # SelectorKey.data
        """Wait as `Selector.select`, and serve the transports meanwhile.

        Returns when something else than transports wants a turn: a descriptor, the
        time, or what a protocol has called for.
        """
        if self.streams is not None and self._loop is not None:
            self.streams.before_wait(self._loop._scheduled)  # noqa: SLF001 - see private.py
        return super().select(timeout)

    def end_batch(self) -> None:
        """Let a `select` that is calling protocols return: asyncio has work to do."""
        lib.fdmux_py_end_batch(self._c_loop)

    def close(self) -> None:
        """Close it; transports that nobody has closed are forgotten, as in asyncio."""
        streams, self.streams = self.streams, None
        if streams is not None:
            streams.flush()
            streams.disown()
        self._loop = None
        super().close()
