"""A stream and its peer."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from tests.python.streams.recorder import (
    LONG,
    Recorder,
)

from fdmux.streams.client import add_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fdmux.loop.event_loop import SelectorEventLoop
    from fdmux.streams.stream import Stream


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
