"""The selector of our asyncio loop: inside `select`, C does the work of transports.

C receives, calls the protocols and sends until asyncio has something else to do;
asyncio sees only events that no transport handles. Before it waits, `select` sends what
transports wrote outside of a protocol's callback.
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

# asyncio bounds queues by asking the protocol to pause, not by closing connections. So
# these limits of the core are the largest that their types hold.
QUEUE_MAX = (1 << 31) - 1
TOTAL_MAX = (1 << 63) - 1
RECEIVE_MAX = 1 << 18  # as asyncio's own transports have


def can_serve() -> bool:
    """Whether C can run transports here.

    It can in the main interpreter, if it can read the lengths of asyncio's queues.
    """
    return (
        _delivery.is_main_interpreter()
        and _delivery.size_of(collections.deque((1, 2, 3))) == 3
        and _delivery.size_of([1, 2]) == 2
    )


def transport_options() -> CStreamOptions:
    """Return the options of every transport's stream."""
    options = ffi.new("struct fdmux_stream_options *")
    options.struct_size = ffi.sizeof("struct fdmux_stream_options")
    options.queue_max = options.queue_high = QUEUE_MAX
    options.receive_max = RECEIVE_MAX
    options.flags = lib.FDMUX_STREAM_BORROW  # a socket object owns the descriptor
    return options


class StreamSelector(Selector):
    """A `fdmux.Selector` that runs the transports of an asyncio loop in `select`.

    Attributes:
        streams: What the streams of the transports share; ``None`` before the first.
        options: The options of their streams.
    """

    def __init__(self, backend: str | None = None) -> None:
        super().__init__(backend)
        self.streams: Delivery | None = None
        self.options = transport_options()
        self._loop: SelectorEventLoop | None = None

    def serve(self, loop: SelectorEventLoop) -> Delivery:
        """Return what the transports of ``loop`` share; it runs on this selector."""
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
        """Wait as `Selector.select` does, and run the transports meanwhile.

        Returns:
            The ready keys of descriptors that no transport has. The list is empty after
            the timeout, or when a protocol has scheduled a callback or timer.
        """
        if self.streams is not None and self._loop is not None:
            self.streams.before_wait(self._loop._scheduled)  # noqa: SLF001 - see private.py
        return super().select(timeout)

    def end_batch(self) -> None:
        """Make a `select` that is calling protocols return after this batch."""
        lib.fdmux_py_end_batch(self._c_loop)

    def close(self) -> None:
        """Close the selector, and forget transports still open, as asyncio does."""
        streams, self.streams = self.streams, None
        if streams is not None:
            streams.flush()
            streams.disown()
        self._loop = None
        super().close()
