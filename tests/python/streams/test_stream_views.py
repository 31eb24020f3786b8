"""Views of what was received: passed on without a copy, and never shown again."""

from __future__ import annotations

import ctypes
import os
import socket
from typing import TYPE_CHECKING

import pytest
from tests.python.streams.recorder import (
    LONG,
    Recorder,
    receive,
    run_until,
)

from fdmux.stream import Stream, StreamHandler, add_stream

if TYPE_CHECKING:
    from fdmux.loop import SelectorEventLoop


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
