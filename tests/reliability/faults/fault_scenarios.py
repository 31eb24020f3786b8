"""Scenarios of selectors, loops, guests and queues, each for a failing call.

Each prepares without faults, gives out what is attempted under them, and then uses what
is there, which must work: see fault_plans.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import selectors
import socket
import time
from typing import TYPE_CHECKING, TypeVar

from tests.reliability.faults.fault_plans import scenario

from fdmux import (
    EVENT_READ,
    EVENT_WRITE,
    Guest,
    NativeLoop,
    NativeQueue,
    Selector,
    SelectorEventLoop,
)
from fdmux._ffi import ffi, lib
from fdmux._native import check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.reliability.faults.fault_plans import Attempt

    Pair = tuple[socket.socket, socket.socket]

Made = TypeVar("Made")
MANY = 70  # enough that tables double
TICKS = lib.FDMUX_PY_DEMO_TICKS
TICKS_WITHIN = 10.0


@contextlib.contextmanager
def open_pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


@contextlib.contextmanager
def open_loop(backend: str) -> Iterator[SelectorEventLoop]:
    with SelectorEventLoop(Selector(backend)) as loop:
        yield loop


def check_sound(native: NativeLoop) -> None:
    assert lib.fdmux_testing_verify(native._c_loop) == 0, "the line of verify.c"


def check_selector(selector: Selector) -> None:
    """Check that the selector registers, reports and unregisters."""
    check_sound(selector.native)
    with contextlib.suppress(OSError, MemoryError):
        selector.select(0)  # a deferred error is raised here
    with open_pair() as (left, right):
        key = selector.register(left, EVENT_READ)
        right.send(b"x")
        assert (key, EVENT_READ) in selector.select(0)
        assert selector.unregister(left) is key
        assert (key, EVENT_READ) not in selector.select(0)


def check_loop(loop: SelectorEventLoop) -> None:
    """Check that the loop serves a socket, a timer and a posted call."""
    seen: set[str] = set()
    for _ in range(2):  # a deferred error is raised here
        with contextlib.suppress(OSError, MemoryError):
            loop.run_once(0)
    with open_pair() as (left, right):
        loop.register_read(left, lambda _sock: seen.add("socket"))
        loop.call_later(0, seen.add, "timer")
        loop.call_soon_threadsafe(seen.add, "call")
        right.send(b"x")
        for _ in range(5):
            loop.run_once(0)
        loop.unregister(left)
    assert seen == {"socket", "timer", "call"}
    check_sound(loop.native)


def attempt_to_make(
    make: Callable[[], Made],
    check: Callable[[Made], None],
    close: Callable[[Made], None],
) -> Iterator[Attempt]:
    """Create an object; it works if that succeeded, and the next one works anyway."""
    made: list[Made] = []
    close(make())  # creates what exists once per process
    yield lambda: made.append(make())
    if not made:
        made.append(make())
    check(made[0])
    close(made[0])


# ---- the selector --------------------------------------------------------------------


@scenario
def making_a_selector(backend: str) -> Iterator[Attempt]:
    yield from attempt_to_make(
        functools.partial(Selector, backend), check_selector, Selector.close
    )


@scenario
def registering(backend: str) -> Iterator[Attempt]:
    with Selector(backend) as selector, open_pair() as (left, _right):
        yield lambda: selector.register(left, EVENT_WRITE)
        if left not in selector.get_map():
            assert selector.select(0) == []
            selector.register(left, EVENT_WRITE)
        ((key, events),) = selector.select(0)
        assert (key.fileobj, events) == (left, EVENT_WRITE)
        check_selector(selector)


@scenario
def registering_many(backend: str) -> Iterator[Attempt]:
    with Selector(backend) as selector, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(open_pair())[0] for _ in range(MANY)]

        def attempt() -> None:
            for sock in socks:
                selector.register(sock, EVENT_WRITE)

        yield attempt
        count = len(selector.get_map())
        assert len(selector.select(0)) == count
        check_selector(selector)


@scenario
def modifying(backend: str) -> Iterator[Attempt]:
    with Selector(backend) as selector, open_pair() as (left, _right):
        selector.register(left, EVENT_READ)
        yield lambda: selector.modify(left, EVENT_WRITE)
        if left in selector.get_map():
            assert [events for _, events in selector.select(0)] == [EVENT_WRITE]
        else:  # as the standard library: a failing modify ends the registration
            assert selector.select(0) == []
            selector.register(left, EVENT_WRITE)
            assert len(selector.select(0)) == 1
        check_selector(selector)


@scenario
def unregistering(backend: str) -> Iterator[Attempt]:
    with Selector(backend) as selector, open_pair() as (left, _right):
        key = selector.register(left, EVENT_WRITE)
        forgotten = []
        yield lambda: forgotten.append(selector.unregister(left))
        assert forgotten == [key], "unregister never fails"
        assert selector.select(0) == []
        check_selector(selector)


@scenario
def selecting_what_is_ready(backend: str) -> Iterator[Attempt]:
    with Selector(backend) as selector, open_pair() as (left, right):
        key = selector.register(left, EVENT_READ)
        right.send(b"x")
        yield lambda: selector.select(0)
        with contextlib.suppress(OSError, MemoryError):
            selector.select(0)
        assert selector.select(0) == [(key, EVENT_READ)]
        check_selector(selector)


@scenario
def selecting_until_a_timeout(backend: str) -> Iterator[Attempt]:
    with Selector(backend) as selector, open_pair() as (left, _right):
        selector.register(left, EVENT_READ)
        yield lambda: selector.select(0.0003)
        check_selector(selector)


@scenario
def selecting_of_many(backend: str) -> Iterator[Attempt]:
    with Selector(backend) as selector, contextlib.ExitStack() as stack:
        for _ in range(MANY):
            left, _right = stack.enter_context(open_pair())
            selector.register(left, EVENT_WRITE)
        yield lambda: selector.select(0)
        with contextlib.suppress(OSError, MemoryError):
            selector.select(0)
        assert len(selector.select(0)) == MANY
        check_selector(selector)


@scenario
def waking_a_selector(backend: str) -> Iterator[Attempt]:
    with Selector(backend) as selector:

        def attempt() -> None:
            selector.native.wake()
            selector.select(0)

        yield attempt
        check_selector(selector)
        selector.native.wake()
        assert selector.select(None) == []


@scenario
def closing_a_selector(backend: str) -> Iterator[Attempt]:
    with open_pair() as (left, _right):
        selector = Selector(backend)
        selector.register(left, EVENT_READ)
        yield selector.close
        assert selector.get_map() is None
        selector.close()


@scenario
def selecting_for_asyncio(backend: str) -> Iterator[Attempt]:
    loop = asyncio.SelectorEventLoop(Selector(backend))
    with contextlib.closing(loop), open_pair() as (left, right):
        called: list[str] = []
        right.send(b"x")

        def attempt() -> None:
            loop.add_reader(left, called.append, "read")
            loop.call_soon(loop.stop)
            loop.run_forever()

        yield attempt
        with contextlib.suppress(OSError, MemoryError):
            attempt()  # a deferred error is raised here
        called.clear()
        attempt()
        attempt()  # what was ready in the first is called in the second
        assert called
        loop.remove_reader(left)


# ---- the handle of the core ----------------------------------------------------------


def check_native(native: NativeLoop) -> None:
    check_sound(native)
    native.wake()
    native.dispatch(None)


@scenario
def making_a_native_loop(backend: str) -> Iterator[Attempt]:
    yield from attempt_to_make(
        functools.partial(NativeLoop, backend), check_native, NativeLoop.close
    )


@scenario
def hosting_a_native_loop(backend: str) -> Iterator[Attempt]:
    if backend == "poll":  # has no descriptor to be hosted by
        yield lambda: None
        return
    with NativeLoop(backend) as native:
        yield native.fileno
        with selectors.SelectSelector() as host:
            host.register(native.fileno(), EVENT_READ)
            assert host.select(0) == []
            native.wake()
            assert len(host.select(0)) == 1
        check_native(native)


@scenario
def dispatching_a_native_loop(backend: str) -> Iterator[Attempt]:
    with NativeLoop(backend) as native:
        native.wake()
        yield native.dispatch
        check_native(native)


@scenario
def asking_a_native_loop(backend: str) -> Iterator[Attempt]:
    with NativeLoop(backend) as native:
        yield lambda: (native.stats(), native.next_deadline(), native.__fdmux_loop__())
        check_native(native)


def run_native_code(backend: str) -> None:
    with NativeLoop(backend) as native:
        demo = ffi.new("struct fdmux_py_demo **")
        check(lib.fdmux_py_demo_start(native._c_loop, demo), "start native code")
        try:
            native.dispatch(0)
        finally:
            native.close()
            assert lib.fdmux_py_demo_stop(demo[0]) == 0


@scenario
def running_native_code(backend: str) -> Iterator[Attempt]:
    """A watcher, a timer and a thread that posts, in C."""
    yield functools.partial(run_native_code, backend)
    run_native_code(backend)


# ---- the loop ------------------------------------------------------------------------


@scenario
def making_a_loop(backend: str) -> Iterator[Attempt]:
    def make() -> SelectorEventLoop:
        selector = Selector(backend)
        try:
            return SelectorEventLoop(selector)
        except BaseException:
            selector.close()
            raise

    yield from attempt_to_make(make, check_loop, SelectorEventLoop.close)


@scenario
def making_a_loop_by_itself(_backend: str) -> Iterator[Attempt]:
    yield from attempt_to_make(SelectorEventLoop, check_loop, SelectorEventLoop.close)


@scenario
def registering_in_a_loop(backend: str) -> Iterator[Attempt]:
    with open_loop(backend) as loop, open_pair() as (left, _right):
        called: list[socket.socket] = []

        def attempt() -> None:
            loop.register_read(left, called.append)
            loop.register_write(left, called.append)
            loop.unregister_read(left)

        yield attempt
        loop.unregister(left)
        loop.register_write(left, called.append)
        loop.run_once(0)
        assert called == [left]
        check_loop(loop)


@scenario
def iterating(backend: str) -> Iterator[Attempt]:
    with open_loop(backend) as loop, open_pair() as (left, right):
        called: list[str] = []
        loop.register_read(left, lambda _sock: called.append("read"))
        right.send(b"x")
        loop.call_later(0, called.append, "timer")
        loop.call_soon_threadsafe(called.append, "call")
        yield lambda: loop.run_once(0)
        for _ in range(3):
            with contextlib.suppress(OSError, MemoryError):
                loop.run_once(0)
        assert called.count("timer") == called.count("call") == 1
        assert "read" in called
        check_loop(loop)


@scenario
def waiting_for_a_timer(backend: str) -> Iterator[Attempt]:
    with open_loop(backend) as loop:
        fired: list[int] = []
        loop.call_later(0.0003, fired.append, 1)
        yield lambda: loop.run(max_iterations=1)
        while not fired:
            loop.run_once()
        assert fired == [1]
        check_loop(loop)


@scenario
def posting(backend: str) -> Iterator[Attempt]:
    """A call whose wake-up failed was either accepted or reported as failed."""
    with open_loop(backend) as loop:
        ran: list[int] = []
        yield lambda: loop.call_soon_threadsafe(ran.append, 1)
        loop.call_soon_threadsafe(ran.append, 2)
        loop.run_once(0)
        assert ran in ([1, 2], [2])
        check_loop(loop)


@scenario
def stopping(backend: str) -> Iterator[Attempt]:
    with open_loop(backend) as loop:
        yield loop.stop
        loop.stop()
        loop.run(None)
        check_loop(loop)


@scenario
def adding_a_core_to_a_stdlib_selector(_backend: str) -> Iterator[Attempt]:
    with SelectorEventLoop(selectors.SelectSelector()) as loop:
        yield lambda: loop.native
        check_sound(loop.native)
        check_loop(loop)


@scenario
def closing_a_loop(backend: str) -> Iterator[Attempt]:
    loop = SelectorEventLoop(Selector(backend))
    loop.call_soon_threadsafe(print)
    with open_pair() as (left, _right):
        loop.register_read(left, print)
        yield loop.close
    loop.close()


@scenario
def making_a_guest(backend: str) -> Iterator[Attempt]:
    if backend == "poll":  # has no descriptor to be hosted by
        yield lambda: None
        return
    yield from attempt_to_make(Guest, lambda guest: check_loop(guest.loop), Guest.close)


@scenario
def dispatching_a_guest(backend: str) -> Iterator[Attempt]:
    if backend == "poll":
        yield lambda: None
        return
    with Guest() as guest:
        called: list[str] = []
        guest.loop.call_later(0, called.append, "timer")
        guest.loop.call_soon_threadsafe(called.append, "call")
        yield guest.dispatch
        for _ in range(3):
            with contextlib.suppress(OSError, MemoryError):
                guest.dispatch()
        assert sorted(called) == ["call", "timer"]
        check_loop(guest.loop)


# ---- queues of native threads --------------------------------------------------------


def check_queue(queue: NativeQueue) -> None:
    with selectors.SelectSelector() as host:
        host.register(queue, EVENT_READ)
        assert host.select(0) == []


@scenario
def making_a_queue(_backend: str) -> Iterator[Attempt]:
    yield from attempt_to_make(NativeQueue, check_queue, NativeQueue.close)


@scenario
def watching_a_queue(backend: str) -> Iterator[Attempt]:
    with open_loop(backend) as loop, NativeQueue(capacity=5) as queue:

        def attempt() -> None:
            loop.register_read(queue, print)
            loop.run_once(0)
            loop.unregister(queue)

        yield attempt
        loop.unregister(queue)
        check_queue(queue)
        check_loop(loop)


@scenario
def closing_a_queue(_backend: str) -> Iterator[Attempt]:
    queue = NativeQueue()
    queue.__fdmux_queue__()
    yield queue.close
    queue.close()


# ---- timers of native code -----------------------------------------------------------


@contextlib.contextmanager
def open_native_code(loop: SelectorEventLoop) -> Iterator[Callable[[], int]]:
    """Run a watcher, a timer and a thread in C; return how often the timer expired."""
    c_loop = loop.native._c_loop
    demo = ffi.new("struct fdmux_py_demo **")
    counts = ffi.new("struct fdmux_py_demo_counts *")

    def count_ticks() -> int:
        lib.fdmux_py_demo_count(demo[0], counts)
        return counts.ticks

    check(lib.fdmux_py_demo_start(c_loop, demo), "start native code")
    try:
        yield count_ticks
    finally:
        loop.close()
        assert lib.fdmux_py_demo_stop(demo[0]) == 0


@scenario
def hosting_native_code(_backend: str) -> Iterator[Attempt]:
    """Host the loop by its descriptor, or by its deadline if there is no timerfd."""
    with SelectorEventLoop(selectors.SelectSelector()) as loop:

        def attempt() -> None:
            assert loop.native.next_deadline() is None
            loop.run_once(0)

        yield attempt
        with contextlib.suppress(OSError, MemoryError):
            loop.run_once(0)
        with open_native_code(loop) as count_ticks:
            deadline = time.monotonic() + TICKS_WITHIN
            while count_ticks() < TICKS:  # each call from its thread ends a wait too
                assert time.monotonic() < deadline
                loop.run_once(0.1)
