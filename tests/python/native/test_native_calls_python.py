"""A native function calls Python during a wait; what Python requests happens at once.

The loop would otherwise wait for a timer far away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fdmux.streams.client import add_stream
from fdmux.streams.stream import StreamHandler
from fdmux.testing.native import READ, NativeCode

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from fdmux.loop.event_loop import SelectorEventLoop

    Pair = tuple[socket.socket, socket.socket]

LONG = 30.0

ASKS: dict[str, Callable[[SelectorEventLoop, Callable[[], object]], object]] = {
    "call_later": lambda loop, fn: loop.call_later(0, fn),
    "call_at": lambda loop, fn: loop.call_at(loop.time() - 1, fn),
    "call_soon_threadsafe": lambda loop, fn: loop.call_soon_threadsafe(fn),
}


def run_until_asked(loop: SelectorEventLoop) -> None:
    """Run the loop; only the requested call may stop it."""
    guard = loop.call_later(LONG, pytest.fail, "nothing has woken the loop")
    loop.run(timeout=None)
    guard.cancel()


@pytest.mark.parametrize("ask", ASKS)
def test_native_timer_wakes_the_loop_by_asking_it(
    loop: SelectorEventLoop, ask: str
) -> None:
    code = NativeCode(loop)

    def on_timer(_token: int) -> None:
        ASKS[ask](loop, loop.stop)

    code.arm(code.timer(on_timer), 0.0001)
    run_until_asked(loop)
    assert code.errors == []


@pytest.mark.parametrize("ask", ASKS)
def test_native_watcher_wakes_the_loop_by_asking_it(
    loop: SelectorEventLoop, pair: Pair, ask: str
) -> None:
    code = NativeCode(loop)

    def on_ready(token: int, _events: int) -> None:
        code.unwatch(token)
        ASKS[ask](loop, loop.stop)

    code.watch(pair[0].fileno(), READ, on_ready)
    pair[1].send(b"x")
    run_until_asked(loop)
    assert code.errors == []


@pytest.mark.parametrize("ask", ASKS)
def test_native_call_wakes_the_loop_by_asking_it(
    loop: SelectorEventLoop, ask: str
) -> None:
    code = NativeCode(loop)
    assert code.post(lambda: ASKS[ask](loop, loop.stop)) == 0
    run_until_asked(loop)
    assert code.errors == []


def test_native_function_may_stop_the_loop(loop: SelectorEventLoop) -> None:
    code = NativeCode(loop)
    code.post(loop.stop)
    run_until_asked(loop)
    assert code.errors == []


def test_native_function_may_write_to_a_stream(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    """The write is sent at once, not when the loop has something else to do."""
    code = NativeCode(loop)
    stream = add_stream(loop, pair[0], StreamHandler())
    pair[1].settimeout(LONG)
    received: list[bytes] = []

    def write() -> None:
        stream.write(b"hello")
        received.append(pair[1].recv(9))
        loop.stop()

    code.post(write)
    run_until_asked(loop)
    assert received == [b"hello"]
    assert code.errors == []
