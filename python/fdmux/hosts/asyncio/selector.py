"""The selector of our asyncio loop: inside `select`, C does the work of transports.

C receives, calls the protocols and sends until asyncio has something else to do;
asyncio sees only events that no transport handles. Before it waits, `select` sends what
transports wrote outside of a protocol's callback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fdmux._delivery import Delivery
from fdmux._ffi import ffi, lib
from fdmux._native import check
from fdmux.hosts.asyncio.observed import observe_streams
from fdmux.selector import Selector

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from fdmux._delivery import LoopBase
    from fdmux.hosts.asyncio.private import SelectorEventLoop
    from fdmux.selector import Pair

    class Select(Protocol):
        """The method, found on a selector."""

        def __call__(  # type: ignore[explicit-any] # SelectorKey.data
            self, timeout: float | None = None
        ) -> list[Pair]:
            """Wait."""


# asyncio bounds queues by asking the protocol to pause, not by closing connections. So
# these limits of the core are the largest that their types hold.
QUEUE_MAX = (1 << 31) - 1
TOTAL_MAX = (1 << 63) - 1
RECEIVE_MAX = 1 << 18  # as asyncio's own transports have
SELECT = int(ffi.cast("uintptr_t", ffi.addressof(lib, "fdmux_py_select")))


def transport_options() -> bytes:
    """Return the options of every transport's stream: the memory of the struct."""
    options = ffi.new("struct fdmux_stream_options *")
    options.struct_size = ffi.sizeof("struct fdmux_stream_options")
    options.queue_max = options.queue_high = QUEUE_MAX
    options.receive_max = RECEIVE_MAX
    options.flags = lib.FDMUX_STREAM_BORROW  # a socket object owns the descriptor
    return bytes(ffi.buffer(options))


class ReplaceableSelect:
    """`select` as a method that a program may replace on the object, as fake clocks do.

    The loop that waits in C does not call it, so it is told.
    """

    def __init__(self, select: Callable[..., list[Pair]]) -> None:  # type: ignore[explicit-any] # a method
        self.select = select
        self.__doc__ = select.__doc__

    def __get__(self, selector: StreamSelector | None, _kind: object) -> Select:
        if selector is None:
            return self.select
        own: Select | None = vars(selector).get("select")
        return self.select.__get__(selector) if own is None else own

    def __set__(self, selector: StreamSelector, select: Select) -> None:
        vars(selector)["select"] = select
        selector.note_select()

    def __delete__(self, selector: StreamSelector) -> None:
        try:
            del vars(selector)["select"]
        except KeyError:
            raise AttributeError("select") from None
        selector.note_select()


class StreamSelector(Selector):
    """A `fdmux.Selector` that runs the transports of an asyncio loop in `select`.

    Attributes:
        streams: What the streams of the transports share; ``None`` before the first.
        options: The options of their streams.
    """

    def __init__(self, backend: str | None = None) -> None:
        super().__init__(backend)
        self.streams: Delivery | None = None
        self.options: bytes = transport_options()
        self._loop: SelectorEventLoop | None = None
        self._waiter: LoopBase | None = None

    def wait_for(self, loop: LoopBase) -> None:
        """Let ``loop`` wait in C, without this object's `select`."""
        self._waiter = loop
        self._tell_waiter()
        self.note_select()

    def note_select(self) -> None:
        """Let the loop call `select` for as long as this object has another."""
        if self._waiter is not None:
            self._waiter._has_own_select = "select" in vars(self)  # noqa: SLF001 - ours

    def _reserve(self, count: int) -> None:
        super()._reserve(count)
        self._tell_waiter()

    def _tell_waiter(self) -> None:
        loop = getattr(self, "_waiter", None)
        if loop is None:
            return
        loop._use_selector(  # noqa: SLF001 - ours
            self,
            self.native.__fdmux_loop__(),
            SELECT,
            self._batch,
            int(ffi.cast("uintptr_t", self._batch)),
            int(ffi.cast("uintptr_t", self._batch.indices)),
            self._pairs,
        )

    def serve(self, loop: SelectorEventLoop) -> Delivery:
        """Return what the transports of ``loop`` share; it runs on this selector."""
        if self.streams is None:
            streams = Delivery(self.native.__fdmux_loop__())
            streams.is_gathering = True
            result = lib.fdmux_stream_total_max(self._c_loop, TOTAL_MAX)
            check(result, "unbound queues")
            check(streams.watch(loop), "watch asyncio's queues")
            loop._delivery = streams  # noqa: SLF001 - ours
            observe_streams(loop, streams)
            self._loop = loop
            self.streams = streams
        return self.streams

    @ReplaceableSelect
    def select(self, timeout: float | None = None) -> list[Pair]:  # type: ignore[explicit-any] # SelectorKey.data
        """Wait as `Selector.select` does, and run the transports meanwhile.

        Returns:
            The ready keys of descriptors that no transport has. The list is empty after
            the timeout, or when a protocol has scheduled a callback or timer.
        """
        if self.streams is not None:
            self.streams.flush()
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
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter._forget_selector()  # noqa: SLF001 - ours
        super().close()
