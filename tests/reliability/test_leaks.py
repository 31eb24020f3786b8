"""Leaks: many cycles leave no more behind than a few.

Each cycle makes objects and removes them. The tests count what is left: descriptors,
registrations, Python's memory blocks, bytes of the C heap. Over many cycles they fit a
line to the resident memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import pytest

from fdmux import EchoServer, SelectorEventLoop, connect_with_timeout
from fdmux._ffi import lib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.reliability.conftest import Bars

    Cycle = Callable[[], object]
    # Cycles in the nightly and in the commit tier, and what makes the cycle.
    Plan = tuple[int, int, Callable[[], contextlib.AbstractContextManager[Cycle]]]

SAMPLES = 200
WARM_UP = 0.1
# Python's own tables grow by a few blocks at any time.
BLOCKS_KEPT = 50
# Bytes a cycle: below the smallest block that malloc gives out (16).
HEAP_KEPT = 8


@contextlib.contextmanager
def loop_created_and_closed() -> Iterator[Cycle]:
    yield lambda: SelectorEventLoop().close()


@contextlib.contextmanager
def registered_and_unregistered() -> Iterator[Cycle]:
    left, right = socket.socketpair()
    with left, right, SelectorEventLoop() as loop:

        def cycle() -> None:
            loop.register_read(left, ignore)
            loop.register_write(left, ignore)
            loop.unregister(left)

        yield cycle


def ignore(_sock: socket.socket) -> None:
    pass


@contextlib.contextmanager
def timer_fired_and_timer_cancelled() -> Iterator[Cycle]:
    with SelectorEventLoop() as loop:

        def cycle() -> None:
            loop.call_later(0, int)
            loop.call_later(1000, int).cancel()
            assert loop.run_once(0) == 1

        yield cycle


@contextlib.contextmanager
def native_timer_added_and_removed() -> Iterator[Cycle]:
    from fdmux._ffi import ffi  # noqa: PLC0415 - here only

    with SelectorEventLoop() as loop:
        c_loop = loop.native._c_loop
        options = ffi.new("struct fdmux_timer_options *")
        options.struct_size = ffi.sizeof("struct fdmux_timer_options")
        options.flags = lib.FDMUX_COLLECT
        token = ffi.new("uint64_t *")

        def cycle() -> None:
            assert lib.fdmux_timer_add(c_loop, options, token) == 0
            assert lib.fdmux_timer_arm(c_loop, token[0], 1 << 62, 0) == 0
            assert lib.fdmux_timer_remove(c_loop, token[0]) == 0

        yield cycle


@contextlib.contextmanager
def call_posted() -> Iterator[Cycle]:
    with SelectorEventLoop() as loop:

        def cycle() -> None:
            loop.call_soon_threadsafe(int)
            assert loop.run_once(0) == 1

        yield cycle


@contextlib.contextmanager
def connected_echoed_and_closed() -> Iterator[Cycle]:
    """Client and server in one thread, so both are counted."""
    with SelectorEventLoop() as loop, EchoServer(port=0, loop=loop) as server:

        def cycle() -> None:
            with socket.create_connection(server.address, timeout=20) as sock:
                sock.sendall(b"hello")
                sock.setblocking(False)
                echo = b""
                while echo != b"hello":
                    loop.run_once(0.01)
                    with contextlib.suppress(BlockingIOError):
                        echo += sock.recv(100)
            while server.stats.open:
                loop.run_once(20)

        yield cycle


@contextlib.contextmanager
def connect_refused() -> Iterator[Cycle]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]

        def cycle() -> None:
            with contextlib.suppress(ConnectionRefusedError):
                connect_with_timeout("127.0.0.1", port, timeout=20.0)
                raise AssertionError

        yield cycle


class CallbackError(Exception):
    pass


def fail(_sock: socket.socket) -> None:
    raise CallbackError


@contextlib.contextmanager
def callback_raised() -> Iterator[Cycle]:
    left, right = socket.socketpair()
    with left, right, SelectorEventLoop() as loop:
        right.send(b"x")
        loop.register_read(left, fail)

        def cycle() -> None:
            with contextlib.suppress(CallbackError):
                loop.run_once(20)
                raise AssertionError

        yield cycle


PLANS: dict[str, Plan] = {
    "loop created and closed": (300_000, 1000, loop_created_and_closed),
    "registered and unregistered": (1_000_000, 5000, registered_and_unregistered),
    "timers of Python": (1_000_000, 5000, timer_fired_and_timer_cancelled),
    "timers in C": (1_000_000, 5000, native_timer_added_and_removed),
    "calls posted": (1_000_000, 5000, call_posted),
    "connected, echoed, closed": (200_000, 500, connected_echoed_and_closed),
    "connect refused": (100_000, 500, connect_refused),
    "callback raised": (100_000, 2000, callback_raised),
}


class HeapFigures(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks")
    ] + [
        (name, ctypes.c_size_t) for name in ("fsmblks", "uordblks", "fordblks", "keep")
    ]
    hblkhd: int
    uordblks: int


class Held(NamedTuple):
    """What the process holds at one moment."""

    descriptors: int
    registrations: int
    python_blocks: int
    heap_bytes: int


def heap_bytes() -> int:
    """Return how many bytes malloc has given out."""
    function = ctypes.CDLL(None).mallinfo2
    function.restype = HeapFigures
    figures: HeapFigures = function()
    return figures.uordblks + figures.hblkhd


def registrations() -> int:
    """Count what the kernel has in this process's epoll sets; proc(5), fdinfo."""
    count = 0
    for name in os.listdir("/proc/self/fdinfo"):
        path = Path("/proc/self/fdinfo", name)
        with contextlib.suppress(FileNotFoundError):
            count += path.read_text(encoding="ascii").count("tfd:")
    return count


