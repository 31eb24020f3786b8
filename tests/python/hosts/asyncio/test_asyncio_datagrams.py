"""`create_datagram_endpoint` on our loop does as on asyncio's own."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import sys
import weakref
from typing import TYPE_CHECKING, cast

import pytest
from tests.python.hosts.asyncio.asyncio_ends import BOTH, SOON, Loop, make_loop, run

from fdmux._ffi import lib
from fdmux.hosts.asyncio import EventLoop
from fdmux.hosts.asyncio.datagrams import DatagramTransport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Address = tuple[str, int]

    class Flowing(asyncio.DatagramTransport):
        """With what asyncio's own has, and does not document."""

        def set_write_buffer_limits(
            self, high: int | None = None, low: int | None = None
        ) -> None: ...
        def get_write_buffer_size(self) -> int: ...


loop = pytest.fixture(params=BOTH)(make_loop)

LOOPBACK = ("127.0.0.1", 0)


class Recorder(asyncio.DatagramProtocol):
    """Records its calls, and lets a test wait for them."""

    transport: asyncio.DatagramTransport

    def __init__(self, answer: Callable[[bytes], bytes | None] | None = None) -> None:
        self.answer = answer
        self.events: list[tuple[object, ...]] = []
        self.changed = asyncio.Event()

    def note(self, *event: object) -> None:
        self.events.append(event)
        self.changed.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)
        self.note("made")

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.note(data, addr)
        answer = None if self.answer is None else self.answer(data)
        if answer is not None:
            self.transport.sendto(answer, cast("Address", addr))

    def error_received(self, exc: Exception) -> None:
        self.note("error", type(exc), str(exc))

    def connection_lost(self, exc: Exception | None) -> None:
        self.note("lost", exc)

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def data(self) -> list[object]:
        """The bytes of all datagrams."""
        return [event[0] for event in self.events if isinstance(event[0], bytes)]

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), SOON)


async def bound(
    answer: Callable[[bytes], bytes | None] | None = None,
) -> tuple[asyncio.DatagramTransport, Recorder]:
    """An endpoint that is bound to a port of loopback."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: Recorder(answer), local_addr=LOOPBACK
    )
    return transport, protocol


async def connected(
    address: object,
) -> tuple[asyncio.DatagramTransport, Recorder]:
    """An endpoint that is connected to ``address``."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        Recorder, remote_addr=cast("Address", address)
    )
    return transport, protocol


def address_of(transport: asyncio.BaseTransport) -> Address:
    return cast("Address", transport.get_extra_info("sockname"))


def test_our_loop_has_our_transport() -> None:
    async def main() -> None:
        transport, _protocol = await bound()
        assert type(transport) is DatagramTransport
        transport.close()

    ours = EventLoop()
    run(ours, main())
    ours.close()


def test_datagrams_are_echoed_with_their_addresses(loop: Loop) -> None:
    async def main() -> None:
        server, received = await bound(bytes.upper)
        client, answered = await connected(address_of(server))
        for data in (b"one", bytearray(b"two"), memoryview(b"three")):
            client.sendto(data)
        client.sendto(b"four", address_of(server))
        client.sendto(b"five", addr=address_of(server))
        await answered.until(lambda: len(answered.data()) == 5)
        where = address_of(server)
        words = (b"ONE", b"TWO", b"THREE", b"FOUR", b"FIVE")
        assert answered.events == [("made",), *((word, where) for word in words)]
        assert received.events[1] == (b"one", address_of(client))
        server.close()
        client.close()
        await answered.until(lambda: ("lost", None) in answered.events)

    run(loop, main())


def test_many_clients_get_their_own_answers(loop: Loop) -> None:
    async def main() -> None:
        server, _received = await bound(lambda data: data * 2)
        ends = [await connected(address_of(server)) for _ in range(20)]
        for number, (client, _protocol) in enumerate(ends):
            for _ in range(10):
                client.sendto(b"%d," % number)
        for number, (client, protocol) in enumerate(ends):
            await protocol.until(lambda: len(protocol.data()) == 10)  # noqa: B023 - runs now
            assert set(protocol.data()) == {b"%d,%d," % (number, number)}
            client.close()
        server.close()

    run(loop, main())


