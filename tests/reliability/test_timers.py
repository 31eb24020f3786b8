"""Timers fire never early, never after a cancel, and in order; lateness is measured.

30 % are cancelled before their time, 10 % in the callback of another timer, and 10 %
are armed again there. Timers of the core, in C, and of Python's loop get the same test.
"""

from __future__ import annotations

import ctypes
import errno
import random
import secrets
import time
from typing import TYPE_CHECKING

import pytest
from tests.compiled import NativeLoad, load_beside

from fdmux import SelectorEventLoop
from fdmux._ffi import lib

if TYPE_CHECKING:
    from tests.reliability.conftest import Bars

    from fdmux.loop.timers import TimerHandle

LONG = 100.0
NS_PER_S = 1_000_000_000
# Checks every structure of the loop; O(timers), so not at each step.
VERIFICATIONS = 20


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("timers")
    return load_beside(__file__, "native_timers.c", folder)


def verify(loop: SelectorEventLoop) -> None:
    """Check every invariant of the core, where the build can do that."""
    if hasattr(lib, "fdmux_testing_verify"):
        line = lib.fdmux_testing_verify(loop.native._c_loop)
        assert line == 0, f"verify.c:{line}"


def enter(bars: Bars, title: str, lateness: list[float], faults: list[int]) -> None:
    """Enter the faults, and how late the timers were, in ms."""
    for name, fault in zip(FAULTS, faults, strict=True):
        bars.at_most(0, f"{title}: {name}", fault)
    lateness.sort()
    middle, p99 = lateness[len(lateness) // 2], lateness[int(len(lateness) * 0.99)]
    bars.at_most(LATE_MS, f"{title}: lateness, median", middle, "ms")
    bars.at_most(LATE_MS, f"{title}: lateness, p99", p99, "ms")


FAULTS = ("early", "after a cancel", "out of order")
# Many timers due within two seconds: this measures the work, and the machine.
LATE_MS = 1000.0
# Seconds to arm a timer of Python, on a slow day: none is due before all are armed.
ARMING_TAKES = 20e-6


def run_crowd(loop: SelectorEventLoop, load: NativeLoad, crowd: ctypes.c_void_p) -> int:
    """Run until no timer is armed; return how many are (0, or lost ones)."""
    deadline = time.monotonic() + LONG
    verified = 0
    armed = load.call("crowd_armed", crowd)
    step = max(armed // VERIFICATIONS, 1)
    next_look = armed
    while armed and time.monotonic() < deadline:
        if armed <= next_look:
            verify(loop)
            verified += 1
            next_look = armed - step
        loop.run_once(0.05)
        armed = load.call("crowd_armed", crowd)
    verify(loop)
    return armed


def check_native(
    bars: Bars, library: ctypes.CDLL, count: int, ahead: float, span: float
) -> None:
    seed = secrets.randbits(63)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    lateness, result = (ctypes.c_int64 * count)(), (ctypes.c_int64 * 7)()
    with SelectorEventLoop() as loop:
        load = NativeLoad(library, loop)
        crowd = ctypes.c_void_p(
            load.call(
                "crowd_create", ctypes.c_int64(count), ctypes.c_uint64(seed), lateness
            )
        )
        armed = -errno.EAGAIN
        while armed == -errno.EAGAIN:
            times = [ctypes.c_int64(int(s * NS_PER_S)) for s in (ahead, span)]
            armed = load.call("crowd_arm", crowd, *times)
            ahead *= 2
        verify(loop)
        lost = run_crowd(loop, load, crowd)
        load.call("crowd_end", crowd, result)
    fired, early, after_cancel, out_of_order, cancelled, rearmed, failed = result
    title = f"{count:,} timers in C"
    bars.at_most(0, f"{title}: lost", lost)
    bars.at_most(0, f"{title}: calls that failed", failed)
    bars.at_least(count // 50, f"{title}: cancelled inside a callback", cancelled)
    bars.at_least(count // 20, f"{title}: re-armed inside a callback", rearmed)
    late = [ns / 1e6 for ns in lateness[: min(fired, count)]]
    enter(bars, title, late, [early, after_cancel, out_of_order])


class PythonCrowd:
    """Each timer checks its own call, as in native_timers.c."""

    def __init__(
        self, loop: SelectorEventLoop, seed: str, count: int, span: float
    ) -> None:
        self._loop = loop
        self._random = random.Random(seed)
        self._span = span
        begin = loop.time() + 0.2 + count * ARMING_TAKES
        self._handles: dict[int, TimerHandle] = {}
        self._due: dict[int, tuple[float, int]] = {}
        self._last = (0.0, 0)
        self._sequence = 0
        self.lateness: list[float] = []
        self.early = self.after_cancel = self.out_of_order = 0
        for number in range(count):
            self._arm(number, begin)
        for number in self._random.sample(range(count), count * 3 // 10):
            self._cancel(number)

    @property
    def armed_count(self) -> int:
        return len(self._due)

    def _arm(self, number: int, base: float) -> None:
        due = base + self._random.random() * self._span
        self._sequence += 1
        self._due[number] = (due, self._sequence)
        self._handles[number] = self._loop.call_at(due, self._fire, number)

    def _cancel(self, number: int) -> None:
        self._due.pop(number, None)
        self._handles[number].cancel()

    def _fire(self, number: int) -> None:
        now = self._loop.time()
        due = self._due.pop(number, None)
        if due is None:
            self.after_cancel += 1
            return
        self.early += now < due[0]
        self.out_of_order += due < self._last
        self._last = due
        self.lateness.append((now - due[0]) * 1000)
        self._meddle(number + 1, now)

    def _meddle(self, victim: int, now: float) -> None:
        """One in five cancels its neighbour, or arms it anew if it is armed."""
        choice = self._random.random()
        if choice < 0.2 and victim in self._due:
            self._cancel(victim)
            if choice < 0.1:
                self._arm(victim, now)


def check_python(bars: Bars, count: int, span: float) -> None:
    seed = secrets.token_hex(8)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    with SelectorEventLoop() as loop:
        crowd = PythonCrowd(loop, seed, count, span)
        deadline = time.monotonic() + LONG
        while crowd.armed_count and time.monotonic() < deadline:
            loop.run_once(0.05)
        loop.run_once(0)  # what was cancelled would come now
    title = f"{count:,} timers in Python"
    bars.at_most(0, f"{title}: lost", crowd.armed_count)
    faults = [crowd.early, crowd.after_cancel, crowd.out_of_order]
    enter(bars, title, crowd.lateness, faults)


@pytest.mark.commit
@pytest.mark.slow
def test_native_timers_keep_their_time(bars: Bars, library: ctypes.CDLL) -> None:
    check_native(bars, library, 50_000, ahead=0.2, span=0.8)


@pytest.mark.commit
@pytest.mark.slow
def test_python_timers_keep_their_time(bars: Bars) -> None:
    check_python(bars, 20_000, span=0.5)


@pytest.mark.nightly
def test_million_native_timers_keep_their_time(
    bars: Bars, library: ctypes.CDLL
) -> None:
    check_native(bars, library, 1_000_000, ahead=2.0, span=2.0)


@pytest.mark.nightly
def test_many_python_timers_keep_their_time(bars: Bars) -> None:
    check_python(bars, 200_000, span=4.0)


def bare_sleep_lateness() -> float:
    """How late this machine ends a bare sleep, p99 in ms: the best any loop can do."""
    late = []
    for _ in range(500):
        start = time.monotonic()
        time.sleep(0.002)  # is what is measured
        late.append((time.monotonic() - start - 0.002) * 1000)
    return sorted(late)[int(len(late) * 0.99)]


@pytest.mark.nightly
def test_few_timers_are_hardly_late(bars: Bars, library: ctypes.CDLL) -> None:
    """The loop has little to do: 2,000 timers in 5 s."""
    lateness, result = (ctypes.c_int64 * 2000)(), (ctypes.c_int64 * 7)()
    counts = (ctypes.c_int64(2000), ctypes.c_uint64(7))
    times = (ctypes.c_int64(NS_PER_S // 10), ctypes.c_int64(NS_PER_S * 5 // 2))
    bare = bare_sleep_lateness()
    with SelectorEventLoop() as loop:
        load = NativeLoad(library, loop)
        crowd = ctypes.c_void_p(load.call("crowd_create", *counts, lateness))
        assert load.call("crowd_arm", crowd, *times) == 0
        run_crowd(loop, load, crowd)
        load.call("crowd_end", crowd, result)
    late = sorted(ns / 1e6 for ns in lateness[: min(result[0], 2000)])
    p99 = late[int(len(late) * 0.99)]
    bare = max(bare, bare_sleep_lateness())
    title = "lateness in an idle loop, p99; limit: a bare sleep's, and 2 ms"
    bars.at_most(2 + bare, title, p99, "ms")
