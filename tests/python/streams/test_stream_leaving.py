"""When written data is sent: as the callback returns, or at once."""

from __future__ import annotations

import array
import socket
from typing import TYPE_CHECKING

import pytest
from tests.peers import receive
from tests.python.streams.recorder import LONG, Recorder, run_until, shrink_buffers

from fdmux import SelectorEventLoop, StreamServer
from fdmux.streams.client import add_stream
from fdmux.streams.stream import Stream, StreamHandler

if TYPE_CHECKING:
    Items = array.array[int] | array.array[float] | memoryview


def receive_now(sock: socket.socket) -> bytes:
    """Return what has arrived by now, or nothing."""
    timeout = sock.gettimeout()
    sock.setblocking(False)
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return b""
    finally:
        sock.settimeout(timeout)


@pytest.mark.parametrize("is_returned", [True, False])
def test_answer_does_not_wait_for_the_callback_of_another_stream(
    loop: SelectorEventLoop, handler: Recorder, is_returned: bool
) -> None:
    pairs = [socket.socketpair() for _ in range(5)]
    arrived: list[int] = []

    def answer(stream: Stream, data: bytes) -> bytes | None:
        arrived.append(sum(len(receive_now(ours)) for ours, _theirs in pairs))
        if is_returned:
            return data
        stream.write(data)
        return None

    handler.answer = answer
    for ours, theirs in pairs:
        add_stream(loop, theirs, handler)
        ours.sendall(b"x")
    run_until(loop, lambda: len(arrived) == 5)
    assert arrived == [0, 1, 1, 1, 1]
    for ours, _theirs in pairs:
        ours.close()
    run_until(loop, lambda: len(handler.errors) == 5)


@pytest.mark.usefixtures("stream")
def test_small_writes_of_a_callback_leave_together_as_it_returns(
    loop: SelectorEventLoop, peer: socket.socket, handler: Recorder
) -> None:
    meanwhile: list[bytes] = []

    def answer(stream: Stream, _data: bytes) -> bytes:
        stream.write(b"one ")
        stream.writelines([b"two ", b"three "])
        meanwhile.append(receive_now(peer))
        return b"four"

    handler.answer = answer
    peer.sendall(b"x")
    run_until(loop, lambda: handler.data)
    assert meanwhile == [b""]
    assert peer.recv(99) == b"one two three four"  # of one sendmsg


@pytest.mark.usefixtures("stream")
def test_64_kib_do_not_wait_for_the_end_of_the_callback(
    loop: SelectorEventLoop, peer: socket.socket, handler: Recorder
) -> None:
    meanwhile: list[bytes] = []

    def answer(stream: Stream, _data: bytes) -> None:
        stream.write(b"x")
        stream.write(bytes(64 * 1024 - 1))
        meanwhile.append(peer.recv(1))

    handler.answer = answer
    peer.sendall(b"x")
    run_until(loop, lambda: handler.data)
    assert meanwhile == [b"x"]
    assert receive(peer, 64 * 1024 - 1) == bytes(64 * 1024 - 1)


def test_written_to_a_stream_by_a_callback_of_another_leaves_as_it_returns(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream
) -> None:
    class Teller(StreamHandler):
        def on_data(self, _stream: Stream, data: bytes) -> None:
            stream.write(data)

        def on_close(self, _stream: Stream, _error: Exception | None) -> None:
            stream.write(b", end")

    ours, theirs = socket.socketpair()
    with ours:
        add_stream(loop, theirs, Teller())
        ours.sendall(b"data")
        run_until(loop, lambda: stream.sent)
        assert peer.recv(9) == b"data"
    run_until(loop, lambda: stream.sent > 4)
    assert peer.recv(9) == b", end"


@pytest.mark.usefixtures("stream")
def test_asking_what_is_buffered_sends_first(
    loop: SelectorEventLoop, peer: socket.socket, handler: Recorder
) -> None:
    seen: list[tuple[int, int, bytes]] = []

    def answer(stream: Stream, _data: bytes) -> None:
        stream.write(b"hello")
        seen.append((stream.buffered, stream.sent, peer.recv(9)))

    handler.answer = answer
    peer.sendall(b"x")
    run_until(loop, lambda: seen)
    assert seen == [(0, 5, b"hello")]


@pytest.mark.usefixtures("stream")
@pytest.mark.parametrize("way", ["shutdown", "close", "abort"])
def test_what_a_callback_wrote_is_sent_before_the_end_that_it_asks_for(
    loop: SelectorEventLoop, peer: socket.socket, handler: Recorder, way: str
) -> None:
    def answer(stream: Stream, _data: bytes) -> None:
        stream.write(b"last ")
        stream.write(b"words")
        getattr(stream, way)()
        assert stream.is_closing is (way != "shutdown")

    handler.answer = answer
    peer.sendall(b"x")
    run_until(loop, lambda: handler.data)
    assert receive(peer, 99) == b"last words"  # and then the end


