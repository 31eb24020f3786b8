"""connect_with_timeout when a system call fails: the exact error, nothing left open."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from fdmux.sockets.connect import connect_with_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Faulty(socket.socket):
    """A socket whose calls can be made to fail; it keeps every socket made."""

    made: list[Faulty]
    connect_status: Callable[[Faulty, tuple[str, int]], int] | None
    failing: dict[str, int]
    connects: int

    def __init__(self, *args: int) -> None:
        self._fail("socket")
        super().__init__(*args)
        Faulty.made.append(self)

    def _fail(self, call: str) -> None:
        code = Faulty.failing.get(call)
        if code is not None:
            raise OSError(code, os.strerror(code))

    def connect_ex(self, address: tuple[str, int]) -> int:  # type: ignore[override] # IPv4 only
        Faulty.connects += 1
        if Faulty.connect_status is None:
            return super().connect_ex(address)
        return Faulty.connect_status(self, address)

    def getsockopt(self, *args: int) -> int:  # type: ignore[override] # the int form only
        self._fail("getsockopt")
        return super().getsockopt(*args)

    def getpeername(self) -> object:
        self._fail("getpeername")
        return super().getpeername()

    def recv(self, *args: int) -> bytes:
        self._fail("recv")
        return super().recv(*args)

    def setblocking(self, flag: bool, /) -> None:
        self._fail("setblocking")
        super().setblocking(flag)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> type[Faulty]:
    Faulty.made, Faulty.failing, Faulty.connects = [], {}, 0
    Faulty.connect_status = None
    monkeypatch.setattr(socket, "socket", Faulty)
    return Faulty


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def all_closed(kind: type[Faulty]) -> bool:
    return all(sock.fileno() == -1 for sock in kind.made)


REFUSALS = [
    (errno.ECONNREFUSED, ConnectionRefusedError),
    (errno.ECONNRESET, ConnectionResetError),
    (errno.ETIMEDOUT, TimeoutError),
    (errno.EACCES, PermissionError),
    (errno.EPERM, PermissionError),
    (errno.ENETUNREACH, OSError),
    (errno.EHOSTUNREACH, OSError),
    (errno.EADDRNOTAVAIL, OSError),
    (errno.EADDRINUSE, OSError),
    (errno.EAGAIN, BlockingIOError),
]


@pytest.mark.parametrize(
    ("code", "kind"), REFUSALS, ids=[errno.errorcode[code] for code, _ in REFUSALS]
)
def test_each_errno_comes_as_its_own_class(
    port: int, faulty: type[Faulty], code: int, kind: type[OSError]
) -> None:
    faulty.connect_status = lambda *_: code
    with pytest.raises(kind, match=r"connect to \('127.0.0.1', \d+\)") as caught:
        connect_with_timeout("127.0.0.1", port)
    assert type(caught.value) is kind
    assert caught.value.errno == code
    assert os.strerror(code) in str(caught.value)
    assert len(faulty.made) == faulty.connects == 1
    assert all_closed(faulty)


@pytest.mark.parametrize("code", [errno.EINTR, errno.EALREADY, errno.EINPROGRESS])
def test_attempt_under_way_is_waited_for_and_not_repeated(
    port: int, faulty: type[Faulty], code: int
) -> None:
    def interrupted(sock: Faulty, address: tuple[str, int]) -> int:
        socket.SocketType.connect_ex(sock, address)
        return code

    faulty.connect_status = interrupted
    with connect_with_timeout("127.0.0.1", port) as sock:
        assert sock.getpeername() == ("127.0.0.1", port)
    assert faulty.connects == 1


@pytest.mark.parametrize("code", [0, errno.EISCONN])
def test_attempt_that_connects_at_once_needs_no_wait(
    port: int,
    faulty: type[Faulty],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    def at_once(sock: Faulty, address: tuple[str, int]) -> int:
        socket.SocketType.setblocking(sock, True)
        socket.SocketType.connect_ex(sock, address)
        return code

    def wait(*_: object) -> None:
        raise AssertionError("waited")

    faulty.connect_status = at_once
    monkeypatch.setattr("fdmux.sockets.connect.wait_writable", wait)
    connect_with_timeout("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("socket", errno.EMFILE),
        ("socket", errno.ENOBUFS),
        ("socket", errno.EAFNOSUPPORT),
        ("setblocking", errno.EBADF),
        ("getsockopt", errno.ENOBUFS),
        ("getpeername", errno.ENOBUFS),
    ],
)
def test_failing_call_is_the_error_and_leaves_nothing(
    port: int, faulty: type[Faulty], call: str, code: int
) -> None:
    faulty.failing = {call: code}
    with pytest.raises(OSError, match=r"connect to \('127.0.0.1', \d+\)") as caught:
        connect_with_timeout("127.0.0.1", port)
    assert caught.value.errno == code
    assert len(faulty.made) == (0 if call == "socket" else 1)
    assert all_closed(faulty)


def test_writable_but_not_connected_asks_for_the_cause(
    port: int, faulty: type[Faulty]
) -> None:
    faulty.failing = {"getpeername": errno.ENOTCONN, "recv": errno.ECONNRESET}
    with pytest.raises(ConnectionResetError):
        connect_with_timeout("127.0.0.1", port)
    assert all_closed(faulty)


def test_connection_to_itself_is_refused(faulty: type[Faulty]) -> None:
    def from_the_same_port(sock: Faulty, address: tuple[str, int]) -> int:
        sock.bind(address)  # what the kernel may choose by itself, by chance
        return socket.SocketType.connect_ex(sock, address)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    faulty.made.clear()
    faulty.connect_status = from_the_same_port
    with pytest.raises(ConnectionRefusedError, match="Connected to itself"):
        connect_with_timeout("127.0.0.1", port)
    assert len(faulty.made) == 1
    assert all_closed(faulty)


def two_addresses(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    def getaddrinfo(*_: object, **__: object) -> list[object]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
            for host in ("127.0.0.9", "127.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (errno.ENETUNREACH, errno.ECONNREFUSED, errno.ECONNREFUSED),
        (errno.ECONNREFUSED, errno.ENETUNREACH, errno.ECONNREFUSED),
        (errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.EHOSTUNREACH),
        (errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EADDRNOTAVAIL),
    ],
)
def test_what_the_host_said_tells_more_than_what_this_machine_lacks(
    monkeypatch: pytest.MonkeyPatch,
    faulty: type[Faulty],
    first: int,
    second: int,
    told: int,
) -> None:
    codes = {"127.0.0.9": first, "127.0.0.1": second}
    two_addresses(monkeypatch, 80)
    faulty.connect_status = lambda _, address: codes[address[0]]
    with pytest.raises(OSError, match=r"127\.0\.0\.9: .*; 127\.0\.0\.1: ") as caught:
        connect_with_timeout("two.test", 80)
    assert caught.value.errno == told
    assert all_closed(faulty)


def test_address_that_fails_before_its_socket_does_not_end_the_race(
    monkeypatch: pytest.MonkeyPatch, port: int, faulty: type[Faulty]
) -> None:
    def unreachable_first(sock: Faulty, address: tuple[str, int]) -> int:
        if address[0] == "127.0.0.9":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return socket.SocketType.connect_ex(sock, address)

    two_addresses(monkeypatch, port)
    faulty.connect_status = unreachable_first
    with connect_with_timeout("two.test", port) as sock:
        assert sock.getpeername()[0] == "127.0.0.1"
        assert [one.fileno() for one in faulty.made] == [-1, sock.fileno()]
