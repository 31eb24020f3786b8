"""Frames out of bytes in any division: the buffer, the framings, the handler."""

from __future__ import annotations

import array
import doctest
import itertools
import random
import socket
from typing import TYPE_CHECKING, ClassVar

import pytest
from tests.peers import reset

import fdmux
from fdmux.framing import (
    Delimited,
    FixedSize,
    FrameHandler,
    FrameTooLongError,
    Framing,
    IncompleteFrameError,
    LengthPrefixed,
    ReceiveBuffer,
)
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams import frame_handler
from fdmux.streams.client import add_stream
from fdmux.streams.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fdmux.streams.stream import Stream

FRAMINGS: list[Framing] = [
    LengthPrefixed(1),
    LengthPrefixed(2, "little"),
    LengthPrefixed(4),
    LengthPrefixed(8, "little"),
    Delimited(b"\n"),
    Delimited(b"\r\n"),
    Delimited(b"aab"),
]


def feed_in_pieces(take: Framing, data: bytes, sizes: Iterator[int]) -> list[bytes]:
    buffer = ReceiveBuffer()
    frames, start = [], 0
    while start < len(data):
        size = next(sizes)
        buffer.feed(memoryview(data)[start : start + size])
        start += size
        while (frame := take.take(buffer)) is not None:
            frames.append(frame)
    assert len(buffer) == 0
    return frames


@pytest.mark.parametrize("kind", FRAMINGS)
@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_frames_are_the_same_in_any_division(kind: Framing, piece: int) -> None:
    order = random.Random(piece)
    frames = [
        order.randbytes(order.randrange(40)).replace(b"a", b"") for _ in range(50)
    ]
    frames = [frame.replace(b"\n", b"") for frame in frames]
    data = b"".join(kind.encode(frame) for frame in frames)
    assert feed_in_pieces(kind, data, itertools.repeat(piece)) == frames
    random_sizes = iter(lambda: order.randrange(1, 30), None)
    assert feed_in_pieces(kind, data, random_sizes) == frames


def test_fixed_size() -> None:
    kind = FixedSize(3)
    assert feed_in_pieces(kind, b"abcdefghi", itertools.cycle([2, 5])) == [
        b"abc",
        b"def",
        b"ghi",
    ]
    assert kind.encode(bytearray(b"abc")) == b"abc"
    with pytest.raises(ValueError, match="2 bytes instead of 3"):
        kind.encode(b"ab")


def test_read_exact_loses_nothing() -> None:
    buffer = ReceiveBuffer()
    buffer.feed(b"12345")
    assert buffer.take_exact(6) is None
    assert buffer.take_until(b"!", 10) is None
    assert buffer.peek(9) == b"12345"
    assert buffer.take_exact(2) == b"12"
    assert buffer.take_exact(0) == b""
    buffer.feed(b"6!78")
    assert buffer.take_until(b"!", 10) == b"3456"
    assert buffer.take_all() == b"78"
    assert len(buffer) == 0
    assert buffer.take_all() == b""


def test_delimiter_that_repeats_its_beginning_is_found() -> None:
    buffer = ReceiveBuffer()
    for byte in b"xaaab":
        assert buffer.take_until(b"aab", 10) is None
        buffer.feed(bytes([byte]))
    assert buffer.take_until(b"aab", 10) == b"xa"


@pytest.mark.parametrize("count", range(8))
def test_bound_of_a_delimited_frame_is_exact(count: int) -> None:
    kind = Delimited(b"\r\n", frame_max=5)
    buffer = ReceiveBuffer()
    for byte in b"x" * min(count, 5):
        buffer.feed(bytes([byte]))
        assert kind.take(buffer) is None
    if count <= 5:
        buffer.feed(b"\r\nrest")
        assert kind.take(buffer) == b"x" * count
        return
    buffer.feed(b"x")
    assert kind.take(buffer) is None  # it might have been the delimiter's beginning
    buffer.feed(b"x")
    with pytest.raises(FrameTooLongError, match="first 5 bytes"):
        kind.take(buffer)
    with pytest.raises(FrameTooLongError):
        kind.encode(b"x" * count)


