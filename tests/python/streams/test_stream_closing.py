"""How a stream ends: by either side, by a reset, in the middle of a batch."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import weakref
from typing import TYPE_CHECKING

import pytest
from tests.peers import receive, reset
from tests.python.streams.recorder import (
    LONG,
    Open,
    Recorder,
    run_until,
    shrink_buffers,
)

from fdmux.streams.client import add_stream

if TYPE_CHECKING:
    from fdmux.loop.event_loop import SelectorEventLoop
    from fdmux.streams.stream import Stream


def test_closed_outside_of_a_batch_is_told_at_once(
    loop: SelectorEventLoop, stream: Stream, handler: Recorder
) -> None:
    loop.call_later(0, stream.close)
    run_until(loop, lambda: handler.calls == ["close"])


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
    stream.write(b"x")
    loop.run_once(0)
    assert handler.calls == ["close"]
    stream.write(b"x")
    stream.writelines([b"x", b"y"])
    with pytest.raises(TypeError, match="bytes-like"):
        stream.write("text")  # type: ignore[arg-type] # on purpose
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
    """Of two streams ready in one batch, the first closes the other."""
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


def test_close_sends_what_is_queued_and_tells_of_nothing_meanwhile(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    shrink_buffers(stream)
    size = 0
    while stream.buffered < 64 * 1024:  # `queue_high`: it will fall to `queue_low`
        stream.write(b"x" * 10_000)
        size += 10_000
    stream.close()
    peer.setblocking(False)
    got = 0
    while not handler.errors:
        with contextlib.suppress(BlockingIOError):
            got += len(peer.recv(1 << 16))
        loop.run_once(0)
    peer.settimeout(LONG)
    assert got + len(receive(peer, 1 << 20)) == size
    assert handler.calls == ["close"]


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


def test_peer_is_known_in_the_end_also_when_the_native_loop_is_closed(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    peers: list[object] = []

    def on_close(stream: Stream, _error: Exception | None) -> None:
        peers.append(stream.peername)

    handler.on_close = on_close  # type: ignore[assignment, method-assign] # by position
    loop.native.close()
    assert peers == [peer.getsockname()]
    assert stream.peername is None
