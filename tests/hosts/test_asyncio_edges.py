"""Transports of asyncio at their edges: what comes too early, too late, or twice."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import tempfile
from typing import TYPE_CHECKING, cast

import pytest
from tests.hosts.asyncio_ends import (
    BIG,
    BOTH,
    SOON,
    Buffered,
    Loop,
    Recorder,
    connect,
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
        """What a loop of asyncio has for itself."""

        def _make_socket_transport(
            self, sock: socket.socket, protocol: asyncio.BaseProtocol
        ) -> asyncio.Transport: ...

    class WaitsForEmpty(Protocol):
        """What a transport has for asyncio's sendfile."""

        def _make_empty_waiter(self) -> asyncio.Future[None]: ...


loop = pytest.fixture(params=BOTH)(make_loop)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# ---- files -----------------------------------------------------------------------


def send_file(
    loop: Loop, transport: asyncio.Transport, file: IO[bytes]
) -> asyncio.Future[int]:
    return asyncio.ensure_future(loop.sendfile(transport, file))


def test_second_file_and_lines_have_to_wait_for_the_first(loop: Loop) -> None:
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


def test_file_that_waits_behind_what_is_written_ends_with_the_connection(
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


def test_end_is_logged_in_debug_mode(
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


def test_buffer_without_room_ends_the_connection(loop: Loop) -> None:
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
    """Has enough after its first buffer."""

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        self.transport.close()


def test_buffered_protocol_that_closes_is_given_no_more(loop: Loop) -> None:
    async def main() -> None:
        protocol = ClosesAtOnce(4)
        _, _, far = await connect(lambda: protocol)
        with far:
            far.send(b"data and more")
            assert await protocol.lost is None
        assert protocol.updates == [4]

    run(loop, main())


class InterruptedData(Recorder):
    """Ctrl-C comes while it is told its data; what comes first pauses the other."""

    other: asyncio.Transport | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.other is None:
            raise KeyboardInterrupt
        self.other.pause_reading()


class InterruptedEnd(Recorder):
    """Ctrl-C comes while it is told the end, the first time."""

    def eof_received(self) -> bool:
        super().eof_received()
        if self.events.count("eof") == 1:
            raise KeyboardInterrupt
        return False


class InterruptedBuffer(Buffered):
    """Ctrl-C comes while it is told how much its buffer holds."""

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        raise KeyboardInterrupt


def run_interrupted(loop: Loop, main: Coroutine[object, object, None]) -> None:
    """Go on with what Ctrl-C has left."""
    task = loop.create_task(asyncio.wait_for(main, SOON))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(task)


@pytest.mark.parametrize("kind", [InterruptedEnd, InterruptedBuffer])
def test_ctrl_c_in_a_protocol_leaves_the_loop(
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


def test_ctrl_c_while_held_data_is_told_leaves_the_loop(loop: Loop) -> None:
    async def main() -> None:
        one, first, far_one = await connect(InterruptedData)
        two, second, far_two = await connect(InterruptedData)
        cast("InterruptedData", first).other = two
        cast("InterruptedData", second).other = one
        with far_one, far_two:
            far_one.send(b"data")
            far_two.send(b"data")
            await turns(10)
            held, told = (second, two) if first.data else (first, one)
            assert held.data == b""
            cast("InterruptedData", held).other = None
            told.resume_reading()
            await held.until(lambda: held.data == b"data")
            one.abort()
            two.abort()
            await asyncio.gather(first.lost, second.lost)

    run_interrupted(loop, main())


def test_transport_paused_before_it_has_begun_holds(loop: Loop) -> None:
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
    """Has waited too long."""

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
    """Asks something when it is told data."""

    ask: Callable[[], object] = staticmethod(lambda: None)

    def data_received(self, data: bytes) -> None:
        self.answer = self.ask()
        super().data_received(data)


def test_connection_that_was_reset_in_this_batch_has_nothing_unsent(
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