def test_names_are_resolved_by_asyncio(loop: Loop) -> None:
    async def main() -> None:
        server, received = await bound()
        client, _protocol = await bound()
        client.sendto(b"first", address_of(server))
        client.sendto(b"name", ("localhost", address_of(server)[1]))
        await received.until(lambda: len(received.data()) == 2)
        assert received.data() == [b"first", b"name"]
        server.close()
        client.close()

    run(loop, main())


def test_empty_datagrams_are_as_in_this_python(loop: Loop) -> None:
    async def main() -> None:
        server, received = await bound()
        client, _protocol = await bound()
        client.sendto(b"", address_of(server))
        client.sendto(b"x", address_of(server))
        await received.until(lambda: b"x" in received.data())
        events.append(received.data())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", address_of(server))  # these arrive in any case
            await received.until(lambda: received.data()[-1] == b"")
        server.close()
        client.close()

    events: list[list[object]] = []
    run(loop, main())
    stock = asyncio.SelectorEventLoop()
    run(stock, main())
    stock.close()
    assert events[0] == events[1]


def test_refusal_of_a_peer_is_an_error_of_a_connected_endpoint(loop: Loop) -> None:
    async def main() -> None:
        server, _received = await bound()
        where = address_of(server)
        server.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        client, protocol = await connected(where)
        client.sendto(b"anybody?")
        await protocol.until(lambda: len(protocol.events) == 2)
        text = "[Errno 111] Connection refused"
        assert protocol.events[1] == ("error", ConnectionRefusedError, text)
        client.close()

    run(loop, main())


def test_datagram_that_is_too_long_is_an_error(loop: Loop) -> None:
    async def main() -> None:
        client, protocol = await bound()
        client.sendto(bytes(70_000), address_of(client))
        await protocol.until(lambda: len(protocol.events) == 2)
        text = "[Errno 90] Message too long"
        assert protocol.events[1] == ("error", OSError, text)
        assert not client.is_closing()
        client.close()

    run(loop, main())


@pytest.mark.parametrize(
    ("data", "addr", "kind", "text"),
    [
        ("text", None, TypeError, "data argument must be a bytes-like object"),
        (b"x", ("127.0.0.1", 1), ValueError, "Invalid address: must be None or"),
    ],
)
def test_wrong_arguments_are_refused_as_by_asyncio(
    data: bytes, addr: Address | None, kind: type[Exception], text: str, loop: Loop
) -> None:
    async def main() -> None:
        client, _protocol = await connected(("127.0.0.1", 9))
        with pytest.raises(kind, match=text):
            client.sendto(data, addr)
        with pytest.raises(TypeError):
            client.sendto(b"x", nonsense=1)  # type: ignore[call-arg] # a wrong one
        with pytest.raises(TypeError):
            client.sendto()  # type: ignore[call-arg] # a wrong one
        client.close()

    run(loop, main())


def test_impossible_address_ends_the_transport_as_by_asyncio(loop: Loop) -> None:
    async def main() -> None:
        contexts: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: contexts.append(context)
        )
        client, protocol = await bound()
        client.sendto(b"x", cast("Address", 7))
        await protocol.until(lambda: protocol.events[-1][0] == "lost")
        assert isinstance(protocol.events[-1][1], TypeError)
        assert [context["message"] for context in contexts] == [
            "Fatal write error on datagram transport"
        ]

    run(loop, main())


def test_exception_of_the_protocol_goes_to_the_handler(loop: Loop) -> None:
    def fail(data: bytes) -> bytes:
        if data == b"bad":
            raise ValueError("a bad datagram")
        return data

    async def main() -> None:
        contexts: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: contexts.append(context)
        )
        server, _received = await bound(fail)
        client, answered = await connected(address_of(server))
        for data in (b"bad", b"good"):
            client.sendto(data)
        await answered.until(answered.data)
        assert answered.data() == [b"good"]
        (context,) = contexts
        assert isinstance(context["exception"], ValueError)
        assert str(context["message"]).startswith("Exception in callback ")
        assert "_read_ready" in str(context["message"])
        server.close()
        client.close()

    run(loop, main())


