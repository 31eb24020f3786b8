"""What an observer of `EventLoop` is told. Everything is slow here (``slow=0``)."""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
from typing import TYPE_CHECKING, cast

import pytest

import fdmux
from fdmux.hosts.asyncio import EventLoop
from fdmux.hosts.asyncio.private import HAS_ITERATION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.skipif(
    not HAS_ITERATION, reason="handles are asyncio's own, and not measured"
)


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.slow: list[str] = []
        self.reports: list[fdmux.Report] = []

    def on_slow(self, what: str, _duration: float) -> None:
        self.slow.append(what.rpartition(".<locals>.")[2])

    def on_report(self, report: fdmux.Report) -> None:
        self.reports.append(report)


class Echo(asyncio.Protocol):
    """Writes what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Datagrams(asyncio.DatagramProtocol):
    """Sends what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: object) -> None:
        self.transport.sendto(data, address)  # type: ignore[arg-type] # as it came


def run(main: Callable[[EventLoop], Awaitable[None]]) -> None:
    async def start() -> None:
        await main(cast("EventLoop", asyncio.get_running_loop()))

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(start())


async def exchange(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.close()
    await writer.wait_closed()


def test_tasks_handles_and_timers_are_named() -> None:
    recorder = Recorder()

    async def work() -> None:
        await asyncio.sleep(0)

    def callback() -> None:
        pass

    async def main(loop: EventLoop) -> None:
        with loop.observe(recorder, slow=0) as observation:
            loop.call_soon(functools.partial(callback))
            loop.call_later(0.001, callback)
            await asyncio.create_task(work())
            await asyncio.sleep(0.01)
        report = observation.report()
        assert sum(report.lags) >= report.calls > 0  # the call under way has begun
        count = len(recorder.slow)
        await asyncio.sleep(0)
        assert len(recorder.slow) == count

    run(main)
    assert recorder.slow.count("callback") == 2
    assert recorder.slow.count("work") == 2
    assert len(recorder.reports) == 1


def test_transports_are_observed_before_and_after() -> None:
    recorder = Recorder()

    async def main(loop: EventLoop) -> None:
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        await exchange(address)
        with loop.observe(recorder, slow=0) as observation:
            await exchange(address)
        count = len(recorder.slow)
        await exchange(address)
        assert len(recorder.slow) == count
        assert observation.report().accepted == 1
        server.close()

    run(main)
    assert recorder.slow.count("Echo.data_received") == 1
    assert "StreamReaderProtocol.data_received" in recorder.slow


def test_first_transport_of_an_observed_loop_is_observed() -> None:
    recorder = Recorder()
    loop = EventLoop()
    loop.observe(recorder, slow=0)

    async def main() -> None:
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        await exchange(server.sockets[0].getsockname())
        server.close()

    loop.run_until_complete(main())
    loop.close()
    assert recorder.slow.count("Echo.data_received") == 1


def test_datagrams_are_observed() -> None:
    recorder = Recorder()

    async def main(loop: EventLoop) -> None:
        transport, _ = await loop.create_datagram_endpoint(
            Datagrams, local_addr=("127.0.0.1", 0)
        )
        with (
            loop.observe(recorder, slow=0),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        ):
            sock.setblocking(False)
            await loop.sock_sendto(sock, b"x", transport.get_extra_info("sockname"))
            assert await loop.sock_recv(sock, 10) == b"x"
        transport.close()

    run(main)
    assert recorder.slow.count("Datagrams.datagram_received") == 1


def test_lag_of_a_timer() -> None:
    """The clock of the loop is replaced, so that the timer is late by 0.3 s."""

    async def main(loop: EventLoop) -> None:
        observation = loop.observe(Recorder())
        begun = asyncio.Event()
        loop.call_at(loop.time() - 0.3, begun.set)
        await begun.wait()
        observation.end()
        bound = dict(
            zip(fdmux.Report.LAG_BOUNDS, observation.report().lags, strict=False)
        )
        assert bound[0.5] == 1

    run(main)


def test_cancelled_handle_is_no_call() -> None:
    async def main(loop: EventLoop) -> None:
        with loop.observe(Recorder()) as observation:
            await asyncio.sleep(0)
            before = observation.report().calls
            loop.call_soon(int).cancel()
            await asyncio.sleep(0)
            assert observation.report().calls - before == 1

    run(main)


def test_shortage_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(loop: EventLoop) -> None:
        told = asyncio.Event()
        loop.set_exception_handler(lambda *_: told.set())
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        with (
            loop.observe(Recorder()) as observation,
            socket.create_connection(server.sockets[0].getsockname()),
            monkeypatch.context() as patched,
        ):
            patched.setattr(socket.socket, "accept", refuse)
            await told.wait()
        assert observation.report().shortages >= 1  # 3.11 goes on to try
        assert observation.report().accepted == 0
        server.close()

    def refuse(_sock: socket.socket) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    run(main)


def test_interrupt_in_an_observer_leaves_the_loop() -> None:
    class Interrupting:
        def on_slow(self, what: str, _duration: float) -> None:
            if what.endswith("callback"):
                raise KeyboardInterrupt

    def callback() -> None:
        pass

    loop = EventLoop()
    loop.observe(Interrupting(), slow=0)
    loop.call_soon(callback)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.close()


def test_observation_in_a_run_begins_and_ends_at_once() -> None:
    """`run_forever` repeats in C; it changes over between two iterations."""
    recorder = Recorder()
    loop = EventLoop()
    seen: list[int] = []

    def begin() -> None:
        observation = loop.observe(recorder, slow=0)
        loop.call_soon(middle, observation)

    def middle(observation: fdmux.Observation) -> None:
        observation.end()
        seen.append(len(recorder.slow))
        loop.call_soon(after)

    def after() -> None:
        seen.append(len(recorder.slow))
        loop.stop()

    loop.call_soon(begin)
    loop.run_forever()
    loop.close()
    assert seen == [0, 0]


def test_own_run_once_of_a_program_still_runs() -> None:
    recorder = Recorder()
    loop = EventLoop()
    iterations: list[None] = []
    run_once = loop._run_once

    def counted() -> None:
        iterations.append(None)
        run_once()

    with loop.observe(recorder, slow=0):
        loop._run_once = counted  # type: ignore[method-assign] # counts
        loop.call_soon(int)
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert len(iterations) == 1
    assert "int" in recorder.slow
    loop.close()


def test_closed_loop_is_refused() -> None:
    loop = EventLoop()
    observation = loop.observe(Recorder())
    loop.close()
    observation.end()
    with pytest.raises(fdmux.LoopClosed):
        loop.observe(Recorder())


def test_probe_takes_the_place_of_none_but_a_probe() -> None:
    loop = EventLoop()
    with pytest.raises(TypeError):
        loop._observe(loop)  # type: ignore[arg-type] # no probe
    loop.close()
