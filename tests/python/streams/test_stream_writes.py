"""Writes: in order, of any bytes-like object, and within limits."""

from __future__ import annotations

import contextlib
import errno
import mmap
import socket
from typing import TYPE_CHECKING

import pytest
from tests.peers import receive
from tests.python.streams.recorder import LONG, Recorder, run_until, shrink_buffers

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux.loop.event_loop import SelectorEventLoop
    from fdmux.streams.stream import Stream


@pytest.mark.usefixtures("stream")
@pytest.mark.parametrize("kind", ["data", "bytearray", "memoryview", "part"])
def test_answer_is_written(
    loop: SelectorEventLoop, peer: socket.socket, handler: Recorder, kind: str
) -> None:
    answers: dict[str, Callable[[Stream, bytes], object]] = {
        "data": lambda _, data: data,
        "bytearray": lambda _, data: bytearray(data),
        "memoryview": lambda _, data: memoryview(data),
        "part": lambda _, data: memoryview(b"<" + data + b">")[1:-1],
    }
    handler.answer = answers[kind]
    peer.sendall(b"hello")
    loop.run_once(LONG)
    assert receive(peer, 5) == b"hello"
    assert handler.data == b"hello"


def test_writes_of_a_callback_keep_their_order(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    def answer(each: Stream, data: bytes) -> bytes:
        each.write(b"1")
        each.write(data)
        each.writelines([b"2", bytearray(b"3"), b""])
        each.write(data[:1])
        each.write(b"x" * 70_000)
        each.write(memoryview(b"45"))
        return data

    handler.answer = answer
    peer.sendall(b"ab")
    expected = b"1ab23a" + b"x" * 70_000 + b"45ab"
    loop.run_once(LONG)
    assert stream.buffered == 0
    assert receive(peer, len(expected)) == expected


@pytest.mark.parametrize("data", [5, "text", None, [1], 1.5])
def test_what_is_no_bytes_is_not_written(stream: Stream, data: bytes) -> None:
    with pytest.raises(TypeError):
        stream.write(data)
    assert stream.buffered == 0


@pytest.mark.usefixtures("stream")
def test_answer_that_is_no_bytes_ends_its_stream(
    loop: SelectorEventLoop,
    peer: socket.socket,
    handler: Recorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler.answer = lambda *_: 5
    peer.sendall(b"x")
    run_until(loop, lambda: handler.errors)
    assert isinstance(handler.errors[0], TypeError)
    assert "a bytes-like object is required" in caplog.text
    assert peer.recv(1) == b""


def test_more_than_can_be_counted_is_refused(stream: Stream) -> None:
    with (
        mmap.mmap(-1, 1 << 31) as untouched,
        pytest.raises(ValueError, match="2147483648 bytes at once: 2147483647 at most"),
    ):
        stream.write(memoryview(untouched))
    assert stream.buffered == 0


def test_too_much_in_a_callback_is_refused_without_a_copy(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    import resource  # noqa: PLC0415 - Windows has none, but the other tests

    with mmap.mmap(-1, 1 << 31) as untouched, memoryview(untouched) as view:
        handler.answer = lambda *_: stream.write(view)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peer.sendall(b"x")
        run_until(loop, lambda: handler.errors)
        handler.answer = lambda *_: None
    assert isinstance(handler.errors[0], ValueError)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 1 << 20


@pytest.mark.usefixtures("stream")
def test_items_and_strides_of_a_buffer_do_not_matter(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    every_other = memoryview(b"a-b-c-")[::2]
    wide = memoryview(b"12345678").cast("Q")
    stream.write(every_other)
    stream.write(wide)
    assert receive(peer, 11) == b"abc12345678"
    handler.answer = lambda *_: stream.write(every_other) or wide
    peer.sendall(b"x")
    run_until(loop, lambda: handler.data)
    assert receive(peer, 11) == b"abc12345678"


def test_queue_reports_when_it_falls_and_when_it_is_empty(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    shrink_buffers(stream)
    while stream.buffered < 64 * 1024:
        stream.write(b"x" * 10_000)
    written = stream.buffered + stream.sent
    peer.sendall(b"not read while so much is queued")
    loop.run_once(0)
    assert handler.data == b""
    peer.setblocking(False)
    got = 0
    while "drain" not in handler.calls:
        with contextlib.suppress(BlockingIOError):
            got += len(peer.recv(1 << 16))
        loop.run_once(0)
    peer.settimeout(LONG)
    got += len(receive(peer, written - got))
    assert got == written
    assert handler.calls == ["writable", "drain"]
    run_until(loop, lambda: handler.data)


def test_more_than_queue_max_ends_the_stream(
    loop: SelectorEventLoop, stream: Stream, handler: Recorder
) -> None:
    shrink_buffers(stream)
    for _ in range(300):
        if stream.buffered > 200_000:
            break
        stream.write(b"x" * 10_000)
    stream.write(b"x" * 100_000)
    assert stream.is_closing
    stream.write(b"more")  # ignored, as after every end
    loop.run_once(0)
    assert handler.calls == ["close"]
    error = handler.errors[0]
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOBUFS
    assert stream.buffered == 0


def test_written_before_the_loop_runs_leaves_at_once(
    peer: socket.socket, stream: Stream
) -> None:
    stream.write(b"x")
    assert peer.recv(2) == b"x"


def test_written_by_timers_and_posted_calls_and_watchers(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream
) -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"!")
        loop.register_read(right, lambda _: stream.write(left.recv(0) or b"watched"))
        loop.run_once(LONG)
        loop.unregister(right)
    assert peer.recv(99) == b"watched"
    loop.call_soon_threadsafe(stream.write, b"posted")
    loop.run_once(LONG)
    assert peer.recv(99) == b"posted"
    loop.call_later(0, stream.write, b"timed")
    loop.run_once(LONG)
    assert peer.recv(99) == b"timed"


def test_facts(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    handler.answer = lambda _, data: data[:2]
    peer.sendall(b"hello")
    loop.run_once(LONG)
    assert (stream.received, stream.sent, stream.buffered) == (5, 2, 0)
    assert stream.peername == peer.getsockname()
    assert not stream.is_closing
    assert f"fd={stream.fileno()}" in repr(stream)
    assert stream.data is None
    with pytest.raises(AttributeError):
        stream.other = 1  # type: ignore[attr-defined] # on purpose