def test_keyboard_interrupt_leaves_the_loop(loop: Loop) -> None:
    def stop(_data: bytes) -> bytes:
        raise KeyboardInterrupt

    async def main() -> None:
        server, _received = await bound(stop)
        client, _answered = await connected(address_of(server))
        ends.extend((server, client))
        client.sendto(b"stop")
        await asyncio.sleep(SOON)

    async def finish() -> None:
        for end in ends:
            end.close()
        await asyncio.sleep(0)

    ends: list[asyncio.DatagramTransport] = []
    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    task.cancel()
    run(loop, finish())


# ---- flow ------------------------------------------------------------------------


def full_pair(folder: Path) -> tuple[socket.socket, socket.socket]:
    """A Unix socket, and its peer; the kernel takes only a few datagrams for it."""
    here, there = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in "ab")
    path = str(folder / f"peer{len(list(folder.iterdir()))}")
    there.bind(path)
    there.setblocking(False)
    here.connect(path)
    return here, there


async def fill(transport: asyncio.DatagramTransport, protocol: Recorder) -> int:
    """Send until the protocol is paused; return how many datagrams."""
    sent = 0
    while ("pause",) not in protocol.events:
        transport.sendto(b"%d" % sent)
        sent += 1
        assert sent < 5000
        if sent % 50 == 0:
            await asyncio.sleep(0)
    return sent


def drain(sock: socket.socket) -> list[bytes]:
    received = []
    try:
        while True:
            received.append(sock.recv(100))
    except BlockingIOError:
        return received


def test_protocol_is_paused_and_resumed_and_nothing_is_lost(
    loop: Loop, tmp_path: Path
) -> None:
    if not isinstance(loop, EventLoop) and sys.version_info >= (3, 13):
        pytest.skip("asyncio adds 8 bytes for each datagram and never subtracts them")

    async def main() -> None:
        here, there = full_pair(tmp_path)
        running = asyncio.get_running_loop()
        made, protocol = await running.create_datagram_endpoint(Recorder, sock=here)
        transport = cast("Flowing", made)
        transport.set_write_buffer_limits(high=500, low=100)
        sent = await fill(transport, protocol)
        assert transport.get_write_buffer_size() > 500
        received = drain(there)
        while ("resume",) not in protocol.events:
            await asyncio.sleep(0.001)
            received += drain(there)
        while len(received) < sent:
            await asyncio.sleep(0.001)
            received += drain(there)
        assert received == [b"%d" % number for number in range(sent)]
        assert transport.get_write_buffer_size() == 0
        transport.close()
        there.close()

    run(loop, main())


def test_close_sends_what_is_queued_and_abort_does_not(
    loop: Loop, tmp_path: Path
) -> None:
    async def main(end: str) -> None:
        here, there = full_pair(tmp_path)
        running = asyncio.get_running_loop()
        made, protocol = await running.create_datagram_endpoint(Recorder, sock=here)
        transport = cast("Flowing", made)
        transport.set_write_buffer_limits(high=500)
        sent = await fill(transport, protocol)
        getattr(transport, end)()
        transport.close()
        assert transport.is_closing()
        received = drain(there)
        while ("lost", None) not in protocol.events:
            await asyncio.sleep(0.001)
            received += drain(there)
        assert (len(received) == sent) == (end == "close")
        assert here.fileno() == -1
        there.close()

    run(loop, main("close"))
    run(loop, main("abort"))


@pytest.mark.parametrize(
    ("high", "low"), [(0, 0), (10.5, 1.5), (2**70, 0), (float("inf"), 5), (None, None)]
)
def test_limits_may_be_any_numbers(high: int | None, low: int, loop: Loop) -> None:
    async def main() -> None:
        client, protocol = await bound()
        client.set_write_buffer_limits(high, low)  # type: ignore[attr-defined] # it has
        client.sendto(b"x", address_of(client))
        await protocol.until(protocol.data)
        client.close()

    run(loop, main())


# ---- reading ---------------------------------------------------------------------