def test_length_beyond_the_bound_is_refused_before_the_frame_comes() -> None:
    buffer = ReceiveBuffer()
    buffer.feed((1001).to_bytes(4, "big"))
    with pytest.raises(FrameTooLongError, match="1001 bytes; at most 1000"):
        LengthPrefixed(4, frame_max=1000).take(buffer)


def test_length_that_does_not_fit_its_integer_is_refused() -> None:
    assert LengthPrefixed(1).encode(b"x" * 255)[0] == 255
    with pytest.raises(FrameTooLongError, match="256 bytes; at most 255"):
        LengthPrefixed(1).encode(b"x" * 256)


def test_frame_with_its_delimiter_is_refused() -> None:
    with pytest.raises(ValueError, match="would be two"):
        Delimited(b"aa").encode(b"xa")
    with pytest.raises(ValueError, match="would be two"):
        Delimited(b"\n").encode(b"a\nb")


def test_frames_of_other_items_than_bytes_are_counted_in_bytes() -> None:
    numbers = array.array("I", [1, 2, 3])
    data = numbers.tobytes()
    table = memoryview(data).cast("B", (3, 4))
    every_second = memoryview(numbers)[::2]
    for frame in (numbers, table):
        assert LengthPrefixed(1).encode(frame) == bytes([12]) + data  # type: ignore[arg-type] # as users do
        assert Delimited(b"end").encode(frame) == data + b"end"  # type: ignore[arg-type] # the same
        assert FixedSize(12).encode(frame) == data  # type: ignore[arg-type] # the same
    assert LengthPrefixed(1).encode(every_second) == bytes([8]) + data[:4] + data[8:]
    with pytest.raises(FrameTooLongError, match="12 bytes; at most 11"):
        LengthPrefixed(frame_max=11).encode(numbers)  # type: ignore[arg-type] # as users do
    with pytest.raises(ValueError, match="12 bytes instead of 3"):
        FixedSize(3).encode(table)


@pytest.mark.parametrize("size", [0, 3, 16])
def test_size_of_a_length_that_is_none(size: int) -> None:
    with pytest.raises(ValueError, match="1, 2, 4 or 8"):
        LengthPrefixed(size)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="byteorder"):
        LengthPrefixed(2, "middle")  # type: ignore[arg-type] # on purpose
    with pytest.raises(ValueError, match="empty"):
        Delimited(b"")
    with pytest.raises(TypeError, match="delimiter"):
        Delimited("\n")  # type: ignore[arg-type] # on purpose
    for make in (FixedSize, lambda size: Delimited(frame_max=size)):
        with pytest.raises(ValueError, match=r"must be (>= 1|in 1\.\.)"):
            make(0)


# On a stream -------------------------------------------------------------------------


class Recorder(FrameHandler):
    """Answers each line in capitals, and remembers what happened."""

    framing: ClassVar[Framing] = Delimited(b"\n", frame_max=10)

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.closed: list[Exception | None] = []

    def on_frame(self, stream: Stream, frame: bytes) -> bytes | None:
        self.frames.append(frame)
        if frame == b"quit":
            self.send(stream, b"bye")
            stream.close()
            return None
        if frame == b"quiet":
            return None
        return frame.upper()

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        self.closed.append(error)


@pytest.fixture
def handler() -> Recorder:
    return Recorder()


@pytest.fixture
def client(handler: Recorder) -> Iterator[tuple[socket.socket, SelectorEventLoop]]:
    ours, theirs = socket.socketpair()
    with ours, SelectorEventLoop() as loop:
        add_stream(loop, theirs, handler)
        ours.settimeout(30)
        yield ours, loop


Client = tuple[socket.socket, SelectorEventLoop]


def test_answers_are_frames_in_order(client: Client, handler: Recorder) -> None:
    sock, loop = client
    sock.sendall(b"one\nquiet\ntwo\nth")
    loop.run_once()
    assert sock.recv(100) == b"ONE\nTWO\n"
    sock.sendall(b"ree\n")
    loop.run_once()
    assert sock.recv(100) == b"THREE\n"
    assert handler.frames == [b"one", b"quiet", b"two", b"three"]


