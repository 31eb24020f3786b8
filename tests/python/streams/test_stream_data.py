"""Data arrives in the order it was sent, as bytes that the user may keep."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from tests.peers import receive
from tests.python.streams.recorder import LONG, Recorder, run_until

from fdmux.streams.client import add_stream
from fdmux.streams.limits import StreamLimits
from fdmux.streams.stream import Stream, StreamHandler

if TYPE_CHECKING:
    from fdmux.loop.event_loop import SelectorEventLoop

LARGE = 256 * 1024


@pytest.mark.usefixtures("stream")
def test_data_that_is_kept_never_changes(
    loop: SelectorEventLoop, peer: socket.socket, handler: Recorder
) -> None:
    kept: list[bytes] = []
    handler.answer = lambda _, data: kept.append(data)
    for text in (b"aaaa", b"bbbb", b"cccc"):
        peer.sendall(text)
        loop.run_once(LONG)
    assert kept == [b"aaaa", b"bbbb", b"cccc"]
    assert {type(data) for data in kept} == {bytes}


@pytest.mark.parametrize("size", [1, 1000, 32 * 1024, 100_000, LARGE])
def test_data_of_any_size_arrives_whole_and_may_be_kept(
    loop: SelectorEventLoop, handler: Recorder, size: int
) -> None:
    """Sizes that are received into shared memory, and into bytes of their own."""
    kept: list[bytes] = []
    handler.answer = lambda _, data: kept.append(data)
    messages = [os.urandom(size) for _ in range(3)]
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        add_stream(loop, theirs, handler, limits=StreamLimits(receive_max=LARGE))
        for message in messages:
            send_while_it_runs(loop, ours, message)
        run_until(loop, lambda: len(handler.data) == 3 * size)
    assert b"".join(kept) == handler.data == b"".join(messages)


def send_while_it_runs(
    loop: SelectorEventLoop, sock: socket.socket, data: bytes
) -> None:
    while data:
        data = data[sock.send(data) :]
        loop.run_once(LONG)


def test_receive_max_of_256_kib_is_one_call(
    loop: SelectorEventLoop, handler: Recorder
) -> None:
    ours, theirs = socket.socketpair()
    sizes: list[int] = []
    handler.answer = lambda _, data: sizes.append(len(data))
    with ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * LARGE)
        ours.setblocking(False)
        add_stream(loop, theirs, handler, limits=StreamLimits(receive_max=LARGE))
        size = ours.send(bytes(4 * LARGE))
        run_until(loop, lambda: len(handler.data) == size)
    assert sizes[0] == min(size, LARGE)
    assert sizes[0] > 64 * 1024  # the default


def test_data_is_passed_on_to_another_stream(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        other = add_stream(loop, theirs, StreamHandler())
        handler.answer = lambda _, data: other.write(data)
        peer.sendall(b"hello")
        run_until(loop, lambda: stream.received == 5)
        assert ours.recv(9) == b"hello"
        other.close()
        loop.run_once(0)


def test_method_is_looked_up_when_the_stream_is_made(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    other = Recorder()
    handler.on_data = other.on_data  # type: ignore[method-assign] # what is tested
    peer.sendall(b"x")
    loop.run_once(LONG)
    assert (handler.data, other.data) == (b"x", b"")
    assert stream.received == 1


def test_one_stream_with_much_to_read_does_not_hold_up_another(
    loop: SelectorEventLoop, handler: Recorder
) -> None:
    """In a batch each is read once, with `receive_max` bytes at most."""
    greedy, modest = Recorder(), handler
    pairs = [socket.socketpair() for _ in range(2)]
    (much, few), limits = (pairs[0][0], pairs[1][0]), StreamLimits(receive_max=10)
    add_stream(loop, pairs[0][1], greedy, limits=limits)
    add_stream(loop, pairs[1][1], modest, limits=limits)
    with much, few:
        much.sendall(bytes(1000))
        few.sendall(b"x")
        loop.run_once(LONG)
        loop.run_once(0)
        assert modest.data == b"x"
        assert 0 < len(greedy.data) <= 20


@pytest.mark.usefixtures("stream")
def test_small_and_large_messages_take_turns(
    loop: SelectorEventLoop, peer: socket.socket, handler: Recorder
) -> None:
    handler.answer = lambda _, data: data
    asked = b""
    for size in (1, 40_000, 1, 40_000, 40_000):
        data = os.urandom(size)
        asked += data
        peer.sendall(data)
        run_until(loop, lambda asked=asked: handler.data == asked)  # type: ignore[misc] # asked is bound early
        assert receive(peer, size) == data
