"""Transports of asyncio: events that come too early, too late, or twice."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket
import tempfile
from typing import TYPE_CHECKING, cast

import pytest
from tests.peers import reset
from tests.python.hosts.asyncio.asyncio_ends import (
    BIG,
    BOTH,
    SOON,
    Buffered,
    Linked,
    Loop,
    Recorder,
    connect,
    connect_two,
    make_loop,
    receive_all,
    receive_size,
    run,
    tcp_pair,
    turns,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import IO, Protocol

    class MakesTransports(Protocol):
        """The private method by which a loop of asyncio makes transports."""

        def _make_socket_transport(
            self, sock: socket.socket, protocol: asyncio.BaseProtocol
        ) -> asyncio.Transport: ...

    class WaitsForEmpty(Protocol):
        """The private method of transports for asyncio's sendfile."""

        def _make_empty_waiter(self) -> asyncio.Future[None]: ...


loop = pytest.fixture(params=BOTH)(make_loop)


# ---- files -----------------------------------------------------------------------


def send_file(
    loop: Loop, transport: asyncio.Transport, file: IO[bytes]
) -> asyncio.Future[int]:
    return asyncio.ensure_future(loop.sendfile(transport, file))


def test_sendfile_refuses_writes_and_files_until_it_is_done(loop: Loop) -> None:
    async def main(file: IO[bytes]) -> None:
        transport, protocol, far = await connect()
        with far:
            sending = send_file(loop, transport, file)
            await turns()
            with pytest.raises(RuntimeError, match="sendfile is in progress"):
                transport.writelines([b"x", b"y"])
            with pytest.raises(RuntimeError, match="Empty waiter is already set"):
                cast("WaitsForEmpty", transport)._make_empty_waiter()
            assert len(await receive_size(far, BIG)) == BIG
            assert await sending == BIG
            transport.close()
            await protocol.lost

    with tempfile.TemporaryFile() as file:
        file.truncate(BIG)
        run(loop, main(file))


def test_sendfile_that_waits_for_queued_bytes_fails_with_the_connection(
    loop: Loop,
) -> None:
    async def main(file: IO[bytes]) -> None:
        transport, protocol, far = await connect()
        with far:
            transport.write(b"x" * BIG)
            sending = send_file(loop, transport, file)
            await turns()
            transport.abort()
            with pytest.raises(ConnectionError, match="closed by peer"):
                await sending
            await protocol.lost

    with tempfile.TemporaryFile() as file:
        file.truncate(100)
        run(loop, main(file))


# ---- reading ---------------------------------------------------------------------


def test_debug_mode_logs_the_end_of_file(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.set_debug(True)

    async def main() -> None:
        _, protocol, far = await connect()
        far.close()
        assert await protocol.lost is None

    with caplog.at_level("DEBUG", logger="asyncio"):
        run(loop, main())
    assert "received EOF" in caplog.text


def test_buffer_without_room_ends_the_connection_once(loop: Loop) -> None:
    reported: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _loop, context: reported.append(context))

    async def main() -> None:
        protocol = Buffered(0)
        _, _, far = await connect(lambda: protocol)
        with far:
            far.send(b"data")
            with pytest.raises(RuntimeError, match="empty buffer"):
                raise await protocol.lost or AssertionError

    run(loop, main())
    assert len(reported) == 1


class ClosesAtOnce(Buffered):
    """Closes after its first buffer."""

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        self.transport.close()


def test_buffered_protocol_that_closes_gets_no_more_data(loop: Loop) -> None:
    async def main() -> None:
        protocol = ClosesAtOnce(4)
        _, _, far = await connect(lambda: protocol)
        with far:
            far.send(b"data and more")
            assert await protocol.lost is None
        assert protocol.updates == [4]

    run(loop, main())


class InterruptedData(Linked):
    """Pauses the other when it gets data; raises Ctrl-C if ``is_last``."""

    is_last = False

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.is_last:
            raise KeyboardInterrupt
        self.other.pause_reading()


class InterruptedEnd(Recorder):
    """Raises Ctrl-C in its first `eof_received`."""

    def eof_received(self) -> bool:
        super().eof_received()
        if self.events.count("eof") == 1:
            raise KeyboardInterrupt
        return False


class InterruptedBuffer(Buffered):
    """Raises Ctrl-C in `buffer_updated`."""

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        raise KeyboardInterrupt


def run_interrupted(loop: Loop, main: Coroutine[object, object, None]) -> None:
    """Run ``main``, which Ctrl-C interrupts once, to its end."""
    task = loop.create_task(asyncio.wait_for(main, SOON))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(task)


@pytest.mark.parametrize("kind", [InterruptedEnd, InterruptedBuffer])
def test_ctrl_c_in_a_protocol_is_raised_by_the_loop(
    loop: Loop, kind: Callable[[], InterruptedEnd | InterruptedBuffer]
) -> None:
    async def main() -> None:
        transport, protocol, far = await connect(kind)
        with far:
            far.send(b"data")
            far.shutdown(socket.SHUT_WR)
            await turns(10)
            assert protocol.data == b"data"
            transport.abort()
            await protocol.lost

    run_interrupted(loop, main())


