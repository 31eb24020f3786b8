"""Transports in situations where servers lose bytes, hang, or reach the wrong peer.

Each test runs on asyncio's own loop too, or compares with it. If asyncio's own loop
fails, the docstring says so.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
import tempfile
from typing import IO, TYPE_CHECKING, NamedTuple, cast

import pytest
from tests.peers import reset
from tests.python.hosts.asyncio.asyncio_ends import (
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

from fdmux.hosts.asyncio import EventLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Act = Callable[[asyncio.Transport], object]

loop = pytest.fixture(params=BOTH)(make_loop)


@pytest.fixture
def ours() -> Iterator[EventLoop]:
    """Our loop, for tests that asyncio's own loop would fail."""
    made = EventLoop()
    yield made
    made.close()


def nothing_has_come(sock: socket.socket) -> bool:
    """Whether the socket has received no byte and no end of file."""
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    return False


# ---- protocols with a buffer -----------------------------------------------------


class Pauses(Buffered):
    """Pauses reading for a moment after each four bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.data_at_end: bytes | None = None

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        self.transport.pause_reading()
        asyncio.get_running_loop().call_later(0.001, self.transport.resume_reading)

    def eof_received(self) -> None:
        self.data_at_end = self.data


def test_protocol_that_pauses_in_buffer_updated_gets_all_data_in_order(
    loop: Loop,
) -> None:
    async def main() -> None:
        _, protocol, far = await connect(Pauses)
        far.sendall(b"0123456789abcdef")
        far.close()
        assert await protocol.lost is None
        pauses = cast("Pauses", protocol)
        assert pauses.data_at_end == pauses.data == b"0123456789abcdef"
        assert pauses.updates == [4] * 4

    run(loop, main())


class TakesExactly(asyncio.BufferedProtocol):
    """Receives a head and no more, then hands the connection on."""

    def __init__(self) -> None:
        self.head = bytearray(5)
        self.count = 0
        self.handed_on: asyncio.Future[socket.socket] = (
            asyncio.get_running_loop().create_future()
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return memoryview(self.head)[self.count :]

    def buffer_updated(self, nbytes: int) -> None:
        self.count += nbytes
        if self.count == len(self.head):
            self.transport.pause_reading()
            number = os.dup(self.transport.get_extra_info("socket").fileno())
            self.handed_on.set_result(socket.socket(fileno=number))


def test_data_that_a_buffer_cannot_hold_stays_in_the_kernel(loop: Loop) -> None:
    async def main() -> None:
        near, far = tcp_pair()
        running = asyncio.get_running_loop()
        transport, protocol = await running.connect_accepted_socket(TakesExactly, near)
        with far:
            far.send(b"HEA")
            await turns()
            far.send(b"D:and the rest")
            with await protocol.handed_on as own:
                transport.abort()
                await turns()
                own.setblocking(False)
                rest = await running.sock_recv(own, 100)
                assert (bytes(protocol.head), rest) == (b"HEAD:", b"and the rest")
                await running.sock_sendall(own, b"goes on")
                assert await running.sock_recv(far, 100) == b"goes on"

    run(loop, main())


# ---- reused numbers ----------------------------------------------------------------


class Reused(NamedTuple):
    """A connection of asyncio, and another whose socket has the same number."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    far: socket.socket
    stranger: socket.socket
    stranger_far: socket.socket


async def connect_and_reuse_the_number() -> Reused:
    """Close the socket of a connection, as ``with`` does, and reuse its number."""
    near, far = tcp_pair()
    stranger, stranger_far = socket.socketpair()
    with near:
        reader, writer = await asyncio.open_connection(sock=near)
        number = near.fileno()
    with stranger:
        os.dup2(stranger.fileno(), number)
    stranger = socket.socket(fileno=number)
    return Reused(reader, writer, far, stranger, stranger_far)


def test_new_connection_with_the_old_number_gets_no_byte_and_no_end(
    loop: Loop,
) -> None:
    async def main() -> None:
        (
            reader,
            writer,
            far,
            stranger,
            stranger_far,
        ) = await connect_and_reuse_the_number()
        with far, stranger, stranger_far:
            writer.write(b"secret")
            stranger_far.send(b"not for us")
            await turns()
            assert nothing_has_come(stranger_far)
            assert not reader.at_eof()
            writer.transport.abort()
            await turns()
            assert nothing_has_come(stranger_far)
            assert stranger.recv(100) == b"not for us"

    run(loop, main())


def test_connection_goes_on_when_its_number_is_reused(ours: EventLoop) -> None:
    """asyncio's own loop fails here."""

    async def main() -> None:
        (
            reader,
            writer,
            far,
            stranger,
            stranger_far,
        ) = await connect_and_reuse_the_number()
        other_reader, other_writer = await asyncio.open_connection(sock=stranger)
        with far, stranger_far:
            writer.write(b"to mine")
            other_writer.write(b"to the other")
            assert await receive_size(far, 7) == b"to mine"
            assert stranger_far.recv(100) == b"to the other"
            far.send(b"from mine")
            stranger_far.send(b"from the other")
            assert await reader.readexactly(9) == b"from mine"
            assert await other_reader.readexactly(14) == b"from the other"
            for one in (writer, other_writer):
                one.close()
                await one.wait_closed()

    run(ours, main())


