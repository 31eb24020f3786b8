"""What the transports of an asyncio loop share: a selector that serves in batches.

Its one rule: a batch is told inside `select`. One call of C sends what was written,
waits, and receives for every connection that is ready; the protocols are called for
what came, without a task, a handle or a system call for each; what they write goes out
with the next call. asyncio itself gets to see only what is none of a transport's.
"""

from __future__ import annotations

import contextvars
import errno
from typing import TYPE_CHECKING, cast

from fdmux._ffi import ffi, lib
from fdmux._native import check, timeout_ns
from fdmux.selector import Selector, is_fn_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from fdmux._ffi import (
        CBatch,
        CLoop,
        CStreamBatch,
        CStreamOptions,
        CStreams,
        CStreamStats,
    )
    from fdmux.hosts.asyncio_private import SelectorEventLoop
    from fdmux.selector import Pair

    DataCallback = Callable[[bytes], object]
    Run = Callable[[DataCallback, bytes], object]
    TurnInC = Callable[[list[int | bytes], int], tuple[int, list[int], list[bytes]]]
    SettleInC = Callable[[list[int | bytes]], int]

    class Endpoint(Protocol):
        """Whom a slot stands for: a transport, or `NOBODY`."""

        def event(self, kind: int, code: int) -> None:
            """Take any record but data."""

        def callback_failed(self, error: BaseException) -> None:
            """End the connection: its protocol has raised."""


RECORD_COUNT = 128
ARENA_SIZE = 1 << 18
AGAIN = lib.FDMUX_PY_AGAIN
CLOSED = lib.FDMUX_STREAM_CLOSED
# asyncio bounds queues by asking the protocol to pause, not by ending connections; so
# these are as far off as numbers go.
QUEUE_MAX = (1 << 31) - 1
TOTAL_MAX = (1 << 63) - 1
NO_CONTEXT = contextvars.Context()  # of those that are over


def ignore_data(_data: bytes) -> None:
    """Drop what arrives for a connection that takes no data any more."""


class Nobody:
    """The endpoint of connections that are over: their last record goes nowhere."""

    def event(self, kind: int, code: int) -> None:
        """Drop it."""

    def callback_failed(self, error: BaseException) -> None:
        """Nothing of ours raises."""
        raise error


NOBODY: Endpoint = Nobody()


class StreamBatch:
    """What C has received for the transports of one loop, and what they have written.

    Attributes:
        c_loop: Where the streams are.
        endpoints: Whose a slot is.
        runs: The `run` of the context that its protocol is called in; found without a
            look at the endpoint, which is out of cache when there are many.
        takers: Who takes its data.
        writes: What the next call of C is to send: a word of glue.h and bytes, in turn.
            Always this very list.
        left: Slots and data that are to be told; None if there are none.
        options: What each stream is made with.
        stats: Where C writes what is asked for.
    """

    __slots__ = (
        "_batch",
        "_memory",
        "_streams",
        "c_loop",
        "endpoints",
        "left",
        "options",
        "runs",
        "settle_in_c",
        "stats",
        "takers",
        "turn_in_c",
        "writes",
    )

    def __init__(self, c_loop: CLoop) -> None:
        self.c_loop = c_loop
        self.endpoints: list[Endpoint] = []
        self.runs: list[Run] = []
        self.takers: list[DataCallback] = []
        self.writes: list[int | bytes] = []
        self.left: Iterator[tuple[int, bytes]] | None = None
        records = ffi.new("struct fdmux_stream_record[]", RECORD_COUNT)
        arena = ffi.new("unsigned char[]", ARENA_SIZE)
        self._memory = (records, arena)  # the batch points at them
        batch: CStreamBatch = ffi.new("struct fdmux_stream_batch *")
        batch.struct_size = ffi.sizeof("struct fdmux_stream_batch")
        batch.records = records
        batch.record_capacity = RECORD_COUNT
        batch.arena = arena
        batch.arena_size = ARENA_SIZE
        self._batch = batch
        self._streams: CStreams = ffi.new("struct fdmux_py_streams *")
        self._streams.loop = c_loop
        functions: list[object] = []
        result = lib.fdmux_py_stream_functions(id(functions), self._streams)
        check(result, "make functions of C")
        turn_in_c, settle_in_c = functions
        self.turn_in_c = cast("TurnInC", turn_in_c)
        self.settle_in_c = cast("SettleInC", settle_in_c)
        self.options: CStreamOptions = ffi.new("struct fdmux_stream_options *")
        self.options.struct_size = ffi.sizeof("struct fdmux_stream_options")
        self.options.queue_max = self.options.queue_high = QUEUE_MAX
        self.stats: CStreamStats = ffi.new("struct fdmux_stream_stats *")
        self.stats.struct_size = ffi.sizeof("struct fdmux_stream_stats")
        check(lib.fdmux_stream_collect(c_loop, batch), "collect from streams")
        check(lib.fdmux_stream_total_max(c_loop, TOTAL_MAX), "unbound queues")

    def adopt(self, slot: int, endpoint: Endpoint) -> None:
        """Let the records of ``slot`` go to ``endpoint``; its data to nobody yet."""
        missing = slot + 1 - len(self.endpoints)
        if missing > 0:
            self.endpoints += [NOBODY] * missing
            self.runs += [NO_CONTEXT.run] * missing
            self.takers += [ignore_data] * missing
        self.endpoints[slot] = endpoint
        self.runs[slot] = NO_CONTEXT.run
        self.takers[slot] = ignore_data

    def wait_with(self, select: CBatch) -> None:
        """Say what `turn` waits with."""
        self._streams.select = select

    def turn(self, wait_ns: int) -> int:
        """Send what was written; wait until there is something, up to ``wait_ns``.

        Returns:
            As `fdmux_py_select`: how many descriptors of the selector are ready too.
        """
        result, slots, payloads = self.turn_in_c(self.writes, wait_ns)
        if slots:
            self.left = zip(slots, payloads, strict=False)
        return result

    def settle(self) -> None:
        """Send what was written, now."""
        if self.writes:
            check(self.settle_in_c(self.writes), "send what transports have written")

    def tell(self) -> None:
        """Call the protocols for what arrived. The hot path: one call a message.

        What is none of a protocol's to raise (KeyboardInterrupt) leaves the rest for
        the next call, and so does a protocol that runs the loop again.
        """
        runs = self.runs
        takers = self.takers
        for slot, data in self.left or ():
            if slot < 0:
                self._tell_event(-1 - slot, cast("int", data))
                continue
            try:
                runs[slot](takers[slot], data)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as problem:  # noqa: BLE001 - ends that connection
                self.endpoints[slot].callback_failed(problem)
        self.left = None

    def _tell_event(self, slot: int, what: int) -> None:
        endpoint = self.endpoints[slot]
        kind = what & 0xFF
        if kind == CLOSED:
            self.adopt(slot, NOBODY)
        endpoint.event(kind, what >> 8)

    def close(self) -> None:
        """Forget every connection: whoever has no other owner warns, and closes."""
        self.left = None
        self.endpoints.clear()
        self.runs.clear()
        self.takers.clear()


