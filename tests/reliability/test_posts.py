"""Calls posted by other threads: each runs once, in the order of its thread.

Four native threads post without the GIL, two of Python beside them. Each post has its
number, and a bit is kept for it.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.compiled import NativeLoad, load_beside

from fdmux import SelectorEventLoop

if TYPE_CHECKING:
    from tests.reliability.conftest import Bars

NATIVE_THREADS = 4
PYTHON_THREADS = 2
LONG = 60.0
NAPS = 500


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("posts")
    return load_beside(__file__, "native_posts.c", folder)


class PythonPosters:
    """Python threads that post numbers, and the numbers that arrived."""

    def __init__(self, loop: SelectorEventLoop, count: int) -> None:
        self._loop = loop
        self._count = count
        self.arrived: list[list[int]] = [[] for _ in range(PYTHON_THREADS)]
        self._threads = [
            threading.Thread(target=self._post, args=(arrived,))
            for arrived in self.arrived
        ]
        for thread in self._threads:
            thread.start()

    def _post(self, arrived: list[int]) -> None:
        for number in range(self._count):
            self._loop.call_soon_threadsafe(arrived.append, number)

    def is_done(self) -> bool:
        return all(len(arrived) >= self._count for arrived in self.arrived)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(LONG)

    def faults(self) -> tuple[int, int, int]:
        """Return how many were lost, came twice, or were overtaken."""
        lost = sum(self._count - len(set(one)) for one in self.arrived)
        twice = sum(len(one) - len(set(one)) for one in self.arrived)
        pairs = [itertools.pairwise(one) for one in self.arrived]
        overtaken = sum(1 for one in pairs for before, after in one if after <= before)
        return lost, twice, overtaken


def check_posts(
    bars: Bars, library: ctypes.CDLL, native_each: int, python_each: int
) -> None:
    """Post from all threads at once; enter lost, doubled and overtaken calls."""
    total = NATIVE_THREADS * native_each + PYTHON_THREADS * python_each
    native_total = NATIVE_THREADS * native_each
    faults = (ctypes.c_int64 * 4)()
    start = time.monotonic()
    with SelectorEventLoop() as loop:
        load = NativeLoad(library, loop)
        load.call("posts_start", NATIVE_THREADS, ctypes.c_int64(native_each))
        python = PythonPosters(loop, python_each)
        while not python.is_done() or load.call("posts_arrived") < native_total:
            loop.run_once(0.5)
            assert time.monotonic() < start + LONG, "posts are lost"
        seconds = time.monotonic() - start
        loop.run_once(0)  # a duplicate would arrive now
        python.join()
        load.call("posts_end", faults)
    lost, twice, overtaken = python.faults()
    title = f"{total:,} posts"
    bars.at_most(0, f"{title}: lost", lost + faults[0])
    bars.at_most(0, f"{title}: twice", twice + faults[1])
    bars.at_most(0, f"{title}: overtaken by a later one", overtaken + faults[2])
    bars.at_most(0, f"{title}: refused", faults[3])
    bars.at_most(30, f"{title}: time", seconds, "s")


@pytest.mark.commit
@pytest.mark.slow
def test_each_post_runs_once_and_in_order(bars: Bars, library: ctypes.CDLL) -> None:
    check_posts(bars, library, native_each=45_000, python_each=10_000)


@pytest.mark.nightly
def test_ten_million_posts_run_once_and_in_order(
    bars: Bars, library: ctypes.CDLL
) -> None:
    check_posts(bars, library, native_each=2_375_000, python_each=250_000)


def wake_ups(library: ctypes.CDLL) -> list[float]:
    """Post to a loop that sleeps; return the sorted latencies in ms."""
    latencies = (ctypes.c_int64 * NAPS)()
    deadline = time.monotonic() + LONG
    with SelectorEventLoop() as loop:
        load = NativeLoad(library, loop)
        assert load.call("naps_start", ctypes.c_int64(NAPS), latencies) == 0
        while load.call("naps_woken") < NAPS:
            loop.run_once(1.0)
            assert time.monotonic() < deadline, "a wake-up was lost"
        assert load.call("naps_end") == 0
    return sorted(latency / 1e6 for latency in latencies)


@pytest.mark.commit
@pytest.mark.slow
def test_post_wakes_a_loop_that_sleeps(bars: Bars, library: ctypes.CDLL) -> None:
    latencies = wake_ups(library)
    bars.at_least(NAPS, "wake-ups of a sleeping loop", len(latencies))
    bars.at_most(1000, "wake-up of a sleeping loop, longest", latencies[-1], "ms")


@pytest.mark.nightly
def test_post_wakes_a_loop_in_time(bars: Bars, library: ctypes.CDLL) -> None:
    latencies = wake_ups(library)
    p99 = latencies[int(len(latencies) * 0.99)]
    bars.at_most(5, "wake-up of a sleeping loop, p99", p99, "ms")