def test_reading_is_paused_and_resumed(loop: Loop) -> None:
    async def main() -> None:
        made, received = await bound()
        server = cast("asyncio.Transport", made)  # asyncio's own has these, too
        client, _protocol = await connected(address_of(server))
        server.pause_reading()
        server.pause_reading()
        assert not server.is_reading()
        client.sendto(b"waits")
        for _ in range(5):
            await asyncio.sleep(0)
        assert received.data() == []
        server.resume_reading()
        await received.until(received.data)
        assert "read=polling" in repr(server)
        server.close()
        client.close()

    run(loop, main())


def test_another_protocol_takes_over(loop: Loop) -> None:
    async def main() -> None:
        server, first = await bound()
        client, _protocol = await connected(address_of(server))
        second = Recorder()
        server.set_protocol(second)
        assert server.get_protocol() is second
        client.sendto(b"for the second")
        await second.until(second.data)
        assert first.data() == []
        server.close()
        client.close()

    run(loop, main())


def test_closed_transport_gets_and_sends_nothing_more(loop: Loop) -> None:
    async def main() -> None:
        server, received = await bound()
        client, _protocol = await connected(address_of(server))
        client.sendto(b"too late")
        server.close()
        for _ in range(3):
            await asyncio.sleep(0)
        assert received.events == [("made",), ("lost", None)]
        assert "closed" in repr(server)
        client.close()
        client.sendto(b"ignored")
        client.close()
        await asyncio.sleep(0)

    run(loop, main())


def test_protocol_may_close_in_its_callback(loop: Loop) -> None:
    async def main() -> None:
        server, received = await bound()
        received.answer = lambda _data: server.close()
        client, _protocol = await connected(address_of(server))
        for data in (b"one", b"two", b"three"):
            client.sendto(data)
        await received.until(lambda: ("lost", None) in received.events)
        assert received.data() == [b"one"]
        client.close()

    run(loop, main())


def test_callbacks_run_in_the_context_of_their_maker(loop: Loop) -> None:
    import contextvars  # noqa: PLC0415 - here alone

    variable = contextvars.ContextVar("variable", default="outside")

    async def main() -> None:
        variable.set("inside")
        server, received = await bound()
        received.answer = lambda _data: received.note(variable.get())
        variable.set("later")
        client, _protocol = await connected(address_of(server))
        client.sendto(b"x")
        await received.until(lambda: ("inside",) in received.events)
        server.close()
        client.close()

    run(loop, main())


# ---- sockets ---------------------------------------------------------------------


def test_unix_paths_have_datagrams(loop: Loop, tmp_path: Path) -> None:
    async def main() -> None:
        running = asyncio.get_running_loop()
        server, _received = await running.create_datagram_endpoint(
            lambda: Recorder(bytes.upper),
            local_addr=str(tmp_path / "server"),
            family=socket.AF_UNIX,
        )
        client, answered = await running.create_datagram_endpoint(
            Recorder,
            local_addr=str(tmp_path / "client"),
            remote_addr=str(tmp_path / "server"),
            family=socket.AF_UNIX,
        )
        large = bytes(100_000)
        client.sendto(b"unix")
        client.sendto(large)
        await answered.until(lambda: len(answered.data()) == 2)
        assert answered.events[1] == (b"UNIX", str(tmp_path / "server"))
        assert answered.data()[1] == large
        server.close()
        client.close()

    run(loop, main())


def test_broadcasts_are_allowed_on_request(loop: Loop) -> None:
    async def main() -> None:
        running = asyncio.get_running_loop()
        made, _protocol = await running.create_datagram_endpoint(
            Recorder, local_addr=LOOPBACK, allow_broadcast=True
        )
        sock = made.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) == 1
        made.close()
        refused, protocol = await bound()
        refused.sendto(b"x", ("255.255.255.255", 9))
        await protocol.until(lambda: len(protocol.events) == 2)
        assert protocol.events[1][:2] == ("error", PermissionError)
        refused.close()

    run(loop, main())


