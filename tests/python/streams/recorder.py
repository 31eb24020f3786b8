"""A recording handler, and ways to wait, for the tests of streams."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from fdmux.streams.stream import Stream, StreamHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux.loop.event_loop import SelectorEventLoop

LONG = 30.0


class Recorder(StreamHandler):
    """Records its callbacks; answers as the test says."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.data = b""
        self.errors: list[Exception | None] = []
        self.answer: Callable[[Stream, bytes], object] = lambda *_: None

    def on_connect(self, _stream: Stream) -> None:
        self.calls.append("connect")

    def on_data(self, stream: Stream, data: bytes) -> bytes | None:
        self.data += data
        return self.answer(stream, data)  # type: ignore[return-value] # of the test

    def on_tls(self, _stream: Stream) -> None:
        self.calls.append("tls")

    def on_tls_failed(self, _stream: Stream, error: Exception) -> None:
        self.calls.append("tls failed")
        self.errors.append(error)

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


def run_until(
    loop: SelectorEventLoop, is_done: Callable[[], object], timeout: float = LONG
) -> None:
    for _ in range(1000):
        if is_done():
            return
        loop.run_once(timeout)
    pytest.fail("it did not happen in 1,000 iterations")


def shrink_buffers(stream: Stream) -> None:
    """Shrink the send buffer, so that the kernel accepts little."""
    with socket.socket(fileno=socket.dup(stream.fileno())) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