class Counting(socket.socket):
    """Overrides methods, as a socket that encrypts does."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(fileno=sock.detach())
        self.setblocking(False)

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override] # fewer overloads than typeshed has
        return super().send(bytes(data).upper(), flags)

    def recv(self, size: int, flags: int = 0) -> bytes:
        return super().recv(size, flags).lower()


def test_methods_of_a_subclass_of_socket_are_called(loop: Loop) -> None:
    async def main() -> None:
        near, far = tcp_pair()
        _, protocol = await asyncio.get_running_loop().create_connection(
            Recorder, sock=Counting(near)
        )
        with far:
            protocol.transport.write(b"sent")
            assert await receive_size(far, 4) == b"SENT"
            far.send(b"CAME")
            await protocol.until(lambda: len(protocol.data) == 4)
            assert protocol.data == b"came"
            protocol.transport.abort()
            await protocol.lost

    run(loop, main())


# ---- what is written -------------------------------------------------------------


def wide(count: int) -> memoryview:
    return memoryview(array.array("d", range(count)))


@pytest.mark.parametrize(
    "make",
    [wide, lambda count: wide(count).cast("B").cast("d", (count // 4, 4))],
    ids=["doubles", "two dimensions"],
)
def test_items_wider_than_a_byte_are_counted_in_bytes(
    make: Callable[[int], memoryview], ours: EventLoop
) -> None:
    """asyncio's own loop counts items in place of bytes, and loses some."""
    data = make(BIG // 8)

    async def main(file: IO[bytes]) -> None:
        transport, protocol, far = await connect()
        with far:
            transport.write(data)
            left = transport.get_write_buffer_size()
            assert 0 < left <= data.nbytes
            sending = asyncio.ensure_future(ours.sendfile(transport, file))
            assert await receive_size(far, BIG + 4) == data.tobytes() + b"file"
            assert await sending == 4
            assert transport.get_write_buffer_size() == 0
            transport.writelines([data[:0], make(100), b"end"])
            assert await receive_size(far, 803) == make(100).tobytes() + b"end"
            transport.close()
            assert await protocol.lost is None

    with tempfile.TemporaryFile() as file:
        file.write(b"file")
        file.seek(0)
        run(ours, main(file))


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_shutdown_of_the_socket_sends_queued_bytes_first(how: int, loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            transport.write(b"last words")
            transport.get_extra_info("socket").shutdown(how)
            assert await receive_all(far) == b"last words"
            transport.abort()
            await protocol.lost

    run(loop, main())


def test_shutdown_of_the_socket_sends_many_queued_bytes_first(
    ours: EventLoop,
) -> None:
    """asyncio's own loop loses bytes that the kernel does not take at once."""

    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            transport.write(b"x" * BIG)
            transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
            assert len(await receive_all(far)) == BIG
            far.send(b"still heard")
            await protocol.until(lambda: len(protocol.data) == 11)
            transport.close()
            assert await protocol.lost is None

    run(ours, main())


# ---- files -----------------------------------------------------------------------

ENDS: dict[str, Callable[[asyncio.Transport, socket.socket], object]] = {
    "close": lambda transport, _far: transport.close(),
    "abort": lambda transport, _far: transport.abort(),
    "reset": lambda _transport, far: reset(far),
}


def number_of(transport: asyncio.Transport) -> int:
    return cast("socket.socket", transport.get_extra_info("socket")).fileno()


async def send_at_number(number: int, file: IO[bytes]) -> None:
    """Send a file through a new connection that has this number."""
    made: list[tuple[asyncio.Transport, Recorder, socket.socket]] = []
    while not made or number_of(made[-1][0]) != number:
        made.append(await connect())
        assert len(made) < 20
    transport, _, far = made[-1]
    file.seek(0)
    sending = asyncio.ensure_future(
        asyncio.get_running_loop().sendfile(transport, file)
    )
    assert len(await receive_size(far, BIG)) == BIG
    assert await sending == BIG
    for transport, protocol, far in made:
        with far:
            transport.abort()
            await protocol.lost


@pytest.mark.parametrize("way", ENDS)
@pytest.mark.parametrize("moment", ["before", "behind a queue", "middle", "after"])
def test_end_of_the_connection_ends_its_sendfile_and_frees_the_number(
    moment: str, way: str, ours: EventLoop
) -> None:
    """asyncio's own loop goes on to wait for the number."""

    async def main(file: IO[bytes]) -> None:
        transport, protocol, far = await connect()
        number = number_of(transport)
        if moment == "behind a queue":
            transport.write(b"x" * BIG)
        sending = asyncio.ensure_future(ours.sendfile(transport, file))
        if moment != "before":
            await turns()
        if moment == "middle":
            await receive_size(far, 100_000)
        if moment == "after":
            await receive_size(far, BIG)
            assert await sending == BIG
        ENDS[way](transport, far)
        if moment == "behind a queue" and way == "close":
            assert await receive_all(far) == b"x" * BIG  # and nothing of the file
        if moment != "after":
            with pytest.raises((OSError, RuntimeError)):
                await sending
        await protocol.lost
        far.close()
        await turns()
        await send_at_number(number, file)

    with tempfile.TemporaryFile() as file:
        file.truncate(BIG)
        run(ours, main(file))


# ---- compared with asyncio's own loop -----------------------


class Outcome(NamedTuple):
    """The result of a test on one loop."""

    error: tuple[str, str] | None
    reports: object


def outcome_of(act: Callable[[], object], reports: object = None) -> Outcome:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - any error is compared
        return Outcome((type(error).__name__, str(error)), reports)
    return Outcome(None, reports)


def on_both(main: Callable[[Loop], Outcome]) -> list[Outcome]:
    """Run on asyncio's own loop and on ours; return both results."""
    outcomes = []
    for make in (asyncio.SelectorEventLoop, EventLoop):
        made = make()
        try:
            outcomes.append(main(made))
        finally:
            made.close()
    return outcomes


AFTER_CLOSE: dict[str, Act] = {
    "close": asyncio.Transport.close,
    "abort": asyncio.Transport.abort,
    "pause": asyncio.Transport.pause_reading,
    "resume": asyncio.Transport.resume_reading,
    "write": lambda transport: transport.write(b"late"),
    "write much": lambda transport: transport.write(b"x" * BIG),
    "writelines": lambda transport: transport.writelines([b"lat", b"e"]),
    "write_eof": asyncio.Transport.write_eof,
    "set_protocol": lambda transport: transport.set_protocol(asyncio.Protocol()),
    "is_reading": asyncio.Transport.is_reading,
    "is_closing": asyncio.Transport.is_closing,
    "get_write_buffer_size": asyncio.Transport.get_write_buffer_size,
    "repr": repr,
}


@pytest.mark.parametrize("is_paused", [False, True], ids=["reading", "paused"])
@pytest.mark.parametrize("act", AFTER_CLOSE)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_transport_of_a_closed_loop_behaves_as_in_asyncio(
    act: str, *, is_paused: bool
) -> None:
    def main(loop: Loop) -> Outcome:
        near, far = tcp_pair()
        with far, near:
            transport, _ = loop.run_until_complete(
                loop.connect_accepted_socket(asyncio.Protocol, near.dup())
            )
            if is_paused:
                transport.pause_reading()
            loop.close()
            return outcome_of(lambda: AFTER_CLOSE[act](transport))

    stock, ours = on_both(main)
    assert ours == stock


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the transport, in both
def test_factory_that_returns_none_fails_as_in_asyncio() -> None:
    def main(loop: Loop) -> Outcome:
        near, far = tcp_pair()
        with far, near:
            make = cast("Callable[[], asyncio.Protocol]", lambda: None)
            return outcome_of(
                lambda: loop.run_until_complete(loop.create_connection(make, sock=near))
            )

    stock, ours = on_both(main)
    assert ours == stock
    assert stock.error is not None


class WriteOnly(asyncio.BaseProtocol):
    """Has no `data_received`, and no `eof_received`."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[Exception | None] = (
            asyncio.get_running_loop().create_future()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


PEERS: dict[str, Callable[[socket.socket], object]] = {
    "sends": lambda far: far.send(b"x"),
    "closes": socket.socket.close,
}


@pytest.mark.parametrize("way", ["made with", "set later"])
@pytest.mark.parametrize("peer", PEERS)
def test_protocol_without_data_received_behaves_as_in_asyncio(
    peer: str, way: str
) -> None:
    def main(loop: Loop) -> Outcome:
        reports: list[str] = []
        loop.set_exception_handler(
            lambda _, context: reports.append(
                f"{context['message']}{context['exception']}"
            )
        )

        async def connect_and_lose() -> None:
            near, far = tcp_pair()
            with far:
                protocol = WriteOnly()
                first: asyncio.BaseProtocol = protocol
                if way == "set later":
                    first = asyncio.Protocol()
                running = asyncio.get_running_loop()
                transport, _ = await running.connect_accepted_socket(
                    lambda: first, near
                )
                transport.set_protocol(protocol)
                await turns()
                PEERS[peer](far)
                error = await asyncio.wait_for(protocol.lost, SOON)
                reports.append(repr(error))

        return outcome_of(lambda: loop.run_until_complete(connect_and_lose()), reports)

    stock, ours = on_both(main)
    assert ours == stock
    assert stock.error is None
