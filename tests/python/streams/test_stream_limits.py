"""Bounds of a stream: pauses, sizes, timeouts."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from tests.python.streams.recorder import (
    LONG,
    Recorder,
    run_until,
)

from fdmux._ffi import lib
from fdmux.streams.client import add_stream
from fdmux.streams.limits import ServerLimits, StreamLimits

if TYPE_CHECKING:
    from fdmux.loop.event_loop import SelectorEventLoop
    from fdmux.streams.stream import Stream


def test_pause_and_resume(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    stream.pause_reading()
    stream.pause_reading()
    peer.sendall(b"x")
    loop.run_once(0.01)
    assert handler.data == b""
    stream.resume_reading()
    loop.run_once(LONG)
    assert handler.data == b"x"


def test_receive_max_divides(loop: SelectorEventLoop, handler: Recorder) -> None:
    ours, theirs = socket.socketpair()
    sizes: list[int] = []
    handler.answer = lambda _, data: sizes.append(len(data))
    with ours:
        add_stream(loop, theirs, handler, limits=StreamLimits(receive_max=3))
        ours.sendall(b"12345678")
        run_until(loop, lambda: sum(sizes) == 8)
    assert sizes == [3, 3, 2]


@pytest.mark.parametrize("name", ["idle_timeout", "stall_timeout"])
def test_timeout_closes_with_an_error(
    loop: SelectorEventLoop, handler: Recorder, name: str
) -> None:
    ours, theirs = socket.socketpair()
    limits = StreamLimits(**{name: 10.0}, queue_max=1 << 30, queue_high=1 << 29)  # type: ignore[arg-type] # a timeout
    with ours:
        stream = add_stream(loop, theirs, handler, limits=limits)
        if name == "stall_timeout":
            stream.write(b"x" * 10_000_000)
            assert stream.buffered
        for quarters, is_over in ((40, False), (1, True)):
            lib.fdmux_py_stream_tick(loop.native._c_loop, quarters)
            loop.run_once(0)
            assert bool(handler.errors) is is_over
    assert isinstance(handler.errors[0], TimeoutError)


@pytest.mark.parametrize(
    "limits",
    [
        {"receive_max": 0},
        {"receive_max": 262_145},
        {"queue_high": 0},
        {"queue_low": -1},
        {"queue_max": 1000},
        {"idle_timeout": float("nan")},
        {"stall_timeout": -1.0},
        {"handshake_timeout": 0},
        {"shutdown_timeout": -1},
    ],
)
def test_limits_out_of_range(limits: dict[str, int]) -> None:
    for kind in (StreamLimits, ServerLimits):
        with pytest.raises(ValueError, match=next(iter(limits))):
            kind(**limits)