def test_socket_of_a_subclass_is_left_to_asyncio() -> None:
    class Own(socket.socket):
        def recvfrom(self, *arguments: object) -> tuple[bytes, object]:
            calls.append(arguments)
            return super().recvfrom(*arguments)  # type: ignore[arg-type] # as given

    async def main() -> None:
        sock = Own(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(LOOPBACK)
        running = asyncio.get_running_loop()
        made, protocol = await running.create_datagram_endpoint(Recorder, sock=sock)
        assert type(made) is not DatagramTransport
        made.sendto(b"x", address_of(made))
        await protocol.until(protocol.data)
        made.close()

    calls: list[object] = []
    ours = EventLoop()
    run(ours, main())
    ours.close()
    assert calls


def test_sock_methods_are_asyncios_own(loop: Loop) -> None:
    async def main() -> None:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
        ):
            for sock in (one, two):
                sock.setblocking(False)
                sock.bind(LOOPBACK)
            running = asyncio.get_running_loop()
            await running.sock_sendto(one, b"first", two.getsockname())
            assert await running.sock_recvfrom(two, 10) == (b"first", one.getsockname())
            await running.sock_sendto(one, b"second", two.getsockname())
            buffer = bytearray(10)
            size, sender = await running.sock_recvfrom_into(two, buffer)
            assert (bytes(buffer[:size]), sender) == (b"second", one.getsockname())

    run(loop, main())


# ---- ours alone ------------------------------------------------------------------


@pytest.fixture
def ours() -> object:
    loop = EventLoop()
    yield loop
    loop.close()


@pytest.mark.faults
def test_socket_that_fails_ends_the_transport(ours: Loop) -> None:
    async def main() -> None:
        server, received = await bound()
        client, _protocol = await connected(address_of(server))
        client.sendto(b"x")
        lib.fdmux_testing_fail(lib.FDMUX_CALL_RECVMMSG, 1, errno.EIO, 0)
        await received.until(lambda: received.events[-1][0] == "lost")
        lost = received.events[-1][1]
        assert isinstance(lost, OSError)
        assert lost.errno == errno.EIO
        client.close()

    run(ours, main())


@pytest.mark.faults
def test_socket_that_c_cannot_watch_is_left_to_asyncio(ours: Loop) -> None:
    async def main() -> None:
        first, protocol = await bound()
        first.sendto(b"x", address_of(first))
        await protocol.until(protocol.data)
        lib.fdmux_testing_fail(lib.FDMUX_CALL_EPOLL_CTL, 1, errno.ENOSPC, 0)
        second, protocol = await bound()
        assert (first._is_begun, second._is_begun) == (True, False)  # type: ignore[attr-defined] # ours
        second.sendto(b"y", address_of(second))
        await protocol.until(protocol.data)
        first.close()
        second.close()

    run(ours, main())


@pytest.mark.faults
def test_error_in_the_queue_is_told(ours: Loop) -> None:
    async def main() -> None:
        client, protocol = await bound()
        kinds = lib.FDMUX_CALL_SEND | lib.FDMUX_CALL_SENDMMSG
        lib.fdmux_testing_fail(kinds, 1, errno.EAGAIN, 0)
        client.sendto(bytes(70_000), address_of(client))
        client.sendto(b"behind", address_of(client))
        client.close()
        await protocol.until(lambda: ("lost", None) in protocol.events)
        assert protocol.events[-1] == ("lost", None)

    run(ours, main())


def test_transport_is_freed_when_it_is_closed(ours: Loop) -> None:
    async def main() -> weakref.ref[asyncio.DatagramTransport]:
        transport, _protocol = await bound()
        gone = weakref.ref(transport)
        transport.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return gone

    gone = ours.run_until_complete(main())
    gc.collect()
    assert gone() is None


def test_forked_child_leaves_the_socket_to_its_parent(ours: Loop) -> None:
    async def main() -> None:
        server, received = await bound()
        child = os.fork()
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222 - it ends at once
        server.sendto(b"parent", address_of(server))
        await received.until(received.data)
        server.close()

    run(ours, main())


# ---- order -----------------------------------------------------------------------


