"""Streams of one loop: what arrived is told to callbacks, what they wrote is sent.

Its one rule: once per batch. C has received for every ready connection into one arena;
here each record becomes a callback with a view; then one call sends everything that the
callbacks wrote. A view is taken back when its callback returns.
"""

from __future__ import annotations

import contextlib
import errno
import struct
from array import array
from sys import getrefcount
from typing import TYPE_CHECKING

from fdmux._ffi import ffi, lib
from fdmux._native import LoopClosed, check, check_dispatch, timeout_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from fdmux._ffi import CStreamBatch, CStreams
    from fdmux._native import NativeLoop
    from fdmux.selector import Selector
    from fdmux.stream import Stream

    Buffer = bytes | bytearray | memoryview
    DataCallback = Callable[[Stream, memoryview], Buffer | None]
    Record = tuple[int, int, int, int]
    DoInC = Callable[[CStreams, bytes, int, bytes, int], int]

    class Endpoint(Protocol):
        """Whom a slot stands for: a stream, a listener, or `NOBODY`."""

        def event(self, kind: int, first: int, last: int) -> None:
            """Take any record but data."""

        def write(self, data: Buffer) -> None:
            """Send what `on_data` has answered."""

        def abort(self) -> None:
            """End at once."""

        def callback_failed(self, error: Exception) -> None:
            """End this stream: one of its callbacks has raised."""


RECORD_COUNT = 128
ARENA_SIZE = 1 << 18
# A record: slot, kind, first, last; its token is for C.
RECORD = struct.Struct("IIII8x")
RECORD_SIZE = RECORD.size
DATA = lib.FDMUX_STREAM_DATA
ACCEPTED = lib.FDMUX_STREAM_ACCEPTED
CLOSED = lib.FDMUX_STREAM_CLOSED

# A wait that ended without anything to serve: by a signal, or as the loop was closed.
UNDONE = frozenset({-errno.EINTR, -errno.ESTALE})

turn_in_c = lib.fdmux_py_stream_turn
flush_in_c = lib.fdmux_py_stream_flush
settle_in_c = lib.fdmux_py_stream_settle


def ignore_data(_stream: Stream, _view: memoryview) -> None:
    """Drop what arrives for an endpoint that takes no data, or no longer."""


class Nobody:
    """The endpoint of streams that are over: their last records go nowhere."""

    def event(self, kind: int, first: int, last: int) -> None:
        """Drop it."""

    def write(self, data: Buffer) -> None:
        """Drop it."""

    def abort(self) -> None:
        """Nobody is there to be ended."""

    def callback_failed(self, error: Exception) -> None:
        """Nothing of ours raises."""
        raise error


NOBODY: Endpoint = Nobody()


