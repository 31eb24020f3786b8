"""Streams: callbacks, writes, both ends of a connection, and how it is over."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import signal
import socket
import struct
import threading
import weakref
from typing import TYPE_CHECKING

import pytest

from fdmux._ffi import lib
from fdmux.limits import ServerLimits, StreamLimits
from fdmux.stream import Stream, StreamHandler, add_stream, connect_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.python.conftest import HasLoop, NativeUser

    from fdmux.loop import SelectorEventLoop

LONG = 30.0


class Recorder(StreamHandler):
    """Remembers what was called, and does as the test says."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.data = b""
        self.errors: list[Exception | None] = []
        self.answer: Callable[[Stream, memoryview], object] = lambda *_: None

    def on_connect(self, _stream: Stream) -> None:
        self.calls.append("connect")

    def on_data(self, stream: Stream, view: memoryview) -> bytes | None:
        self.data += bytes(view)
        return self.answer(stream, view)  # type: ignore[return-value]  # of the test

    def on_end(self, stream: Stream) -> None:
        self.calls.append("end")
        super().on_end(stream)

    def on_writable(self, _stream: Stream) -> None:
        self.calls.append("writable")

    def on_drain(self, _stream: Stream) -> None:
        self.calls.append("drain")

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        self.calls.append("close")
        self.errors.append(error)


class Open(Recorder):
    """Keeps its side open when the peer ends."""

    def on_end(self, _stream: Stream) -> None:
        self.calls.append("end")


@pytest.fixture
def handler() -> Recorder:
    return Recorder()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname(), timeout=LONG)
        accepted, _ = listener.accept()
    with sock, accepted:
        yield sock, accepted


@pytest.fixture
def peer(ends: tuple[socket.socket, socket.socket]) -> socket.socket:
    """The other end of `stream`."""
    return ends[0]


@pytest.fixture
def our_end(ends: tuple[socket.socket, socket.socket]) -> socket.socket:
    """A socket to make a stream of."""
    return ends[1]


@pytest.fixture
def stream(
    loop: SelectorEventLoop, our_end: socket.socket, handler: Recorder
) -> Stream:
    return add_stream(loop, our_end, handler)


def run_until(loop: SelectorEventLoop, is_done: Callable[[], object]) -> None:
    for _ in range(1000):
        if is_done():
            return
        loop.run_once(LONG)
    pytest.fail("it did not happen in 1,000 iterations")


