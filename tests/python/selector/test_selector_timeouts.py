"""Selector.select and NativeLoop.dispatch: how long they wait, never too short."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from fdmux import EVENT_READ, Selector
from fdmux._native import backend_names

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    Pair = tuple[socket.socket, socket.socket]

LONG = 30.0  # no wait may last this long


@pytest.fixture(params=backend_names())
def selector(request: pytest.FixtureRequest) -> Iterator[Selector]:
    with Selector(str(request.param)) as selector:
        yield selector


@pytest.mark.parametrize(
    "timeout", [0, 0.0, -0.0, -1, -1e-9, -1e300, float("-inf"), -(2**70), False]
)
def test_zero_and_less_do_not_wait(selector: Selector, timeout: float) -> None:
    started = time.monotonic()
    assert selector.select(timeout) == []
    assert selector.native.dispatch(timeout) is False
    assert time.monotonic() - started < LONG


@pytest.mark.parametrize(
    "timeout", [None, float("inf"), 1e300, 2**31 / 1000, 2**31, 2**70, Fraction(10**9)]
)
def test_long_timeouts_wait_for_what_comes(
    selector: Selector, pair: Pair, timeout: float | None
) -> None:
    selector.native.wake()
    assert selector.select(timeout) == []
    key = selector.register(pair[0], EVENT_READ)
    pair[1].send(b"x")
    assert selector.select(timeout) == [(key, EVENT_READ)]


@pytest.mark.parametrize("timeout", [1e-9, 0.0002, 0.001, 0.0015, Fraction(1, 3000)])
def test_a_wait_is_never_too_short(selector: Selector, timeout: float) -> None:
    for _ in range(20):
        started = time.monotonic()
        assert selector.select(timeout) == []
        assert time.monotonic() - started >= timeout


def test_a_dispatch_is_never_too_short(selector: Selector) -> None:
    for _ in range(20):
        started = time.monotonic()
        assert selector.native.dispatch(0.0002) is False
        assert time.monotonic() - started >= 0.0002


def test_short_waits_are_not_rounded_up_to_milliseconds(selector: Selector) -> None:
    """The shortest of many waits of 0.2 ms is well below 1 ms, on any machine."""
    if "waits below a millisecond" not in selector.native.stats().features:
        pytest.skip("the backend says that it waits for whole milliseconds")

    def measure() -> float:
        started = time.monotonic()
        selector.select(0.0002)
        return time.monotonic() - started

    assert min(measure() for _ in range(50)) < 0.0009


def test_nan_is_refused(selector: Selector) -> None:
    for wait in (selector.select, selector.native.dispatch):
        with pytest.raises(ValueError, match="NaN"):
            wait(float("nan"))
    assert selector.select(0) == []


@pytest.mark.parametrize("timeout", ["1", [], 1j, object()])
def test_no_number_is_refused(selector: Selector, timeout: float) -> None:
    for wait in (selector.select, selector.native.dispatch):
        with pytest.raises(TypeError):
            wait(timeout)
    assert selector.select(0) == []
