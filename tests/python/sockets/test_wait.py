"""wait_readable and wait_writable: what is ready, in order, and never early."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from fdmux.sockets.wait import wait_readable, wait_writable

if TYPE_CHECKING:
    from collections.abc import Callable

Pair = tuple[socket.socket, socket.socket]


def fill_up(sock: socket.socket) -> None:
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            sock.send(b"x" * 65536)


class Wrapped:
    """An object that only has a fileno()."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd


def test_none_given_returns_at_once() -> None:
    assert wait_readable([], timeout=None) == []
    assert wait_writable(iter(()), timeout=None) == []


def test_none_ready_returns_an_empty_list(pair: Pair, other: Pair) -> None:
    assert wait_readable([pair[0]], timeout=0) == []
    assert wait_readable([pair[0], other[0]], timeout=0) == []
    fill_up(pair[0])
    assert wait_writable([pair[0]], timeout=0) == []
    assert wait_writable([pair[0], pair[0]], timeout=0) == []


def test_ready_subset_comes_in_the_order_given(pair: Pair, other: Pair) -> None:
    pair[1].send(b"x")
    other[1].send(b"x")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as idle:
        assert wait_readable([other[0], idle, pair[0]]) == [other[0], pair[0]]
        assert wait_readable([pair[0], idle, other[0]]) == [pair[0], other[0]]


def test_the_very_objects_given_come_back(pair: Pair) -> None:
    pair[1].send(b"x")
    fd = pair[0].fileno()
    wrapped = Wrapped(fd)
    given: list[socket.socket | int | Wrapped] = [wrapped, pair[0], fd, wrapped]
    ready = wait_readable(given)
    assert [id(one) for one in ready] == [id(one) for one in given]


@pytest.mark.parametrize("kind", ["socket", "int", "object"])
def test_each_kind_is_accepted_alone(pair: Pair, kind: str) -> None:
    pair[1].send(b"x")
    fd = pair[0].fileno()
    kinds: dict[str, socket.socket | int | Wrapped] = {
        "socket": pair[0],
        "int": fd,
        "object": Wrapped(fd),
    }
    one = kinds[kind]
    assert wait_readable([one]) == [one]
    assert wait_writable([one]) == [one]


def test_any_iterable_is_accepted(pair: Pair) -> None:
    pair[1].send(b"x")
    assert wait_readable(sock for sock in (pair[0],)) == [pair[0]]
    assert wait_writable({pair[0]: "value"}) == [pair[0]]


def test_one_direction_does_not_answer_for_the_other(pair: Pair) -> None:
    assert wait_readable([pair[0]], timeout=0) == []
    assert wait_writable([pair[0]], timeout=0) == [pair[0]]
    fill_up(pair[1])
    assert wait_readable([pair[0]], timeout=0) == [pair[0]]
    assert wait_writable([pair[1]], timeout=0) == []


def test_writable_again_after_the_peer_has_read(pair: Pair) -> None:
    fill_up(pair[0])
    pair[1].setblocking(False)
    with suppress(BlockingIOError):
        while True:
            pair[1].recv(65536)
    assert wait_writable([pair[0]]) == [pair[0]]


def test_listening_socket_is_readable_when_a_client_comes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert wait_readable([server], timeout=0) == []
        with socket.create_connection(server.getsockname()):
            assert wait_readable([server]) == [server]


@pytest.mark.parametrize("wait", [wait_readable, wait_writable])
def test_hang_up_is_ready_in_both_directions(
    pair: Pair, wait: Callable[[list[socket.socket]], list[socket.socket]]
) -> None:
    fill_up(pair[0])
    pair[1].close()
    assert wait([pair[0]]) == [pair[0]]
    assert wait([pair[0], pair[0]]) == [pair[0], pair[0]]


def test_error_alone_is_ready_in_both_directions() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        assert wait_readable([write_end]) == [write_end]  # POLLERR and nothing else
    finally:
        os.close(write_end)


def test_regular_file_is_always_ready() -> None:
    with tempfile.TemporaryFile() as file:
        assert wait_readable([file], timeout=0) == [file]
        assert wait_writable([file.fileno()], timeout=0) == [file.fileno()]


def test_descriptor_that_is_not_open_is_an_error(pair: Pair) -> None:
    fd = os.dup(pair[0].fileno())
    os.close(fd)
    for given in ([fd], [fd, pair[1].fileno()], [pair[1].fileno(), fd]):
        with pytest.raises(OSError, match=f"fd {fd}:") as caught:
            wait_writable(given, timeout=0)
        assert caught.value.errno == errno.EBADF


def test_socket_whose_descriptor_was_closed_behind_its_back_is_an_error() -> None:
    with socket.socket() as sock:
        fd = sock.fileno()
        os.close(fd)
        with pytest.raises(OSError, match=f"fd {fd}:") as caught:
            wait_readable([sock], timeout=0)
        sock.detach()
    assert caught.value.errno == errno.EBADF


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="Linux has it")
@pytest.mark.parametrize("wait", [wait_readable, wait_writable])
def test_descriptor_of_a_path_is_named(
    wait: Callable[[list[int], float], object], pair: Pair
) -> None:
    fd = os.open("/", os.O_PATH)
    try:
        for given in ([fd], [fd, pair[1].fileno()]):
            with pytest.raises(OSError, match=f"fd {fd}: .*O_PATH") as caught:
                wait(given, 0)
            assert caught.value.errno == errno.EBADF
    finally:
        os.close(fd)


class ClosedPort:
    """A closed port as pyserial has it."""

    def fileno(self) -> int:
        raise OSError("Attempting to use a port that is not open")


def test_error_of_fileno_is_told(pair: Pair) -> None:
    many: list[ClosedPort | socket.socket] = [ClosedPort(), pair[0]]
    for given in (many[:1], many):
        with pytest.raises(ValueError, match=r"fileno\(\) raised .*not open") as caught:
            wait_readable(given, 0)
        assert isinstance(caught.value.__cause__, OSError)


def test_closed_socket_is_a_value_error(pair: Pair) -> None:
    closed = socket.socket()
    closed.close()
    with pytest.raises(ValueError, match="-1"):
        wait_readable([closed])
    with pytest.raises(ValueError, match="-1"):
        wait_readable([pair[0], closed])
    with pytest.raises(ValueError, match="-7"):
        wait_writable([-7])


def test_what_has_no_descriptor_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="Invalid file object"):
        wait_readable(["a"])  # type: ignore[type-var] # the mistake under test
    with pytest.raises(ValueError, match="Invalid file object"):
        wait_readable([None])  # type: ignore[type-var] # the mistake under test


def test_socket_instead_of_a_list_is_a_type_error(pair: Pair) -> None:
    with pytest.raises(TypeError):
        wait_readable(pair[0])  # type: ignore[arg-type] # the mistake under test


def test_many_descriptors_with_few_ready() -> None:
    pairs = [socket.socketpair() for _ in range(200)]
    try:
        for _, right in pairs[::50]:
            right.send(b"x")
        lefts = [left for left, _ in pairs]
        assert wait_readable(lefts) == lefts[::50]
    finally:
        for left, right in pairs:
            left.close()
            right.close()