def receive(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count and (chunk := sock.recv(count - len(data))):
        data += chunk
    return bytes(data)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.usefixtures("stream")
@pytest.mark.parametrize("kind", ["view", "bytes", "bytearray", "part"])
def test_answer_is_written(
    loop: SelectorEventLoop, peer: socket.socket, handler: Recorder, kind: str
) -> None:
    answers: dict[str, Callable[[Stream, memoryview], object]] = {
        "view": lambda _, view: view,
        "bytes": lambda _, view: bytes(view),
        "bytearray": lambda _, view: bytearray(view),
        "part": lambda _, view: view[:],
    }
    handler.answer = answers[kind]
    peer.sendall(b"hello")
    loop.run_once(LONG)
    assert receive(peer, 5) == b"hello"
    assert handler.data == b"hello"


def test_writes_of_a_batch_keep_their_order(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    def answer(each: Stream, view: memoryview) -> memoryview:
        each.write(b"1")
        each.write(view)
        each.writelines([b"2", bytearray(b"3"), b""])
        each.write(view[:1])
        each.write(b"x" * 70_000)
        each.write(memoryview(b"45"))
        return view

    handler.answer = answer
    peer.sendall(b"ab")
    expected = b"1ab23a" + b"x" * 70_000 + b"45ab"
    loop.run_once(LONG)
    assert stream.buffered == 0
    assert receive(peer, len(expected)) == expected


def test_parts_of_a_view_are_sent_from_where_they_lie(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    """Small and large ones, strided, elsewhere, and of a view that was cast."""
    sizes: list[int] = []

    def answer(each: Stream, view: memoryview) -> None:
        sizes.append(len(view))
        each.write(view[10:])
        each.write(view[:5000])
        each.write(view[::2])
        each.write(view[3 : len(view) // 4 * 4 - 1].toreadonly())
        each.write(memoryview(bytes(9000)))
        each.write(b"end")

    handler.answer = answer
    data = os.urandom(20_000)
    peer.sendall(data)
    loop.run_once(LONG)
    size = sizes[0]
    came = data[:size]
    expected = came[10:] + came[:5000] + came[::2] + came[3 : size // 4 * 4 - 1]
    expected += bytes(9000) + b"end"
    loop.run_once(0)
    assert receive(peer, len(expected))[: len(expected)] == expected
    assert stream.buffered == 0


def test_view_is_passed_on_to_another_stream(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        other = add_stream(loop, theirs, StreamHandler())
        handler.answer = lambda _, view: other.write(view)
        peer.sendall(b"hello")
        run_until(loop, lambda: stream.received == 5)
        assert ours.recv(9) == b"hello"
        other.close()
        loop.run_once(0)


@pytest.mark.parametrize("data", [5, "text", None, [1], 1.5])
def test_what_is_no_bytes_is_not_written(stream: Stream, data: bytes) -> None:
    with pytest.raises(TypeError):
        stream.write(data)
    assert stream.buffered == 0


def test_more_than_can_be_counted_is_refused(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fdmux.stream.QUEUE_MAX", 100_000)
    with pytest.raises(ValueError, match="100001 bytes at once: 100000 at most"):
        stream.write(b"x" * 100_001)


# Views -------------------------------------------------------------------------------


@pytest.mark.usefixtures("stream")
def test_view_that_is_kept_raises(
    loop: SelectorEventLoop, peer: socket.socket, handler: Recorder
) -> None:
    kept: list[memoryview] = []
    handler.answer = lambda _, view: kept.append(view)
    peer.sendall(b"hello")
    loop.run_once(LONG)
    with pytest.raises(ValueError, match="released"):
        bytes(kept[0])


@pytest.mark.usefixtures("stream")
def test_slice_that_is_kept_never_shows_other_bytes(
    loop: SelectorEventLoop, peer: socket.socket, handler: Recorder
) -> None:
    kept: list[memoryview] = []

    def keep(_stream: Stream, view: memoryview) -> None:
        kept.append(view[1:3])

    handler.answer = keep
    for text in (b"aaaa", b"bbbb", b"cccc"):
        peer.sendall(text)
        loop.run_once(LONG)
    assert [bytes(view) for view in kept] == [b"aa", b"bb", b"cc"]
    kept.clear()
    handler.answer = lambda _, view: view
    peer.sendall(b"dddd")
    loop.run_once(LONG)
    assert receive(peer, 4) == b"dddd"


@pytest.mark.usefixtures("stream")
def test_export_of_a_view_that_is_kept_is_no_error(
    loop: SelectorEventLoop,
    peer: socket.socket,
    handler: Recorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As numpy.frombuffer does: the view itself cannot be released then."""
    kept: list[object] = []
    handler.answer = lambda _, view: kept.append(
        ((ctypes.c_char * len(view)).from_buffer(view), view)
    )
    for text in (b"aaaa", b"bbbb"):
        peer.sendall(text)
        loop.run_once(LONG)
    assert [bytes(pair[0].raw) for pair in kept] == [b"aaaa", b"bbbb"]  # type: ignore[index]  # as put in
    assert caplog.records == []
    assert handler.errors == []


# Flow --------------------------------------------------------------------------------


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


def shrink_buffers(stream: Stream) -> None:
    """So that little fits into the kernel."""
    with socket.socket(fileno=os.dup(stream.fileno())) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def test_more_than_queue_max_ends_the_stream(
    loop: SelectorEventLoop, stream: Stream, handler: Recorder
) -> None:
    shrink_buffers(stream)
    for _ in range(300):
        if stream.buffered > 200_000:
            break
        stream.write(b"x" * 10_000)
    stream.write(b"x" * 100_000)
    loop.run_once(0)
    assert handler.calls == ["close"]
    error = handler.errors[0]
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOBUFS
    assert stream.buffered == 0


def test_pause_and_resume(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    stream.pause_reading()
    stream.pause_reading()
    peer.sendall(b"x")
    loop.run_once(0.01)
    assert handler.data == b""
    stream.resume_reading()
    loop.run_once(LONG)
    assert handler.data == b"x"


def test_receive_max_divides(loop: SelectorEventLoop, handler: Recorder) -> None:
    ours, theirs = socket.socketpair()
    sizes: list[int] = []
    handler.answer = lambda _, view: sizes.append(len(view))
    with ours:
        add_stream(loop, theirs, handler, limits=StreamLimits(receive_max=3))
        ours.sendall(b"12345678")
        run_until(loop, lambda: sum(sizes) == 8)
    assert sizes == [3, 3, 2]


@pytest.mark.parametrize("name", ["idle_timeout", "stall_timeout"])
def test_timeout_closes_with_an_error(
    loop: SelectorEventLoop, handler: Recorder, name: str
) -> None:
    ours, theirs = socket.socketpair()
    limits = StreamLimits(**{name: 10.0}, queue_max=1 << 30, queue_high=1 << 29)  # type: ignore[arg-type]  # a timeout
    with ours:
        stream = add_stream(loop, theirs, handler, limits=limits)
        if name == "stall_timeout":
            stream.write(b"x" * 10_000_000)
            assert stream.buffered
        for quarters, is_over in ((40, False), (1, True)):
            lib.fdmux_py_stream_tick(loop.native._c_loop, quarters)
            loop.run_once(0)
            assert bool(handler.errors) is is_over
    assert isinstance(handler.errors[0], TimeoutError)


# Writing outside of callbacks --------------------------------------------------------


def test_written_before_the_loop_runs(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream
) -> None:
    stream.write(b"x")
    loop.run_once(0)
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


def test_closed_outside_of_a_batch_is_told_at_once(
    loop: SelectorEventLoop, stream: Stream, handler: Recorder
) -> None:
    loop.call_later(0, stream.close)
    run_until(loop, lambda: handler.calls == ["close"])


# The end -----------------------------------------------------------------------------


def test_end_of_the_peer_closes_after_what_is_queued(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    stream.write(b"y" * 200_000)
    peer.shutdown(socket.SHUT_WR)
    got = bytearray()
    while not handler.errors:
        loop.run_once(0)
        with contextlib.suppress(BlockingIOError):
            got += peer.recv(1 << 20, socket.MSG_DONTWAIT)
    got += receive(peer, 200_000 - len(got))
    assert bytes(got) == b"y" * 200_000
    assert peer.recv(1) == b""
    assert handler.calls[0] == "end"
    assert handler.calls[-1] == "close"
    assert handler.errors == [None]


def test_half_close_by_the_peer_leaves_our_side_open(
    loop: SelectorEventLoop, peer: socket.socket, our_end: socket.socket
) -> None:
    handler = Open()
    stream = add_stream(loop, our_end, handler)
    peer.sendall(b"last")
    peer.shutdown(socket.SHUT_WR)
    run_until(loop, lambda: handler.calls == ["end"])
    assert handler.data == b"last"
    stream.write(b"answer")
    loop.run_once(0)
    assert receive(peer, 6) == b"answer"
    stream.close()
    loop.run_once(0)
    assert peer.recv(1) == b""
    assert handler.calls == ["end", "close"]


def test_half_close_by_us_leaves_the_peer_open(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    stream.write(b"question")
    stream.shutdown()
    stream.shutdown()
    with pytest.raises(BrokenPipeError):
        stream.write(b"more")
    loop.run_once(0)
    assert receive(peer, 8) == b"question"
    assert peer.recv(1) == b""
    peer.sendall(b"answer")
    loop.run_once(LONG)
    assert handler.data == b"answer"


def test_abort_drops_what_is_queued(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    shrink_buffers(stream)
    stream.write(b"x" * 200_000)
    assert stream.buffered
    stream.close()  # would wait for the peer
    loop.run_once(0)
    assert handler.calls == []
    stream.abort()
    stream.abort()
    loop.run_once(0)
    assert handler.calls == ["close"]
    assert handler.errors == [None]
    with contextlib.suppress(ConnectionResetError):
        assert len(receive(peer, 200_000)) < 200_000


def test_reset_by_the_peer_is_told(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    reset(peer)
    run_until(loop, lambda: handler.errors)
    assert handler.calls == ["close"]
    assert isinstance(handler.errors[0], ConnectionResetError)
    assert stream.is_closing


def test_nothing_works_and_nothing_hurts_after_the_end(
    loop: SelectorEventLoop, stream: Stream, handler: Recorder
) -> None:
    assert stream.fileno() >= 0
    stream.close()
    stream.close()
    with pytest.raises(BrokenPipeError, match="closed"):
        stream.write(b"x")
    loop.run_once(0)
    assert handler.calls == ["close"]
    with pytest.raises(BrokenPipeError, match="fd=-1"):
        stream.write(b"x")
    for action in (
        stream.close,
        stream.abort,
        stream.shutdown,
        stream.pause_reading,
        stream.resume_reading,
    ):
        action()
    assert (stream.fileno(), stream.peername, stream.buffered) == (-1, None, 0)
    assert (stream.received, stream.sent) == (0, 0)
    loop.run_once(0)
    assert handler.calls == ["close"]


def test_close_in_a_callback_silences_the_rest(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    """The other of two, ready in the same batch, is closed by the first."""
    ours, theirs = socket.socketpair()
    with ours:
        other = add_stream(loop, theirs, handler)
        pair = {id(stream): other, id(other): stream}
        handler.answer = lambda each, _: pair[id(each)].close()
        peer.sendall(b"x")
        ours.sendall(b"x")
        run_until(loop, lambda: handler.calls == ["close"])
        loop.run_once(0)
        assert handler.data == b"x"


def test_facts(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    handler.answer = lambda _, view: view[:2]
    peer.sendall(b"hello")
    loop.run_once(LONG)
    assert (stream.received, stream.sent, stream.buffered) == (5, 2, 0)
    assert stream.peername == peer.getsockname()
    assert not stream.is_closing
    assert f"fd={stream.fileno()}" in repr(stream)
    assert stream.data is None
    with pytest.raises(AttributeError):
        stream.other = 1  # type: ignore[attr-defined]  # on purpose


# Exceptions --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["on_data", "on_end"])
def test_callback_that_raises_closes_its_own_stream(
    loop: SelectorEventLoop,
    peer: socket.socket,
    our_end: socket.socket,
    caplog: pytest.LogCaptureFixture,
    method: str,
) -> None:
    class Faulty(Recorder):
        pass

    setattr(Faulty, method, lambda *_: 1 // 0)
    handler = Faulty()
    ours, theirs = socket.socketpair()
    with ours:
        add_stream(loop, our_end, handler)
        good = Recorder()
        good.answer = lambda _, view: view
        add_stream(loop, theirs, good)
        peer.sendall(b"x")
        peer.shutdown(socket.SHUT_WR)
        ours.sendall(b"y")
        run_until(loop, lambda: handler.errors and good.data)
        assert ours.recv(1) == b"y"
    assert isinstance(handler.errors[0], ZeroDivisionError)
    assert "ZeroDivisionError" in caplog.text


def test_on_close_that_raises_is_logged(
    loop: SelectorEventLoop,
    peer: socket.socket,
    our_end: socket.socket,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Faulty(StreamHandler):
        def on_close(self, _stream: Stream, _error: Exception | None) -> None:
            raise ZeroDivisionError

    add_stream(loop, our_end, Faulty()).close()
    loop.run_once(0)
    assert peer.recv(1) == b""
    assert caplog.text.count("Traceback") == 1


def test_interrupt_in_a_callback_loses_no_record(loop: SelectorEventLoop) -> None:
    """Ten are ready; the third interrupts; more arrives before it goes on."""
    handler = Recorder()
    pairs = [socket.socketpair() for _ in range(10)]

    def answer(_stream: Stream, view: memoryview) -> memoryview:
        if len(handler.data) == 3:
            signal.raise_signal(signal.SIGINT)
        return view

    handler.answer = answer
    for _ours, theirs in pairs:
        add_stream(loop, theirs, handler)
    for ours, _theirs in pairs:
        ours.sendall(b"x")
    with pytest.raises(KeyboardInterrupt):
        run_until(loop, lambda: False)
    for ours, _theirs in pairs:
        ours.sendall(b"y")
    run_until(loop, lambda: len(handler.data) == 20)
    assert handler.data.count(b"x") == 10
    counts = [len(receive_now(ours)) for ours, _theirs in pairs]
    assert sorted(counts) == [1] + [2] * 9  # the interrupted one gave no answer
    for ours, _theirs in pairs:
        ours.close()
    run_until(loop, lambda: len(handler.errors) == 10)


def receive_now(sock: socket.socket) -> bytes:
    sock.setblocking(False)
    return sock.recv(100)


def test_close_of_the_loop_is_told_to_every_stream(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    stream.write(b"farewell")
    loop.close()
    assert receive(peer, 8) == b"farewell"
    assert peer.recv(1) == b""
    assert (handler.calls, handler.errors) == (["close"], [None])
    with pytest.raises(BrokenPipeError):
        stream.write(b"x")
    stream.abort()
    assert stream.fileno() == -1


def test_close_of_the_loop_after_an_interrupt(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    def interrupt(_stream: Stream, _view: memoryview) -> None:
        raise KeyboardInterrupt

    handler.answer = interrupt
    peer.sendall(b"x")
    with pytest.raises(KeyboardInterrupt):
        loop.run_once(LONG)
    loop.close()
    assert handler.calls == ["close"]
    assert stream.fileno() == -1


def test_stream_in_a_closed_loop_is_refused(
    loop: SelectorEventLoop, our_end: socket.socket
) -> None:
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        add_stream(loop, our_end, StreamHandler())
    assert our_end.fileno() >= 0  # still ours


@pytest.mark.usefixtures("stream")
def test_nobody_is_called_in_the_child_of_a_fork(
    loop: SelectorEventLoop, peer: socket.socket, handler: Recorder
) -> None:
    ours, theirs = socket.socketpair()
    children: list[int] = []

    def fork(_stream: Stream, _view: memoryview) -> None:
        if not children:
            children.append(os.fork())

    handler.answer = fork
    with ours:
        add_stream(loop, theirs, handler)
        peer.sendall(b"x")
        ours.sendall(b"x")
        try:
            run_until(loop, lambda: len(handler.data) == 2)
        finally:
            if children == [0]:
                os._exit(len(handler.data))
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 1


# Connecting --------------------------------------------------------------------------


def test_connect_tells_and_sends_what_was_written_before(
    loop: SelectorEventLoop, handler: Recorder
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = connect_stream(loop, listener.getsockname(), handler)
        stream.write(b"early")
        stream.shutdown()
        assert handler.calls == []
        run_until(loop, lambda: handler.calls == ["connect", "drain"])
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(LONG)
            assert receive(sock, 9) == b"early"
            sock.sendall(b"hi")
            run_until(loop, lambda: handler.data == b"hi")


def test_shutdown_before_the_connection_stands(
    loop: SelectorEventLoop, handler: Recorder
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connect_stream(loop, listener.getsockname(), handler).shutdown()
        run_until(loop, lambda: handler.calls == ["connect"])
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(LONG)
            assert sock.recv(1) == b""


def test_refused_connection_is_told_with_the_address(
    loop: SelectorEventLoop, handler: Recorder
) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        connect_stream(loop, reserved.getsockname(), handler)
        run_until(loop, lambda: handler.errors)
        assert handler.calls == ["close"]
        assert isinstance(handler.errors[0], ConnectionRefusedError)
        assert f"connect to {reserved.getsockname()}" in str(handler.errors[0])


def test_unix_sockets(
    loop: SelectorEventLoop, handler: Recorder, tmp_path: Path
) -> None:
    path = str(tmp_path / "socket")
    with pytest.raises(FileNotFoundError, match="connect to"):
        connect_stream(loop, path, handler)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        connect_stream(loop, path, handler)
        run_until(loop, lambda: handler.calls == ["connect"])


def test_ipv6(loop: SelectorEventLoop, handler: Recorder) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        connect_stream(loop, listener.getsockname()[:2], handler)
        run_until(loop, lambda: handler.calls == ["connect"])


def test_wrong_addresses(loop: SelectorEventLoop, handler: Recorder) -> None:
    with pytest.raises(ValueError, match="not an IP address"):
        connect_stream(loop, ("localhost", 1), handler)
    with pytest.raises(OverflowError, match="0-65535"):
        connect_stream(loop, ("127.0.0.1", 65536), handler)


# Company -----------------------------------------------------------------------------


def test_native_watchers_and_streams_in_one_loop(
    loop: SelectorEventLoop,
    peer: socket.socket,
    stream: Stream,
    handler: Recorder,
    native_user: Callable[[HasLoop], NativeUser],
) -> None:
    left, right = socket.socketpair()
    with left, right:
        right.setblocking(False)
        user = native_user(loop)
        token = user.watch(right.fileno())
        assert token > 0
        left.sendall(b"x")
        peer.sendall(b"y")
        run_until(loop, lambda: user.counts.called and handler.data)
        user.unwatch(token)
    stream.close()
    loop.run_once(0)


def test_closed_streams_leave_nothing_behind(loop: SelectorEventLoop) -> None:
    handler = Recorder()
    ours, theirs = socket.socketpair()
    with ours:
        data = threading.Event()
        stream = add_stream(loop, theirs, handler)
        stream.data = data
        reference = weakref.ref(data)
        stream.close()
        loop.run_once(0)
    del stream, data
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    "limits",
    [
        {"receive_max": 0},
        {"receive_max": 65537},
        {"queue_high": 0},
        {"queue_low": -1},
        {"queue_max": 1000},
        {"idle_timeout": float("nan")},
        {"stall_timeout": -1.0},
    ],
)
def test_limits_out_of_range(limits: dict[str, int]) -> None:
    for kind in (StreamLimits, ServerLimits):
        with pytest.raises(ValueError, match=next(iter(limits))):
            kind(**limits)