def test_frames_after_close_are_not_told(client: Client, handler: Recorder) -> None:
    sock, loop = client
    sock.sendall(b"quit\nmore\nand")
    loop.run_once()
    loop.run_once(0)
    assert sock.recv(100) == b"bye\n"
    assert sock.recv(100) == b""
    assert handler.frames == [b"quit"]
    assert handler.closed == [None]


def test_frame_too_long_is_an_error_of_that_stream(
    client: Client, handler: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    sock, loop = client
    sock.sendall(b"ok\n" + b"x" * 13)
    loop.run_once()
    loop.run_once(0)
    assert sock.recv(100) == b"OK\n"
    assert isinstance(handler.closed[0], FrameTooLongError)
    assert caplog.records == []


def test_end_in_a_frame_is_an_error_with_what_had_come(
    client: Client, handler: Recorder
) -> None:
    sock, loop = client
    sock.sendall(b"one\ntw")
    sock.shutdown(socket.SHUT_WR)
    while not handler.closed:
        loop.run_once()
    assert handler.frames == [b"one"]
    error = handler.closed[0]
    assert isinstance(error, IncompleteFrameError)
    assert error.partial == b"tw"


def test_end_between_frames_is_none(client: Client, handler: Recorder) -> None:
    sock, loop = client
    sock.sendall(b"one\n")
    sock.shutdown(socket.SHUT_WR)
    while not handler.closed:
        loop.run_once()
    assert handler.closed == [None]
    assert sock.recv(100) == b"ONE\n"


class OnItsOwn(FrameHandler):
    """Overrides every method without calling its base class."""

    framing: ClassVar[Framing] = Delimited(b"\n", frame_max=10)

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.closed: list[Exception | None] = []

    def on_connect(self, stream: Stream) -> None:
        self.send(stream, b"hello")

    def on_frame(self, _stream: Stream, frame: bytes) -> bytes:
        return self.prefix + frame

    def on_end(self, stream: Stream) -> None:
        self.send(stream, b"bye")
        stream.close()

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        self.closed.append(error)


def test_subclass_need_not_call_its_base_class() -> None:
    handler = OnItsOwn(b"> ")
    with (
        StreamServer("127.0.0.1", 0, handler) as server,
        socket.create_connection(server.address, timeout=30) as sock,
    ):
        sock.sendall(b"one\ntw")
        sock.sendall(b"o\nthr")
        sock.shutdown(socket.SHUT_WR)
        while not handler.closed:
            server.run(max_iterations=1)
        with sock.makefile("rb") as lines:
            assert lines.read() == b"hello\n> one\n> two\nbye\n"
    assert handler.closed == [None]


def test_handler_keeps_nothing_of_a_peer_that_resets_in_a_frame() -> None:
    handler = OnItsOwn(b"")
    with socket.create_server(("127.0.0.1", 0)) as server, SelectorEventLoop() as loop:
        with socket.create_connection(server.getsockname(), timeout=30) as peer:
            stream = add_stream(loop, server.accept()[0], handler)
            peer.sendall(b"part of a")
            while not stream.received:
                loop.run_once()
            reset(peer)
        while not handler.closed:
            loop.run_once()
    assert isinstance(handler.closed[0], ConnectionResetError)
    assert vars(handler).keys() == {"prefix", "closed"}


def test_two_streams_of_one_handler_have_a_rest_each() -> None:
    handler = Recorder()
    pairs = [socket.socketpair() for _ in range(2)]
    with SelectorEventLoop() as loop:
        for _ours, theirs in pairs:
            add_stream(loop, theirs, handler)
        for text in (b"fir", b"st\n"):
            for ours, _theirs in pairs:
                ours.sendall(text)
            loop.run_once()
        for ours, _theirs in pairs:
            ours.settimeout(30)
            assert ours.recv(100) == b"FIRST\n"
            ours.close()


def test_base_class_has_no_answer() -> None:
    with pytest.raises(NotImplementedError):
        FrameHandler().on_frame(None, b"")  # type: ignore[arg-type] # not used


def test_example_works_and_fits_in_15_lines() -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(
        frame_handler, "frames", globs={**vars(fdmux), "__name__": "example"}
    )
    assert 10 <= sum(each.source.count("\n") for each in example.examples) <= 15
    results = doctest.DocTestRunner().run(example)
    assert results.attempted == len(example.examples)
    assert results.failed == 0
