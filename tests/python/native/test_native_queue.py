"""NativeQueue: what native threads put arrives in Python's loops, in batches."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import os
import select
import warnings
import weakref
from typing import TYPE_CHECKING, ClassVar, Protocol

import pytest
from tests.compiled import load_beside

import fdmux
from fdmux import NativeQueue, Selector, SelectorEventLoop
from fdmux._ffi import lib
from fdmux.native.queue import CAPACITY_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Open = Callable[[object, bytes], int]

    class Adopt(Protocol):
        def __call__(self, queue: NativeQueue) -> Putters: ...


SOON = 20.0
BATCH = 256


class QueueHandle(ctypes.Structure):
    """struct fdmux_queue_handle of fdmux.h: what a ``fdmux.queue`` capsule holds."""

    _fields_: ClassVar = [("api", ctypes.c_void_p), ("queue", ctypes.c_void_p)]
    api: int
    queue: int


class Putters:
    """C code that has got hold of one queue. Calls return as the C function does."""

    def __init__(self, library: ctypes.CDLL, pointer: int) -> None:
        handle = QueueHandle.from_address(pointer)
        self._library = library
        self._ends = (ctypes.c_void_p(handle.api), ctypes.c_void_p(handle.queue))
        self._started: list[int] = []
        self.dropped = ctypes.c_int64()  # the sum of what was dropped

    def start(self, first: int, count: int) -> None:
        """Let a thread put ``count`` numbers from ``first`` on."""
        begin = self._library.putter_start
        begin.restype = ctypes.c_void_p
        numbers = (ctypes.c_int64(first), ctypes.c_int64(count))
        self._started.append(begin(*self._ends, *numbers))

    def join(self) -> int:
        """Wait for the threads; return an error that one of them met, or 0."""
        end = self._library.putter_join
        end.restype = ctypes.c_int64
        started, self._started = self._started, []
        return min(int(end(ctypes.c_void_p(putter))) for putter in started)

    def put(self, number: int) -> int:
        return int(self._library.putter_put(*self._ends, ctypes.c_int64(number)))

    def take(self) -> list[int]:
        items = (ctypes.c_void_p * BATCH)()
        count = self._library.putter_take(*self._ends, items, BATCH)
        assert count >= 0
        return [item or 0 for item in items[:count]]

    def ref(self) -> None:
        self._library.putter_ref(*self._ends)

    def unref(self) -> None:
        self._library.putter_unref(*self._ends)

    def set_drop(self) -> int:
        return int(
            self._library.putter_set_drop(*self._ends, ctypes.byref(self.dropped))
        )


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """native_putters.c, compiled by header only."""
    folder = tmp_path_factory.mktemp("native")
    return load_beside(__file__, "native_putters.c", folder)


@pytest.fixture
def adopt(library: ctypes.CDLL, open_capsule: Open) -> Adopt:
    """Hand a queue to C code: ``adopt(queue).put(7)``."""

    def adopt(queue: NativeQueue) -> Putters:
        return Putters(library, open_capsule(queue.__fdmux_queue__(), b"fdmux.queue"))

    return adopt


@pytest.fixture
def queue() -> Iterator[NativeQueue]:
    with NativeQueue() as queue:
        yield queue


def is_readable(queue: NativeQueue) -> bool:
    host = select.poll()
    host.register(queue, select.POLLIN)
    return bool(host.poll(0))


# ---- in loops ------------------------------------------------------------------------


def test_loop_of_any_selector_calls_drain_until_there_is_nothing_left(
    loop: SelectorEventLoop, queue: NativeQueue, adopt: Adopt
) -> None:
    native = adopt(queue)
    batches: list[list[int]] = []
    loop.register_read(queue, lambda given: batches.append(adopt(given).take()))
    assert loop.run_once(0) == 0
    for number in range(BATCH + 10):
        assert native.put(number) == 0
    assert loop.run_once(0) == 1
    assert batches == [list(range(BATCH))]
    assert loop.run_once(0) == 1
    assert batches[1] == list(range(BATCH, BATCH + 10))
    assert loop.run_once(0) == 0
    native.put(0)
    assert loop.run_once(0) == 1
    loop.unregister(queue)


def test_items_of_four_threads_arrive_once_and_in_the_order_of_each(
    queue: NativeQueue, adopt: Adopt
) -> None:
    native = adopt(queue)
    taken: list[int] = []
    with SelectorEventLoop() as loop:
        loop.register_read(queue, lambda _: taken.extend(native.take()))
        for thread in range(4):
            native.start(thread * 10_000, 10_000)
        while len(taken) < 40_000:
            loop.run_once(SOON)
        assert native.join() == 0
        assert loop.run_once(0) == 0
    assert sorted(taken) == list(range(40_000))
    for thread in range(4):
        mine = [number for number in taken if number // 10_000 == thread]
        assert mine == sorted(mine)


@pytest.mark.parametrize("selector", [None, Selector], ids=["its-own", "fdmux"])
def test_asyncio_watches_it(
    selector: type[Selector] | None, queue: NativeQueue, adopt: Adopt
) -> None:
    native = adopt(queue)
    taken: list[int] = []

    async def collect() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def drain() -> None:
            taken.extend(native.take())
            if len(taken) == 1000:
                done.set_result(None)

        loop.add_reader(queue, drain)
        native.start(0, 1000)
        await asyncio.wait_for(done, SOON)
        loop.remove_reader(queue)

    chosen = None if selector is None else selector()
    loop = asyncio.SelectorEventLoop(chosen)
    try:
        loop.run_until_complete(collect())
    finally:
        loop.close()
    assert native.join() == 0
    assert taken == list(range(1000))


def test_exception_of_drain_leaves_run_and_what_was_not_taken_comes_again(
    loop: SelectorEventLoop, queue: NativeQueue, adopt: Adopt
) -> None:
    native = adopt(queue)
    taken: list[int] = []

    def drain(_: object) -> None:
        if not taken:
            taken.append(-1)
            raise LookupError("in drain")
        taken.extend(native.take())

    loop.register_read(queue, drain)
    native.put(5)
    with pytest.raises(LookupError, match="in drain"):
        loop.run(SOON)
    assert loop.run_once(SOON) == 1
    assert taken == [-1, 5]


def test_exception_of_drain_goes_to_the_error_hook(
    queue: NativeQueue, adopt: Adopt
) -> None:
    native = adopt(queue)
    seen: list[tuple[str, object]] = []

    def drain(_: object) -> None:
        raise LookupError(str(native.take()))

    with SelectorEventLoop(
        error_hook=lambda error, source: seen.append((str(error), source))
    ) as loop:
        loop.register_read(queue, drain)
        native.put(5)
        assert loop.run_once(SOON) == 1
    assert seen == [("[5]", queue)]


# ---- capacity ------------------------------------------------------------------------


def test_item_beyond_the_capacity_is_refused(adopt: Adopt) -> None:
    with NativeQueue(capacity=2) as queue:
        native = adopt(queue)
        assert [native.put(n) for n in range(3)] == [0, 0, -errno.ENOBUFS]
        assert native.take() == [0, 1]
        assert native.put(3) == 0


@pytest.mark.parametrize("capacity", [0, -1, CAPACITY_MAX + 1])
def test_capacity_that_cannot_be_is_a_value_error(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"capacity is {capacity}"):
        NativeQueue(capacity=capacity)


@pytest.mark.parametrize("capacity", [1.5, "7", float("nan")])
def test_capacity_that_is_no_integer_is_a_type_error(capacity: int) -> None:
    with pytest.raises(TypeError):
        NativeQueue(capacity=capacity)


def test_largest_capacity_is_accepted() -> None:
    NativeQueue(capacity=CAPACITY_MAX).close()


# ---- the end -------------------------------------------------------------------------


def test_close_drops_what_is_left_once_and_refuses_what_comes(adopt: Adopt) -> None:
    queue = NativeQueue()
    native = adopt(queue)
    assert native.set_drop() == 0
    assert [native.put(n) for n in (1, 10, 100)] == [0, 0, 0]
    queue.close()
    assert native.dropped.value == 111
    assert native.put(1000) == -errno.ESTALE
    queue.close()
    assert native.dropped.value == 111
    assert repr(queue) == "<fdmux.NativeQueue closed>"
    with pytest.raises(ValueError, match="it is closed"):
        queue.fileno()


def test_closed_queue_is_unregistered_quietly(loop: SelectorEventLoop) -> None:
    queue = NativeQueue()
    loop.register_read(queue, print)
    queue.close()
    loop.unregister(queue)
    assert loop.run_once(0) == 0
    with pytest.raises(ValueError, match="Invalid file object"):
        loop.register_read(queue, print)


def test_threads_that_put_while_it_is_closed_are_told(adopt: Adopt) -> None:
    for _ in range(10):
        queue = NativeQueue()
        native = adopt(queue)
        native.start(0, 20_000)
        queue.close()
        assert native.join() in {0, -errno.ESTALE}
        assert native.put(1) == -errno.ESTALE


def test_queue_ends_with_its_object_whoever_still_puts(adopt: Adopt) -> None:
    queue = NativeQueue()
    native = adopt(queue)
    native.set_drop()
    native.ref()  # as each thread has one
    native.put(7)
    alive = weakref.ref(queue)
    del queue
    assert alive() is None
    assert native.dropped.value == 7
    assert native.put(8) == -errno.ESTALE
    native.unref()


def test_queue_in_a_cycle_ends_with_it(adopt: Adopt) -> None:
    holder: list[object] = [NativeQueue()]
    queue = holder[0]
    assert isinstance(queue, NativeQueue)
    native = adopt(queue)
    native.set_drop()
    native.put(7)
    holder.append(holder)
    del holder, queue
    gc.collect()
    assert native.dropped.value == 7


def test_context_manager_closes_it() -> None:
    with NativeQueue() as queue:
        assert f"fd={queue.fileno()}" in repr(queue)
    assert "closed" in repr(queue)


# ---- handing it over -----------------------------------------------------------------


def test_capsule_keeps_the_queue_open(open_capsule: Open) -> None:
    queue = NativeQueue()
    capsule = queue.__fdmux_queue__()
    alive = weakref.ref(queue)
    del queue
    assert alive() is not None
    assert open_capsule(capsule, b"fdmux.queue")
    del capsule
    assert alive() is None


@pytest.mark.parametrize("name", [b"fdmux.loop", b"queue", b"fdmux._C_API"])
def test_capsule_opens_under_no_other_name(
    open_capsule: Open, name: bytes, queue: NativeQueue
) -> None:
    with pytest.raises(ValueError, match="PyCapsule_GetPointer"):
        open_capsule(queue.__fdmux_queue__(), name)


def test_handle_has_the_table_of_its_core(
    open_capsule: Open, queue: NativeQueue
) -> None:
    pointer = open_capsule(queue.__fdmux_queue__(), b"fdmux.queue")
    table = open_capsule(fdmux._C_API, b"fdmux._C_API")
    assert QueueHandle.from_address(pointer).api == table


def test_descriptor_is_not_inherited_by_programs(queue: NativeQueue) -> None:
    assert os.get_inheritable(queue.fileno()) is False


@pytest.mark.faults
def test_queue_that_could_not_be_made_says_why_and_leaks_nothing() -> None:
    queue = NativeQueue.__new__(NativeQueue)
    for kind, error, expected in (
        (lib.FDMUX_CALL_EVENTFD, errno.EMFILE, OSError),
        (lib.FDMUX_CALL_MEMORY, errno.ENOMEM, MemoryError),
    ):
        lib.fdmux_testing_fail(kind, 1, error, 0)
        try:
            with pytest.raises(expected, match="make a NativeQueue"):
                NativeQueue.__init__(queue)
        finally:
            lib.fdmux_testing_fail(0, 0, 0, 0)
        assert "could not be made" in repr(queue)


# ---- fork ----------------------------------------------------------------------------


def test_child_is_told_and_leaves_the_parent_alone(
    queue: NativeQueue, adopt: Adopt
) -> None:
    native = adopt(queue)
    native.set_drop()
    native.put(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking beside threads of other tests
        process = os.fork()
    if process == 0:
        status = 1
        try:
            with pytest.raises(ValueError, match="made before fork"):
                queue.fileno()
            assert native.put(8) == -errno.ECHILD
            queue.close()
            assert native.dropped.value == 0
            with NativeQueue() as fresh:
                assert adopt(fresh).put(9) == 0
                assert is_readable(fresh)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert is_readable(queue)
    assert native.take() == [7]
