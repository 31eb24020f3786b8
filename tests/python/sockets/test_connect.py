"""connect_with_timeout against real loopback sockets and hostile arguments."""

from __future__ import annotations

import errno
import math
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.peers import deaf_address

from fdmux.errnos import text_of
from fdmux.sockets.connect import connect_with_timeout

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def deaf_port() -> Iterator[int]:
    with deaf_address() as (_, port):
        yield port


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, so that nobody else gets it, but that refuses."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise AssertionError("the resolver was asked")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def test_connected_socket_is_blocking_and_works(server: socket.socket) -> None:
    with connect_with_timeout("127.0.0.1", port_of(server)) as sock:
        assert sock.gettimeout() is None
        assert os.get_blocking(sock.fileno())
        assert not sock.get_inheritable()
        accepted, peer = server.accept()
        with accepted:
            assert peer == sock.getsockname()
            sock.sendall(b"hello")
            assert accepted.recv(16) == b"hello"


def test_default_timeout_of_the_program_is_not_taken_over(
    server: socket.socket,
) -> None:
    socket.setdefaulttimeout(3.0)
    try:
        with connect_with_timeout("127.0.0.1", port_of(server)) as sock:
            assert sock.gettimeout() is None
            assert os.get_blocking(sock.fileno())
    finally:
        socket.setdefaulttimeout(None)


def test_name_is_resolved(server: socket.socket) -> None:
    with connect_with_timeout("localhost", port_of(server)) as sock:
        assert sock.getpeername() == server.getsockname()


def test_ipv6_literal() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 loopback on this machine: {error}")
    with listener, connect_with_timeout("::1", port_of(listener)) as sock:
        assert sock.family == socket.AF_INET6
        assert sock.getpeername() == listener.getsockname()


def test_literal_address_starts_no_thread(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def thread(*_: object, **__: object) -> None:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(threading, "Thread", thread)
    connect_with_timeout("127.0.0.1", port_of(server)).close()
    with pytest.raises(AssertionError, match="a thread was started"):
        connect_with_timeout("localhost", port_of(server))


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300, 2**31 / 1000, 1])
def test_long_timeouts_are_accepted(
    server: socket.socket, timeout: float | None
) -> None:
    connect_with_timeout("127.0.0.1", port_of(server), timeout).close()
    connect_with_timeout("localhost", port_of(server), timeout).close()


def test_refused_names_the_target(closed_port: int) -> None:
    with pytest.raises(ConnectionRefusedError) as caught:
        connect_with_timeout("127.0.0.1", closed_port)
    assert caught.value.errno == errno.ECONNREFUSED
    assert f"connect to ('127.0.0.1', {closed_port}) failed" in str(caught.value)
    assert text_of(errno.ECONNREFUSED) in str(caught.value)


def test_silent_host_times_out_within_the_deadline(deaf_port: int) -> None:
    late = []
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=r"timed out after 0\.06 s") as caught:
            connect_with_timeout("127.0.0.1", deaf_port, 0.06)
        late.append(time.monotonic() - started - 0.06)
        assert f"connect to ('127.0.0.1', {deaf_port})" in str(caught.value)
    assert min(late) >= 0
    assert min(late) <= 0.05


@pytest.mark.parametrize("timeout", [0, -1, -math.inf])
@pytest.mark.usefixtures("no_resolver")
def test_no_time_is_a_timeout_before_any_call(
    monkeypatch: pytest.MonkeyPatch, timeout: float
) -> None:
    monkeypatch.delattr(socket, "socket")
    with pytest.raises(TimeoutError, match="timed out after"):
        connect_with_timeout("127.0.0.1", 80, timeout)


def test_signal_does_not_stretch_the_deadline(deaf_port: int) -> None:
    arrivals: list[float] = []
    before = signal.signal(signal.SIGALRM, lambda *_: arrivals.append(time.monotonic()))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            connect_with_timeout("127.0.0.1", deaf_port, 0.1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert arrivals, "no signal came, so nothing was tested"
    assert 0.1 <= time.monotonic() - started < 1.0


@pytest.mark.usefixtures("no_resolver")
def test_port_0_is_refused() -> None:
    with pytest.raises(ConnectionRefusedError, match=r"\('127.0.0.1', 0\)"):
        connect_with_timeout("127.0.0.1", 0)


@pytest.mark.parametrize("port", [-1, 65536, 2**70])
@pytest.mark.usefixtures("no_resolver")
def test_port_out_of_range_is_an_overflow(port: int) -> None:
    with pytest.raises(OverflowError, match=r"port is .*; it must be in 0\.\.65535"):
        connect_with_timeout("127.0.0.1", port)


@pytest.mark.parametrize("port", ["80", 80.0, None])
@pytest.mark.usefixtures("no_resolver")
def test_port_that_is_no_integer_is_a_type_error(port: int) -> None:
    with pytest.raises(TypeError, match=r"port is .*an integer in 0\.\.65535"):
        connect_with_timeout("127.0.0.1", port)


@pytest.mark.parametrize(
    "host",
    ["", "local\0host", "a" * 256, "a." * 128, "a" * 64 + ".example", "a..b", "\udc80"],
    ids=["empty", "nul", "256", "256-dots", "long-label", "no-label", "surrogate"],
)
@pytest.mark.usefixtures("no_resolver")
def test_host_that_no_name_can_be_is_a_value_error(host: str) -> None:
    with pytest.raises(ValueError, match="host"):
        connect_with_timeout(host, 80)


@pytest.mark.parametrize("host", [None, b"localhost", 127])
@pytest.mark.usefixtures("no_resolver")
def test_host_that_is_no_text_is_a_type_error(host: str) -> None:
    with pytest.raises(TypeError, match=r"host is .*; it must be a str"):
        connect_with_timeout(host, 80)


@pytest.mark.usefixtures("no_resolver")
def test_nan_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="NaN"):
        connect_with_timeout("127.0.0.1", 80, math.nan)
