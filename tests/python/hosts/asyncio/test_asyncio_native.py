"""Native functions that call Python may use asyncio, which reacts at once.

They run inside `select`, in a loop that would otherwise wait for a distant timer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest
from tests.python.hosts.asyncio.asyncio_ends import SOON, connect

from fdmux.hosts.asyncio import EventLoop, run
from fdmux.testing.native import READ, NativeCode

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from fdmux.testing.native import HasLoop

    Done = asyncio.Future[str]


def finish_in_a_task(done: Done) -> None:
    async def finish() -> None:
        await asyncio.sleep(0)
        done.set_result("done")

    tasks.append(done.get_loop().create_task(finish()))


# References to running tasks, as asyncio holds only weak ones.
tasks: list[asyncio.Task[None]] = []

ASKS: dict[str, Callable[[Done], object]] = {
    "future": lambda done: done.set_result("done"),
    "call_soon": lambda done: done.get_loop().call_soon(done.set_result, "done"),
    "call_later": lambda done: done.get_loop().call_later(0, done.set_result, "done"),
    "call_soon_threadsafe": lambda done: done.get_loop().call_soon_threadsafe(
        done.set_result, "done"
    ),
    "task": finish_in_a_task,
}


def run_until_done(start: Callable[[NativeCode, Done], object]) -> None:
    """Start native code, and wait for the result that it sets."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done: Done = loop.create_future()
        code = NativeCode(cast("HasLoop", loop))
        start(code, done)
        assert await asyncio.wait_for(done, SOON) == "done"
        assert code.errors == []

    run(main())
    tasks.clear()


@pytest.mark.parametrize("ask", ASKS)
def test_native_timer_wakes_asyncio(ask: str) -> None:
    def start(code: NativeCode, done: Done) -> None:
        def on_timer(_token: int) -> None:
            ASKS[ask](done)

        code.arm(code.timer(on_timer), 0.0001)

    run_until_done(start)


def test_native_timer_wakes_asyncio_with_its_own_transports_by_threadsafe_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a subinterpreter, where docs/asyncio.md asks for this call."""
    monkeypatch.setattr("fdmux.hosts.asyncio.loop.CAN_SERVE", False)
    test_native_timer_wakes_asyncio("call_soon_threadsafe")


@pytest.mark.parametrize("ask", ASKS)
def test_native_watcher_wakes_asyncio(
    ask: str, pair: tuple[socket.socket, socket.socket]
) -> None:
    def start(code: NativeCode, done: Done) -> None:
        def on_ready(token: int, _events: int) -> None:
            code.unwatch(token)
            ASKS[ask](done)

        code.watch(pair[0].fileno(), READ, on_ready)
        pair[1].send(b"x")

    run_until_done(start)


@pytest.mark.parametrize("ask", ASKS)
def test_native_call_wakes_asyncio(ask: str) -> None:
    run_until_done(lambda code, done: code.post(lambda: ASKS[ask](done)))


def test_native_function_may_stop_asyncio() -> None:
    late: list[int] = []

    def stop_late() -> None:
        late.append(1)
        loop.stop()

    loop = EventLoop()
    try:
        code = NativeCode(loop)
        guard = loop.call_later(SOON, stop_late)
        code.post(loop.stop)
        loop.run_forever()
        guard.cancel()
    finally:
        loop.close()
    assert late == []
    assert code.errors == []


def test_native_function_may_write_to_a_transport() -> None:
    """The bytes are sent before the loop waits again, with no callback in between."""

    async def main() -> None:
        transport, protocol, far = await connect()
        code = NativeCode(cast("HasLoop", asyncio.get_running_loop()))
        with far:
            code.post(lambda: transport.write(b"hello"))
            reading = asyncio.to_thread(receive_within, far, SOON)
            assert await reading == b"hello"
            transport.close()
            await protocol.lost
        assert code.errors == []

    run(main())


def receive_within(sock: socket.socket, timeout: float) -> bytes:
    with sock.dup() as other:
        other.settimeout(timeout)
        return other.recv(9)
