"""Streams that connect: over TCP and Unix sockets, refused, and to nowhere."""

from __future__ import annotations

import errno
import math
import socket
import time
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from tests.peers import deaf_address, receive
from tests.python.streams.recorder import LONG, Recorder, run_until

from fdmux.loop.event_loop import iteration_of
from fdmux.streams.client import connect_stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fdmux.loop.event_loop import SelectorEventLoop


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
    with pytest.raises(ValueError, match="host is empty"):
        connect_stream(loop, ("", 1), handler)
    with pytest.raises(ValueError, match="cannot be a name"):
        connect_stream(loop, ("a..b", 1), handler)
    with pytest.raises(OverflowError, match=r"port is 65536; it must be in 0\.\.65535"):
        connect_stream(loop, ("127.0.0.1", 65536), handler)


@pytest.fixture
def deaf() -> Iterator[tuple[str, int]]:
    with deaf_address() as address:
        yield address


def test_unanswered_connect_ends_at_its_timeout(
    loop: SelectorEventLoop, handler: Recorder, deaf: tuple[str, int]
) -> None:
    started = time.monotonic()
    stream = connect_stream(loop, deaf, handler, timeout=Fraction(1, 20))
    run_until(loop, lambda: handler.errors)
    assert time.monotonic() - started >= 0.05
    assert handler.calls == ["close"]
    assert isinstance(handler.errors[0], TimeoutError)
    assert handler.errors[0].errno == errno.ETIMEDOUT
    assert f"connect to {deaf} timed out after 0.05 s" in str(handler.errors[0])
    assert stream.fileno() == -1


def test_close_of_a_stream_that_connects_waits_no_longer_than_its_timeout(
    loop: SelectorEventLoop, handler: Recorder, deaf: tuple[str, int]
) -> None:
    connect_stream(loop, deaf, handler, timeout=0.05).close()
    run_until(loop, lambda: handler.errors)
    assert handler.calls == ["close"]


@pytest.mark.parametrize("timeout", [60.0, None])
def test_timer_of_a_connect_is_gone_once_connected(
    loop: SelectorEventLoop, handler: Recorder, timeout: float | None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        stream = connect_stream(loop, address, handler, timeout=timeout)
        assert (iteration_of(loop).timers.next_deadline < math.inf) is (
            timeout is not None
        )
        run_until(loop, lambda: handler.calls == ["connect"])
        assert iteration_of(loop).timers.next_deadline == math.inf
        stream.abort()
        connect_stream(loop, address, handler, timeout=timeout).abort()
        run_until(loop, lambda: handler.calls.count("close") == 2)
        assert iteration_of(loop).timers.next_deadline == math.inf
