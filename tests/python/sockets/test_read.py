"""read_with_timeout: exactly n bytes, or an error that carries what came."""

from __future__ import annotations

import errno
import math
import pickle
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.peers import reset

from fdmux.errnos import text_of
from fdmux.sockets.read import IncompleteReadError, ReadTimeoutError, read_with_timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def tcp_pair() -> Iterator[Pair]:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            yield client, accepted


def told(error: BaseException) -> tuple[bytes, int]:
    """Return what an error says about the bytes."""
    return error.__dict__["partial"], error.__dict__["expected"]


def test_exactly_n_bytes_are_taken(pair: Pair) -> None:
    pair[1].send(b"hello, world")
    assert read_with_timeout(pair[0], 5) == b"hello"
    assert read_with_timeout(pair[0], 7) == b", world"


def test_result_is_bytes_of_their_own(pair: Pair) -> None:
    pair[1].send(b"x")
    assert type(read_with_timeout(pair[0], 1)) is bytes


def test_timeout_tells_what_came_and_what_was_expected(pair: Pair) -> None:
    pair[1].send(b"abc")
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"read of 10 bytes from fd \d+ ") as caught:
        read_with_timeout(pair[0], 10, 0.05)
    assert time.monotonic() - started >= 0.05
    assert isinstance(caught.value, ReadTimeoutError)
    assert (caught.value.partial, caught.value.expected) == (b"abc", 10)


def test_timeout_loses_nothing(pair: Pair) -> None:
    pair[1].send(b"first ")
    with pytest.raises(ReadTimeoutError) as caught:
        read_with_timeout(pair[0], 12, 0)
    pair[1].send(b"second")
    rest = caught.value.expected - len(caught.value.partial)
    assert caught.value.partial + read_with_timeout(pair[0], rest) == b"first second"


@pytest.mark.parametrize("sent", [b"", b"abc"])
def test_end_of_stream_tells_what_came(pair: Pair, sent: bytes) -> None:
    pair[1].send(sent)
    pair[1].shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError, match="peer ended the stream") as caught:
        read_with_timeout(pair[0], 10)
    assert isinstance(caught.value, IncompleteReadError)
    assert (caught.value.partial, caught.value.expected) == (sent, 10)


def test_end_of_stream_after_n_bytes_is_no_error(pair: Pair) -> None:
    pair[1].send(b"abc")
    pair[1].close()
    assert read_with_timeout(pair[0], 3) == b"abc"


def test_errors_survive_pickling() -> None:
    for kind in (ReadTimeoutError, IncompleteReadError):
        error = kind("told")
        error.partial, error.expected = b"abc", 10
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        assert (str(copy), *told(copy)) == ("told", b"abc", 10)


def test_reset_comes_as_it_is_with_what_came_before(tcp_pair: Pair) -> None:
    client, server = tcp_pair
    server.send(b"abc")
    reset(server)
    with pytest.raises(ConnectionResetError) as caught:
        read_with_timeout(client, 10)
    assert told(caught.value) == (b"abc", 10)


def test_exception_of_a_signal_handler_carries_what_came(pair: Pair) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        pair[1].send(b"abc")
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(KeyboardInterrupt) as caught:
            read_with_timeout(pair[0], 10, None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert told(caught.value) == (b"abc", 10)


def test_signal_does_not_end_the_read(pair: Pair) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: pair[1].send(b"z"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        assert read_with_timeout(pair[0], 3, None) == b"zzz"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_no_bytes_do_not_touch_the_socket() -> None:
    closed = socket.socket()
    closed.close()
    assert read_with_timeout(closed, 0) == b""
    assert read_with_timeout(closed, 0, -1) == b""


@pytest.mark.parametrize("n", [-1, -(2**70)])
def test_negative_n_is_a_value_error(pair: Pair, n: int) -> None:
    with pytest.raises(ValueError, match=str(n)):
        read_with_timeout(pair[0], n)


@pytest.mark.parametrize("n", [1.0, "1", None, math.nan])
def test_n_that_is_no_integer_is_a_type_error(pair: Pair, n: int) -> None:
    with pytest.raises(TypeError):
        read_with_timeout(pair[0], n)


def test_bad_arguments_take_nothing_from_the_socket(pair: Pair) -> None:
    pair[1].send(b"abc")
    with pytest.raises(ValueError, match="NaN"):
        read_with_timeout(pair[0], 1, math.nan)
    with pytest.raises(ValueError, match="NaN"):
        read_with_timeout(pair[0], 0, math.nan)
    with pytest.raises(TypeError):
        read_with_timeout(pair[0], 1, "1")  # type: ignore[arg-type] # under test
    assert pair[0].recv(10) == b"abc"


@pytest.mark.parametrize("timeout", [0, -1, -math.inf])
def test_no_time_takes_what_is_there(pair: Pair, timeout: float) -> None:
    pair[1].send(b"abc")
    assert read_with_timeout(pair[0], 2, timeout) == b"ab"
    with pytest.raises(ReadTimeoutError) as caught:
        read_with_timeout(pair[0], 2, timeout)
    assert caught.value.partial == b"c"


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300, 2**31 / 1000])
def test_long_timeouts_are_accepted(pair: Pair, timeout: float | None) -> None:
    sender = threading.Timer(0.01, pair[1].send, [b"abc"])
    sender.start()
    assert read_with_timeout(pair[0], 3, timeout) == b"abc"
    sender.join()


def test_huge_n_costs_only_what_comes(pair: Pair) -> None:
    pair[1].send(b"abc")
    pair[1].close()
    with pytest.raises(IncompleteReadError) as caught:
        read_with_timeout(pair[0], 2**62)
    assert (caught.value.partial, caught.value.expected) == (b"abc", 2**62)


def test_megabytes_come_in_order(pair: Pair) -> None:
    message = bytes(range(256)) * 16384
    sender = threading.Thread(target=pair[1].sendall, args=[message])
    sender.start()
    assert read_with_timeout(pair[0], len(message)) == message
    sender.join()


@pytest.mark.parametrize("timeout", [None, 0.0, 3.0])
def test_closed_socket_is_a_bad_descriptor(timeout: float | None) -> None:
    closed = socket.socket()
    closed.settimeout(timeout)
    closed.close()
    with pytest.raises(OSError, match=r".") as caught:
        read_with_timeout(closed, 1)
    assert caught.value.errno == errno.EBADF
    assert told(caught.value) == (b"", 1)


def test_socket_that_is_not_connected_is_an_error() -> None:
    with socket.socket() as sock, pytest.raises(OSError, match=r".") as caught:
        read_with_timeout(sock, 1)
    assert caught.value.errno == errno.ENOTCONN
    assert text_of(errno.ENOTCONN) in str(caught.value)
