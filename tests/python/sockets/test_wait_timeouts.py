"""How long a wait lasts: not less than asked, through signals and odd numbers."""

from __future__ import annotations

import math
import signal
import socket
import time
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

import fdmux.sockets.wait
from fdmux.sockets.connect import connect_with_timeout
from fdmux.sockets.read import ReadTimeoutError, read_with_timeout
from fdmux.sockets.wait import deadline_after, wait_readable, wait_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import SupportsFloat, SupportsIndex

    OnAlarm = Callable[[Callable[[], object], float], None]

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def on_alarm() -> Iterator[OnAlarm]:
    """Return a function that makes SIGALRM call another one repeatedly."""

    def start(action: Callable[[], object], interval: float) -> None:
        signal.signal(signal.SIGALRM, lambda *_: action())
        signal.setitimer(signal.ITIMER_REAL, interval, interval)

    before = signal.getsignal(signal.SIGALRM)
    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("timeout", [1e-9, 0.0002, 0.001, 0.0015, 0.03])
@pytest.mark.parametrize("count", [1, 2])
def test_wait_is_never_early(pair: Pair, timeout: float, count: int) -> None:
    for _ in range(5):
        started = time.monotonic()
        assert wait_readable([pair[0]] * count, timeout) == []
        assert time.monotonic() - started >= timeout


@pytest.mark.parametrize("timeout", [0, 0.0, -0.0, -1, -1e300, -math.inf])
def test_no_time_looks_once(pair: Pair, timeout: float) -> None:
    assert wait_readable([pair[0]], timeout) == []
    assert wait_readable([pair[0], pair[0]], timeout) == []
    pair[1].send(b"x")
    assert wait_readable([pair[0]], timeout) == [pair[0]]


@pytest.mark.parametrize("given", [0, 1, 2])
def test_nan_is_a_value_error(pair: Pair, given: int) -> None:
    pair[1].send(b"x")
    with pytest.raises(ValueError, match="NaN"):
        wait_readable([pair[0]] * given, math.nan)
    with pytest.raises(ValueError, match="NaN"):
        wait_writable([pair[0]] * given, math.nan)


def test_text_is_a_type_error(pair: Pair) -> None:
    with pytest.raises(TypeError, match="timeout is '1'; it must be a number"):
        wait_readable([pair[0]], "1")  # type: ignore[arg-type] # under test
    with pytest.raises(TypeError, match="timeout is 1j; it must be a number"):
        wait_writable([], 1j)  # type: ignore[arg-type] # under test


class Scalar:
    """Has the methods of a NumPy scalar."""

    def __float__(self) -> float:
        return 0.01


@pytest.mark.parametrize(
    "timeout",
    [Fraction(1, 100), Decimal("0.01"), Scalar(), False, -(10**400), Decimal("-inf")],
)
def test_every_real_number_is_a_timeout(
    pair: Pair, timeout: SupportsFloat | SupportsIndex
) -> None:
    assert wait_readable([pair[0]], timeout) == []
    assert wait_readable([pair[0], pair[0]], timeout) == []
    assert wait_writable([pair[0]], timeout) == [pair[0]]
    with pytest.raises(ReadTimeoutError):
        read_with_timeout(pair[0], 1, timeout)
    pair[1].send(b"x")
    assert read_with_timeout(pair[0], 1, 10**400) == b"x"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        connect_with_timeout("127.0.0.1", address[1], Fraction(30)).close()


@pytest.mark.parametrize("timeout", [Decimal("nan"), Decimal("sNaN")])
def test_nan_of_any_kind_is_refused(pair: Pair, timeout: Decimal) -> None:
    for call in (
        lambda: wait_readable([pair[0]], timeout),
        lambda: read_with_timeout(pair[0], 1, timeout),
        lambda: connect_with_timeout("127.0.0.1", 1, timeout),
    ):
        with pytest.raises(ValueError, match="timeout is NaN"):
            call()


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300, 2**31 / 1000, 1e10])
@pytest.mark.parametrize("count", [1, 2])
def test_long_wait_ends_with_the_event(
    pair: Pair, on_alarm: OnAlarm, timeout: float | None, count: int
) -> None:
    on_alarm(lambda: pair[1].send(b"x"), 0.005)
    assert wait_readable([pair[0]] * count, timeout) == [pair[0]] * count


def test_signals_neither_end_nor_stretch_the_wait(
    pair: Pair, on_alarm: OnAlarm
) -> None:
    arrivals: list[float] = []
    on_alarm(lambda: arrivals.append(time.monotonic()), 0.01)
    started = time.monotonic()
    assert wait_readable([pair[0]], 0.1) == []
    elapsed = time.monotonic() - started
    assert arrivals, "no signal came, so nothing was tested"
    assert 0.1 <= elapsed < 1.0


def test_exception_of_a_signal_handler_comes_out(pair: Pair, on_alarm: OnAlarm) -> None:
    def interrupt() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)  # once; or it would hit what comes next
        raise InterruptedError

    def wait() -> None:
        on_alarm(interrupt, 0.005)
        wait_readable([pair[0]], None)

    with pytest.raises(InterruptedError):
        wait()


class Clock:
    """Time that passes only while something polls."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[float | None] = []

    def poll(self, milliseconds: float | None) -> list[tuple[int, int]]:
        self.asked.append(milliseconds)
        self.now += (milliseconds or 0) / 1000
        return []


def test_wait_beyond_an_int_of_milliseconds_goes_in_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(fdmux.sockets.wait, "monotonic", lambda: clock.now)
    timeout = 3 * 2**31 / 1000
    assert fdmux.sockets.wait._poll_until(clock.poll, timeout) == []
    assert len(clock.asked) == 4
    assert all(0 < (asked or 0) <= 2**31 - 1 for asked in clock.asked)
    assert clock.now >= 1000.0 + timeout


def test_deadline_is_reckoned_from_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fdmux.sockets.wait, "monotonic", lambda: 1000.0)
    assert deadline_after(2.5) == 1002.5
    assert deadline_after(-1) == 999.0
    assert deadline_after(None) == deadline_after(math.inf) == math.inf
    with pytest.raises(ValueError, match="NaN"):
        deadline_after(math.nan)