class StreamSelector(Selector):
    """A `fdmux.Selector` that serves the transports of an asyncio loop in `select`.

    Attributes:
        streams: What it serves; None until there is a transport.
    """

    def __init__(self, backend: str | None = None) -> None:
        super().__init__(backend)
        self.streams: StreamBatch | None = None
        self._loop: SelectorEventLoop | None = None
        self._waiting_with: CBatch | None = None

    def serve(self, loop: SelectorEventLoop) -> StreamBatch:
        """Return the batch for the transports of ``loop``, whose selector this is."""
        if self.streams is None:
            self._loop = loop
            self.streams = StreamBatch(self._c_loop)
        return self.streams

    def select(self, timeout: float | None = None) -> list[Pair]:  # type: ignore[explicit-any] # SelectorKey.data
        """Wait as `Selector.select`, and serve the transports meanwhile.

        Returns when something else than transports wants a turn: a descriptor, the
        time, or what a protocol has called for.
        """
        streams = self.streams
        if streams is None:
            return super().select(timeout)
        wait_ns = timeout_ns(timeout)
        while True:
            if streams.left is not None:  # an exception has left it
                streams.tell()
                streams.settle()
                return []
            found = self._wait(streams, wait_ns)
            if streams.left is None:
                return [pair for _, pair in found]
            streams.tell()
            if found or wait_ns >= 0 or self._is_due():
                streams.settle()
                pairs = self._pairs  # whatever the protocols have unregistered
                return [pair for index, pair in found if pairs[index] is pair]

    def _is_due(self) -> bool:
        """Whether the loop has something to do that does not come from here."""
        loop = self._loop
        if loop is None:
            return True
        return bool(loop._ready or loop._stopping or loop._scheduled)  # noqa: SLF001 - see asyncio_private.py

    def _wait(  # type: ignore[explicit-any] # SelectorKey.data
        self, streams: StreamBatch, wait_ns: int
    ) -> list[tuple[int, Pair]]:
        """Send, wait and collect; return what else is ready, by where it stands."""
        batch = self._batch
        indices = self._indices
        if batch is not self._waiting_with:
            self._waiting_with = batch
            streams.wait_with(batch)
        count = streams.turn(wait_ns)
        if count == 0:
            return []
        while count == -errno.EINTR and not is_fn_error(self._c_loop, count):
            count = streams.turn(AGAIN)  # signal handlers have run in between
        if count < 0:
            count = self._finish(batch, count)
        pairs = self._pairs
        ready = ((index, pairs[index]) for index in indices[:count])
        return [(index, pair) for index, pair in ready if pair is not None]

    def close(self) -> None:
        """Close it, and what transports have left; what they wrote is sent first."""
        streams, self.streams = self.streams, None
        try:
            if streams is not None:
                streams.settle()
        finally:
            super().close()
            self._loop = None
            if streams is not None:
                streams.close()
