"""Python code on rare paths: the system refuses, or a signal arrives in between."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, cast

import pytest

from fdmux import NativeLoop, sdk
from fdmux.__main__ import main
from fdmux._ffi import lib
from fdmux.commands import info
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.loop.interest import InterestTable
from fdmux.loop.wakeup import DRAIN_SIZE, WakeChannel
from fdmux.streams.address import listen_at_path
from fdmux.streams.client import add_stream
from fdmux.streams.echo import EchoServer
from fdmux.streams.listener import Listener, ServerStream
from fdmux.streams.server import StreamServer, log_unexpected
from fdmux.streams.stream import Stream, StreamHandler

if TYPE_CHECKING:
    from typing import NoReturn

LONG = 30.0


def refuse(*_arguments: object, **_options: object) -> NoReturn:
    raise OSError(24, "Too many open files")


# ---- commands --------------------------------------------------------------------


def test_info_says_why_there_is_no_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(info, "NativeLoop", refuse)
    assert main(["info"]) == 1
    assert "Too many open files" in capsys.readouterr().err


def test_info_goes_on_without_the_headers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_nothing() -> NoReturn:
        raise FileNotFoundError

    monkeypatch.setattr(sdk, "get_include", find_nothing)
    assert main(["info"]) == 0
    assert "epoll" in capsys.readouterr().out


@pytest.mark.slow
def test_echo_whose_reader_has_gone_ends_quietly() -> None:
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    command = [sys.executable, "-m", "fdmux", "echo", "--port", "0"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=writing_end,
            stderr=subprocess.PIPE,
            check=False,
            timeout=LONG,
        )
    finally:
        os.close(writing_end)
    assert (done.returncode, done.stderr) == (1, b"")


# ---- servers ---------------------------------------------------------------------


def test_server_without_a_thread_can_be_run_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(_thread: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    with EchoServer(port=0) as server:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                server.run_in_thread()
        server.run_in_thread()


def test_path_that_cannot_be_one_leaves_no_socket() -> None:
    with pytest.raises(UnicodeEncodeError):
        listen_at_path("\ud800", 1)  # half of a character


def test_unexpected_errors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    log_unexpected(OSError("who"), "somebody")
    Listener._callback_failed(cast("Listener", "a listener"), OSError("what"), "event")
    assert "unexpected error in a callback of 'somebody'" in caplog.text
    assert "unexpected error in 'a listener'" in caplog.text


# ---- loops -----------------------------------------------------------------------


def test_signal_ends_a_dispatch_of_native_code() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    try:
        with NativeLoop() as native:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            assert native.dispatch(30.0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == [signal.SIGALRM]


def test_many_wake_ups_are_drained_at_once() -> None:
    channel = WakeChannel()
    try:
        channel._writer.send(bytes(DRAIN_SIZE + 1))
        channel.drain()
        with pytest.raises(BlockingIOError):
            channel.reader.recv(1)
    finally:
        channel.close()


def test_table_keeps_its_selector_when_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with selectors.EpollSelector() as selector:
        table = InterestTable(selector)
        assert len(table) == 0
        table.has_ghosts = True
        with monkeypatch.context() as patch:
            patch.setattr(selectors, "EpollSelector", refuse)
            table.replace_selector()
        assert table.selector is selector
        assert table.has_ghosts  # so that the next wait tries again


class StopsListening(StreamHandler):
    """Stops listening after its first client."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []

    def on_connect(self, stream: Stream) -> None:
        self.streams.append(stream)
        cast("ServerStream", stream).listener.abort()


def test_second_client_is_let_go_when_the_first_ends_listening() -> None:
    handler = StopsListening()
    with (
        StreamServer("127.0.0.1", 0, handler) as server,
        socket.create_connection(server.address, timeout=LONG) as first,
        socket.create_connection(server.address, timeout=LONG) as second,
    ):
        server.run(max_iterations=1)
        assert len(handler.streams) == server.stats.open == 1
        with contextlib.suppress(ConnectionResetError):
            assert second.recv(1) == b""
        first.setblocking(False)
        with pytest.raises(BlockingIOError):
            first.recv(1)


class Echoes(StreamHandler):
    """Answers each message, so that only streams keep the loop busy."""

    def on_data(self, _stream: Stream, data: bytes) -> bytes:
        return data


@pytest.mark.faults
def test_error_of_the_kernel_in_a_loop_of_streams_leaves_run() -> None:
    hooked: list[Exception] = []
    near, far = socket.socketpair()
    with (
        SelectorEventLoop(error_hook=lambda error, _: hooked.append(error)) as loop,
        far,
    ):
        add_stream(loop, near, Echoes())
        far.send(b"bytes")
        waits = lib.FDMUX_CALL_WAIT | lib.FDMUX_CALL_PWAIT2
        lib.fdmux_testing_fail(waits, 1, errno.EMFILE, 1)
        with pytest.raises(OSError, match="Too many open files"):
            loop.run()
        lib.fdmux_testing_fail(0, 0, 0, 0)
        loop.run_once(LONG)
        assert far.recv(5) == b"bytes"
    assert hooked == []