class StreamHub:
    """The streams of one native loop, and the batch they share.

    Made by a loop when it is first asked for; `deliver` is called after each wait.
    """

    __slots__ = (
        "_arena",
        "_batch",
        "_c_arena",
        "_c_records",
        "_is_telling",
        "_left",
        "_own_references",
        "_records",
        "_select",
        "_streams",
        "_told_count",
        "c_loop",
        "chunks",
        "endpoints",
        "native",
        "ops",
        "source",
        "takers",
        "view",
    )

    def __init__(self, native: NativeLoop) -> None:
        self.native = native
        self.c_loop = native._c_loop  # noqa: SLF001 - ours
        # Who a slot number stands for; a slot is not used again within a batch.
        self.endpoints: list[Endpoint] = []
        # And who takes its data: found without a look at an object out of cache.
        self.takers: list[DataCallback] = []
        # What callbacks want done: words of FDMUX_PY_ECHO and the others in glue.h.
        self.ops = array("Q")
        self.chunks: list[bytes] = []
        # The view that a callback has right now, and the slot it was received by.
        self.view: memoryview | None = None
        self.source = 0
        records = ffi.new("struct fdmux_stream_record[]", RECORD_COUNT)
        everything = memoryview(ffi.buffer(records))
        # The first records of a batch, by how many there are.
        self._records = [
            everything[: count * RECORD_SIZE] for count in range(RECORD_COUNT + 1)
        ]
        # What is left to tell of a batch; and how many of its records that began with.
        self._left: Iterator[Record] | None = None
        self._told_count = 0
        self._is_telling = False
        batch = ffi.new("struct fdmux_stream_batch *")
        batch.struct_size = ffi.sizeof("struct fdmux_stream_batch")
        batch.records = records
        batch.record_capacity = RECORD_COUNT
        self._batch: CStreamBatch = batch
        self._streams: CStreams = ffi.new("struct fdmux_py_streams *")
        self._streams.loop = self.c_loop
        self._c_records = records  # the batch points at them
        self._renew_arena()
        check(
            lib.fdmux_stream_collect(self.c_loop, self._batch), "collect from streams"
        )

    def _renew_arena(self) -> None:
        """Give C fresh memory; views of the old keep it alive, with what it held."""
        self._arena = bytearray(ARENA_SIZE)
        self._c_arena = ffi.from_buffer("unsigned char[]", self._arena)
        self._own_references = getrefcount(self._arena)
        batch = self._batch
        batch.arena = self._c_arena
        batch.arena_size = ARENA_SIZE
        batch.record_count = 0
        batch.arena_used = 0
        self._left = None

    def adopt(
        self, slot: int, endpoint: Endpoint, taker: DataCallback = ignore_data
    ) -> None:
        """Let the records of ``slot`` go to ``endpoint``, and its data to ``taker``."""
        missing = slot + 1 - len(self.endpoints)
        if missing > 0:
            self.endpoints += [NOBODY] * missing
            self.takers += [ignore_data] * missing
        self.endpoints[slot] = endpoint
        self.takers[slot] = taker

    def place_of(self, view: memoryview) -> int | None:
        """Return where in the arena ``view`` begins; None if it lies elsewhere."""
        if view.obj is not self._arena or not view.c_contiguous:
            return None
        first = int(ffi.cast("uintptr_t", ffi.from_buffer("unsigned char[]", view)))
        return first - int(ffi.cast("uintptr_t", self._c_arena))

    def bound_total(self, bytes_max: int) -> None:
        """Bound what all streams of the loop queue together."""
        result = lib.fdmux_stream_total_max(self.c_loop, bytes_max)
        check(result, "bound what streams queue")

    def token(self, slot: int) -> int:
        """Return the token of the live stream in ``slot``; negative if C has none."""
        return lib.fdmux_py_stream_token(self.c_loop, slot)

    # What happened -----------------------------------------------------------------

    def deliver(self) -> int:
        """Tell the endpoints what happened, and send what they answer.

        An exception that is none of an endpoint's (KeyboardInterrupt) leaves the rest
        for the next call.

        Returns:
            How many records there were.
        """
        total = 0
        count = self._batch.record_count
        while count:
            self._tell_all(count)
            total += count
            count = self._do(flush_in_c)
        return total

    def wait_with(self, selector: Selector, timeout: float | None) -> None:
        """Set what `turn` waits with, and how long; ``None`` costs no clock."""
        self._select = selector._batch  # noqa: SLF001 - ours; C has only its address
        self._streams.select = self._select
        self._streams.timeout_ns = timeout_ns(timeout)

    def turn(self) -> int:
        """Send what was written, wait for more, and tell it: an iteration of a loop.

        Returns:
            How many records there were. 0 if something else has ended the wait: its
            time, a signal, a wake-up, or a descriptor, which the next wait reports
            again. In any case what was written before is sent.

        Raises:
            OSError: A native function returned this error.
        """
        result = self._do(turn_in_c)
        count = self._batch.record_count
        if result or not count:
            return 0
        self._tell_all(count)
        return count

    def _tell_all(self, count: int) -> None:
        """Tell a batch of ``count`` records, or what is left of it."""
        root = memoryview(self._arena)
        self._is_telling = True
        try:
            if self._left is None:
                self._told_count = count
                self._left = RECORD.iter_unpack(self._records[count])
                self._tell(root, self._left)
            else:
                self._resume(root, count)
        finally:
            self._is_telling = False
            self.view = None
            root.release()
        # Somebody has kept a view, or a slice of one: the memory is theirs.
        if getrefcount(self._arena) != self._own_references:
            self._do(settle_in_c)
            self._renew_arena()

    def _resume(self, root: memoryview, count: int) -> None:
        """Tell what an exception has left, and what C has added since."""
        if self._left is not None:
            self._tell(root, self._left)
        added = self._records[count][self._told_count * RECORD_SIZE :]
        self._told_count = count
        self._left = RECORD.iter_unpack(added)
        self._tell(root, self._left)

    def _tell(self, root: memoryview, records: Iterator[Record]) -> None:
        """Go through a batch. The hot path: a view, a call, an operation a message."""
        endpoints = self.endpoints
        takers = self.takers
        add = self.ops.append
        for slot, kind, first, last in records:
            if kind != DATA:
                self._tell_event(slot, kind, first, last)
                continue
            endpoint = endpoints[slot]
            self.view = view = root[first:last]
            self.source = slot
            try:
                answer = takers[slot](endpoint, view)  # type: ignore[arg-type]  # its own
                if answer is view:
                    add(slot)  # FDMUX_PY_ECHO is 0
                elif answer is not None:
                    endpoint.write(answer)
            except Exception as problem:  # noqa: BLE001 - ends that stream alone
                endpoint.callback_failed(problem)
            try:
                view.release()
            except BufferError:  # an array or the like reads on from it
                continue

    def _tell_event(self, slot: int, kind: int, first: int, last: int) -> None:
        """Tell an endpoint anything but data."""
        self.view = None
        if kind == ACCEPTED:
            slot, first = first, slot  # the listener is told of the new slot
        endpoint = self.endpoints[slot]
        if kind == CLOSED:
            self.adopt(slot, NOBODY)
        try:
            endpoint.event(kind, first, last)
        except Exception as problem:  # noqa: BLE001 - ends that stream alone
            endpoint.callback_failed(problem)

    # What is to be done ------------------------------------------------------------

    def settle(self) -> None:
        """Do now what was asked for so far; a batch that is being told goes on."""
        if self.ops:
            self._do(settle_in_c)

    def sweep(self) -> None:
        """Let those that were ended be gone when this returns.

        In a callback of a stream it does nothing: they are when the batch is over.
        """
        self.settle()
        while not self._is_telling:
            if lib.fdmux_py_stream_serve(self.c_loop) < 0 or not self.deliver():
                return

    def close(self) -> None:
        """End every stream, and call its `on_close`; the loop is about to close."""
        for endpoint in list(self.endpoints):
            endpoint.abort()
        with contextlib.suppress(LoopClosed):  # by somebody else, below us
            self.sweep()
        for slot in range(len(self.endpoints)):
            self._tell_event(slot, CLOSED, 0, 0)

    def abandon(self) -> None:
        """Call nobody any more: this is the child after a fork."""
        self.endpoints[:] = [NOBODY] * len(self.endpoints)
        self.takers[:] = [ignore_data] * len(self.takers)

    def _do(self, do_in_c: DoInC) -> int:
        """Make one call of C; return what it returned.

        Ctrl-C may come whenever a function is called: before C has seen the words they
        stay where they are, after it they are gone.
        """
        ops = self.ops
        chunks = self.chunks
        joined = b"".join(chunks) if chunks else b""
        joined_size = len(joined)
        count = len(ops)
        words = ops.tobytes()
        try:
            result = do_in_c(self._streams, words, count, joined, joined_size)
        finally:
            del ops[:]
            del chunks[:]
            if do_in_c is not settle_in_c:
                self._left = None
        if result < 0:
            is_undone = do_in_c is turn_in_c and result in UNDONE
            if not is_undone or lib.fdmux_py_is_fn_error(self.c_loop, result):
                check_dispatch(self.c_loop, result, "serve streams")
        return result