@pytest.mark.usefixtures("stream")
def test_what_a_callback_wrote_before_ctrl_c_is_sent(
    loop: SelectorEventLoop, peer: socket.socket, handler: Recorder
) -> None:
    def answer(stream: Stream, _data: bytes) -> None:
        stream.write(b"hello")
        raise KeyboardInterrupt

    handler.answer = answer
    peer.sendall(b"x")
    with pytest.raises(KeyboardInterrupt):
        loop.run_once(LONG)
    assert peer.recv(9) == b"hello"


@pytest.mark.parametrize("by", ["call_soon_threadsafe", "call_at"])
def test_written_in_a_call_leaves_at_once(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, by: str
) -> None:
    seen: list[bytes] = []

    def write() -> None:
        stream.write(b"x")
        seen.append(peer.recv(9))

    if by == "call_at":
        loop.call_at(0, write)
    else:
        loop.call_soon_threadsafe(write)
    loop.run_once(LONG)
    assert seen == [b"x"]


@pytest.mark.parametrize("is_in_callback", [False, True])
def test_buffer_may_be_changed_as_soon_as_write_has_returned(
    loop: SelectorEventLoop,
    peer: socket.socket,
    stream: Stream,
    handler: Recorder,
    is_in_callback: bool,
) -> None:
    def write(each: Stream, _data: bytes) -> None:
        buffer = bytearray(b"before")
        for _ in range(2):
            each.write(buffer)
            buffer[:] = b"after!"
        buffer.clear()  # nobody holds it

    if is_in_callback:
        handler.answer = write
        peer.sendall(b"x")
        run_until(loop, lambda: handler.data)
    else:
        write(stream, b"")
    assert receive(peer, 12) == b"beforeafter!"


def test_queued_bytearray_may_be_changed(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream
) -> None:
    shrink_buffers(stream)
    buffer = bytearray(b"x" * 200_000)
    stream.write(buffer)
    assert stream.buffered
    buffer[:] = b"y" * 200_000
    got = bytearray()
    while stream.buffered:
        got += receive_now(peer)
        loop.run_once(0)
    got += receive(peer, 200_000 - len(got))
    assert got == b"x" * 200_000


WIDE: dict[str, Items] = {
    "array of integers": array.array("I", range(1000)),
    "array of doubles": memoryview(array.array("d", range(1000))),
    "two dimensions": memoryview(bytes(range(240))).cast("B", (24, 10)),
    "every second item": memoryview(array.array("H", range(1000)))[::2],
}


@pytest.mark.parametrize("is_in_callback", [False, True])
@pytest.mark.parametrize("name", WIDE)
def test_data_of_other_items_than_bytes_is_written_whole(
    loop: SelectorEventLoop,
    peer: socket.socket,
    stream: Stream,
    handler: Recorder,
    name: str,
    is_in_callback: bool,
) -> None:
    data = WIDE[name]
    expected = memoryview(data).tobytes()

    def write(each: Stream) -> None:
        each.write(data)  # type: ignore[arg-type] # as users do

    if is_in_callback:
        handler.answer = lambda each, _: write(each)
        peer.sendall(b"x")
        run_until(loop, lambda: handler.data)
    else:
        write(stream)
    assert stream.sent == len(expected)
    assert receive(peer, len(expected)) == expected


def test_broadcast_to_a_member_that_is_closing_harms_nobody(
    loop: SelectorEventLoop,
) -> None:
    """A broadcast skips a closed and a closing stream, and reaches the others."""
    members: list[Stream] = []
    handler = Recorder()

    def tell(sender: Stream, data: bytes) -> None:
        members[1].abort()
        members[2].close()
        for member in members:
            if member is not sender:
                member.write(data)
        assert [member.is_closing for member in members] == [False, True, True, False]

    handler.answer = tell
    pairs = [socket.socketpair() for _ in range(4)]
    members += [add_stream(loop, theirs, handler) for _ours, theirs in pairs]
    pairs[0][0].sendall(b"news")
    run_until(loop, lambda: len(handler.errors) == 2)
    assert [receive_now(ours) for ours, _theirs in pairs] == [b"", b"", b"", b"news"]
    assert [member.buffered for member in members] == [0, 0, 0, 0]
    assert handler.errors == [None, None]
    pairs[0][0].sendall(b"more")  # the sender goes on, also when they have gone
    run_until(loop, lambda: handler.data == b"newsmore")
    assert pairs[3][0].recv(9) == b"more"
    for ours, _theirs in pairs:
        ours.close()
    run_until(loop, lambda: len(handler.errors) == 4)


def test_native_loop_may_be_closed_in_on_close_when_a_server_stops() -> None:
    """No dispatch runs then: the loop must not be freed under the streams."""
    closed: list[Stream] = []

    class Closing(StreamHandler):
        def on_close(self, stream: Stream, _error: Exception | None) -> None:
            closed.append(stream)
            loop.native.close()

    loop = SelectorEventLoop()
    server = StreamServer("127.0.0.1", 0, Closing(), loop=loop)
    server.start()
    clients = [socket.create_connection(server.address) for _ in range(3)]
    while server.stats.accepted < len(clients):
        loop.run_once(LONG)
    server.stop()
    assert len(closed) == len(clients)
    loop.close()
    for client in clients:
        client.close()
