"""Streams and their loop: callbacks that raise, its end, a fork, native code beside."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest
from tests.peers import receive
from tests.python.streams.recorder import LONG, Recorder, run_until

from fdmux.streams.client import add_stream
from fdmux.streams.stream import Stream, StreamHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.compiled import HasLoop
    from tests.python.conftest import NativeUser

    from fdmux.loop.event_loop import SelectorEventLoop


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
        good.answer = lambda _, data: data
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


def test_interrupt_in_a_callback_loses_nothing(loop: SelectorEventLoop) -> None:
    """Ten are ready; the third is interrupted; more data arrives before the rest."""
    handler = Recorder()
    pairs = [socket.socketpair() for _ in range(10)]

    def answer(_stream: Stream, data: bytes) -> bytes:
        if len(handler.data) == 3:
            signal.raise_signal(signal.SIGINT)
        return data

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
    stream.write(b"x")
    stream.abort()
    assert stream.fileno() == -1


def test_close_of_the_loop_after_an_interrupt(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Recorder
) -> None:
    def interrupt(_stream: Stream, _data: bytes) -> None:
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

    def fork(_stream: Stream, _data: bytes) -> None:
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