def test_ctrl_c_in_data_received_loses_no_data_of_a_paused_transport(
    loop: Loop,
) -> None:
    async def main() -> None:
        ends = await connect_two(InterruptedData)
        (one, first, far_one), (two, second, far_two) = ends
        with far_one, far_two:
            far_one.send(b"data")
            far_two.send(b"data")
            await turns(10)
            held, paused = (second, two) if first.data else (first, one)
            assert held.data == b""
            cast("InterruptedData", held).is_last = True
            paused.resume_reading()
            await held.until(lambda: held.data == b"data")
            one.abort()
            two.abort()
            await asyncio.gather(first.lost, second.lost)

    run_interrupted(loop, main())


def test_transport_paused_before_connection_made_receives_nothing(loop: Loop) -> None:
    async def main() -> None:
        near, far = tcp_pair()
        protocol = Recorder()
        maker = cast("MakesTransports", loop)
        transport = maker._make_socket_transport(near, protocol)
        transport.pause_reading()
        with far:
            far.send(b"data")
            await turns(10)
            assert protocol.data == b""
            transport.resume_reading()
            await protocol.until(lambda: protocol.data == b"data")
            transport.close()
            await protocol.lost

    run(loop, main())


def test_connection_that_is_reset_before_it_is_made_has_no_peer(loop: Loop) -> None:
    async def main() -> None:
        near, far = tcp_pair()
        reset(far)
        transport, protocol = await loop.connect_accepted_socket(Recorder, near)
        assert transport.get_extra_info("peername") is None
        assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
        assert isinstance(await protocol.lost, ConnectionResetError)

    loop.set_exception_handler(lambda _loop, _context: None)
    run(loop, main())


# ---- writing ---------------------------------------------------------------------


def test_limits_may_be_set_after_the_last_write(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            transport.write(b"x" * BIG)
            transport.write_eof()
            transport.set_write_buffer_limits(high=10)
            assert len(await receive_all(far)) == BIG
            transport.close()
            await protocol.lost

    run(loop, main())


class AbortsWhenResumed(Recorder):
    """Aborts in `resume_writing`."""

    def resume_writing(self) -> None:
        super().resume_writing()
        self.transport.abort()


def test_protocol_may_abort_as_it_is_resumed(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect(AbortsWhenResumed)
        with far:
            transport.write(b"x" * BIG)
            with contextlib.suppress(ConnectionError):
                await receive_all(far)
            assert await protocol.lost is None
        assert protocol.events == ["made", "pause", "resume", "lost"]

    run(loop, main())


class Asks(Recorder):
    """Calls a function in `data_received`."""

    ask: Callable[[], object] = staticmethod(lambda: None)

    def data_received(self, data: bytes) -> None:
        self.answer = self.ask()
        super().data_received(data)


def test_connection_reset_in_this_batch_has_an_empty_write_buffer(
    loop: Loop,
) -> None:
    loop.set_exception_handler(lambda _loop, _context: None)

    async def main() -> None:
        _, asking, far = await connect(Asks)
        other, protocol, lost = await connect()
        with far:
            cast("Asks", asking).ask = other.get_write_buffer_size
            far.send(b"data")
            reset(lost)
            await asking.until(lambda: asking.data == b"data")
            assert cast("Asks", asking).answer == 0
            assert isinstance(await protocol.lost, ConnectionResetError)
            asking.transport.close()
            await asking.lost

    run(loop, main())


# ---- the end while something is gathered ---------------------------------------------


@pytest.mark.parametrize("end", ["close", "abort"])
def test_failed_send_of_gathered_writes_loses_the_connection_once(
    loop: Loop, end: str
) -> None:
    """close() and abort() send first what is gathered; the peer may have gone."""
    reported: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _loop, context: reported.append(context))

    async def main() -> None:
        near, far = socket.socketpair()
        transport, protocol = await loop.connect_accepted_socket(Recorder, near)
        far.close()
        transport.write(b"x")
        assert transport.get_write_buffer_size() == 0  # sends it: EPIPE
        transport.write(b"y")
        getattr(transport, end)()
        await protocol.lost
        await turns()

    run(loop, main())
    assert reported == []


# ---- contexts ------------------------------------------------------------------------


class Resumer(Recorder):
    """Pauses and resumes in its callback, which gives reading another context."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.pause_reading()
        self.transport.resume_reading()


def test_context_of_a_callback_outlives_its_replacement(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect(Resumer)
        with far:
            for number in range(100):
                far.send(b"x")
                await protocol.until(lambda: len(protocol.data) > number)  # noqa: B023 - called at once
            transport.close()
            await protocol.lost

    run(loop, main())
    contextvars.copy_context()  # crashed: the context around the loop was freed