def test_ready_callbacks_come_before_what_has_arrived(loop: Loop) -> None:
    async def main() -> tuple[asyncio.DatagramTransport, Recorder]:
        return await bound()

    async def listen(protocol: Recorder) -> None:
        protocol.note("listening")
        await protocol.until(protocol.data)

    server, received = loop.run_until_complete(main())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"a", address_of(server))
    loop.run_until_complete(listen(received))
    assert [event[0] for event in received.events] == ["made", "listening", b"a"]
    server.close()
    run(loop, asyncio.sleep(0))


def test_each_datagram_is_handled_before_the_next(loop: Loop) -> None:
    """What a datagram has made ready runs first: here the answer of a task."""

    async def main() -> None:
        server, received = await bound()
        arrived: list[asyncio.Future[bytes]] = [loop.create_future()]

        def answer(data: bytes) -> None:
            arrived[0].set_result(data)

        received.answer = answer
        client, _protocol = await connected(address_of(server))
        for number in range(200):
            client.sendto(b"%d" % number)
        for number in range(200):
            assert await arrived[0] == b"%d" % number
            arrived[0] = loop.create_future()
        server.close()
        client.close()

    run(loop, main())


# ---- other threads ---------------------------------------------------------------


WAY_OUT = r"another thread.*call_soon_threadsafe\(\)"
USES: dict[str, Callable[[DatagramTransport, Address], object]] = {
    "sendto": lambda transport, address: transport.sendto(b"x", address),
    "close": lambda transport, _: transport.close(),
    "abort": lambda transport, _: transport.abort(),
    "pause": lambda transport, _: transport.pause_reading(),
    "resume": lambda transport, _: transport.resume_reading(),
    "limits": lambda transport, _: transport.set_write_buffer_limits(1),
}


@pytest.mark.parametrize("loop", ["ours"], indirect=True)
@pytest.mark.parametrize("name", USES)
def test_use_by_another_thread_is_refused_and_the_endpoint_goes_on(
    loop: Loop, name: str
) -> None:
    async def main() -> None:
        transport, protocol = await bound(lambda data: data.upper())
        address = transport.get_extra_info("sockname")
        with pytest.raises(RuntimeError, match=WAY_OUT):
            await asyncio.to_thread(
                USES[name], cast("DatagramTransport", transport), address
            )
        client, answers = await bound()
        client.sendto(b"as before", address)
        await answers.until(answers.data)
        assert answers.data() == [b"AS BEFORE"]
        for each in (client, transport):
            each.close()
        await protocol.until(lambda: ("lost", None) in protocol.events)

    run(loop, main())


def test_deferred_datagrams_wait_while_reading_is_paused(loop: Loop) -> None:
    async def main() -> None:
        made, received = await bound()
        server = cast("asyncio.Transport", made)  # asyncio's own has these, too

        def pause(_data: bytes) -> None:
            server.pause_reading()
            loop.call_soon(received.note, "paused")

        received.answer = pause
        client, _protocol = await connected(address_of(server))
        for data in (b"one", b"two", b"three"):
            client.sendto(data)
        for count in (1, 2, 3):
            await received.until(lambda: len(received.data()) == count)  # noqa: B023 - runs now
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(received.data()) == count
            server.resume_reading()
        client.sendto(b"four")
        await received.until(lambda: len(received.data()) == 4)
        server.close()
        client.close()

    run(loop, main())


# ---- Ctrl-C ------------------------------------------------------------------------


class Abrupt(Recorder):
    """Is interrupted when it is paused."""

    def pause_writing(self) -> None:
        super().pause_writing()
        raise KeyboardInterrupt


def test_ctrl_c_in_pause_writing_leaves_the_loop(loop: Loop, tmp_path: Path) -> None:
    here, there = full_pair(tmp_path)

    async def begin() -> tuple[asyncio.DatagramTransport, Abrupt]:
        return await loop.create_datagram_endpoint(Abrupt, sock=here)

    transport, protocol = loop.run_until_complete(begin())
    cast("Flowing", transport).set_write_buffer_limits(high=500, low=100)
    filling = loop.create_task(fill(transport, protocol))
    late = loop.call_later(SOON, loop.stop)
    with there, pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    late.cancel()
    assert ("pause",) in protocol.events
    filling.cancel()
    transport.abort()
    run(loop, protocol.until(lambda: ("lost", None) in protocol.events))