def held() -> Held:
    gc.collect()
    return Held(
        descriptors=len(os.listdir("/proc/self/fd")),
        registrations=registrations(),
        python_blocks=sys.getallocatedblocks(),
        heap_bytes=heap_bytes(),
    )


def resident_bytes() -> int:
    """Count the resident pages; the statm of proc(5) is only an estimate.

    First malloc gives back its free pages: a later leak would use those, unseen.
    """
    ctypes.CDLL(None).malloc_trim(0)
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    line = next(line for line in rollup.splitlines() if line.startswith("Rss:"))
    return int(line.split()[1]) * 1024


def slope(points: list[tuple[int, int]]) -> float:
    """Fit a line by least squares; return how steep it is."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def repeat(cycle: Cycle, count: int) -> None:
    for _ in range(count):
        cycle()


def check_held(bars: Bars, title: str, cycle: Cycle, count: int) -> None:
    """Run ``count`` cycles, and enter what is left of them."""
    repeat(cycle, count)
    held()  # makes what it needs itself
    before = held()
    repeat(cycle, count)
    after = held()
    left = [now - then for now, then in zip(after, before, strict=True)]
    bars.at_most(0, f"{title}: descriptors, registrations left", left[0] + left[1])
    bars.at_most(BLOCKS_KEPT, f"{title}: blocks of Python left", left[2])
    bars.at_most(HEAP_KEPT * count, f"{title}: bytes of the C heap left", left[3], "B")


@pytest.mark.commit
@pytest.mark.slow
@pytest.mark.parametrize("title", list(PLANS))
def test_nothing_is_left(bars: Bars, title: str) -> None:
    _nightly, count, make = PLANS[title]
    with make() as cycle:
        check_held(bars, title, cycle, count)


@pytest.mark.nightly
@pytest.mark.parametrize("title", list(PLANS))
def test_memory_does_not_grow(bars: Bars, title: str) -> None:
    count, _few, make = PLANS[title]
    step = count // SAMPLES
    points = []
    with make() as cycle:
        for sample in range(SAMPLES):
            repeat(cycle, step)
            points.append((sample * step, resident_bytes()))
        steep = slope(points[int(SAMPLES * WARM_UP) :])
    bars.at_most(1, f"{count:,} x {title}: memory gained", steep, "B a cycle")


def test_slope_is_of_the_line() -> None:
    assert slope([(x, 3 * x + 5) for x in range(10)]) == pytest.approx(3)


def test_leak_would_be_seen() -> None:
    """A leak of 4 KiB blocks shows in the heap and in resident memory."""
    heap, resident = heap_bytes(), resident_bytes()
    kept = [os.urandom(4096) for _ in range(1000)]
    assert heap_bytes() - heap > len(kept) * 4096
    assert resident_bytes() - resident > len(kept) * 2048
