"""connect_with_timeout on names: what the resolver may do; hosts of many addresses."""

from __future__ import annotations

import errno
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Protocol

import pytest
from tests.peers import deaf_address

import fdmux.sockets.connect
import fdmux.sockets.schedule
from fdmux.sockets.connect import connect_with_timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

SocketAddress = tuple[str, int]


class SetAnswer(Protocol):
    def __call__(self, *addresses: SocketAddress) -> None: ...


class Recorded(socket.socket):
    """A socket that can be asked about after the fact."""

    made: list[Recorded]

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        Recorded.made.append(self)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """List each socket that any code creates from now on."""
    Recorded.made = []
    monkeypatch.setattr(socket, "socket", Recorded)
    return Recorded.made


@pytest.fixture
def resolves_to(monkeypatch: pytest.MonkeyPatch) -> SetAnswer:
    """Return a function that makes every name resolve to its IPv4 addresses."""

    def set_answer(*addresses: SocketAddress) -> None:
        def getaddrinfo(*_: object, type: int, flags: int) -> list[object]:  # noqa: A002 - the stdlib's name
            if flags & socket.AI_NUMERICHOST:
                raise socket.gaierror(socket.EAI_NONAME, "not a literal")
            return [(socket.AF_INET, type, 6, "", address) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return set_answer


@pytest.fixture
def listener() -> Iterator[SocketAddress]:
    with socket.create_server(("127.0.0.2", 0)) as server:
        yield server.getsockname()


@pytest.fixture
def refusing() -> Iterator[SocketAddress]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.3", 0))
        yield bound.getsockname()


@pytest.fixture
def silent() -> Iterator[SocketAddress]:
    with deaf_address("127.0.0.4") as address:
        yield address


def test_next_address_is_tried_after_a_refusal(
    resolves_to: SetAnswer,
    refusing: SocketAddress,
    listener: SocketAddress,
    made: list[Recorded],
) -> None:
    resolves_to(refusing, listener)
    started = time.monotonic()
    with connect_with_timeout("two.test", 80) as sock:
        assert sock.getpeername() == listener
        assert time.monotonic() - started < fdmux.sockets.schedule.STAGGER
        assert [one.fileno() for one in made] == [-1, sock.fileno()]


def test_next_address_is_tried_after_the_stagger(
    monkeypatch: pytest.MonkeyPatch,
    resolves_to: SetAnswer,
    silent: SocketAddress,
    listener: SocketAddress,
    made: list[Recorded],
) -> None:
    monkeypatch.setattr(fdmux.sockets.schedule, "STAGGER", 0.03)
    resolves_to(silent, listener)
    started = time.monotonic()
    with connect_with_timeout("two.test", 80) as sock:
        assert time.monotonic() - started >= 0.03
        assert sock.getpeername() == listener
        assert [one.fileno() for one in made] == [-1, sock.fileno()], "loser open"


def test_failure_hastens_the_next_while_an_earlier_one_goes_on(
    monkeypatch: pytest.MonkeyPatch,
    resolves_to: SetAnswer,
    silent: SocketAddress,
    refusing: SocketAddress,
    listener: SocketAddress,
) -> None:
    monkeypatch.setattr(fdmux.sockets.schedule, "STAGGER", 0.1)
    resolves_to(silent, refusing, listener)
    started = time.monotonic()
    connect_with_timeout("three.test", 80).close()
    assert 0.1 <= time.monotonic() - started < 0.2, "one stagger, not two"


def test_all_refusing_lists_each(
    resolves_to: SetAnswer, refusing: SocketAddress, made: list[Recorded]
) -> None:
    host, port = refusing
    resolves_to(refusing, ("127.0.0.5", port), refusing)
    with pytest.raises(ConnectionRefusedError) as caught:
        connect_with_timeout("two.test", 80)
    assert "connect to ('two.test', 80) failed" in str(caught.value)
    assert str(caught.value).count(f"{host}: Connection refused") == 1
    assert "127.0.0.5: Connection refused" in str(caught.value)
    assert [one.fileno() for one in made] == [-1, -1]


def test_one_deadline_for_all_addresses(
    monkeypatch: pytest.MonkeyPatch,
    resolves_to: SetAnswer,
    refusing: SocketAddress,
    silent: SocketAddress,
    made: list[Recorded],
) -> None:
    monkeypatch.setattr(fdmux.sockets.schedule, "STAGGER", 0.02)
    resolves_to(silent, refusing, silent)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"timed out after 0\.08 s") as caught:
        connect_with_timeout("two.test", 80, 0.08)
    assert 0.08 <= time.monotonic() - started < 1.0
    assert "127.0.0.3: Connection refused" in str(caught.value)
    assert [one.fileno() for one in made] == [-1, -1]


def test_interrupt_closes_every_attempt(
    monkeypatch: pytest.MonkeyPatch,
    resolves_to: SetAnswer,
    silent: SocketAddress,
    made: list[Recorded],
) -> None:
    def interrupt(*_: object) -> None:
        if len(made) == 2:  # the signal comes again until both are under way
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    monkeypatch.setattr(fdmux.sockets.schedule, "STAGGER", 0.01)
    resolves_to(silent, ("127.0.0.1", 80))
    monkeypatch.setattr(Recorded, "connect_ex", lambda sock, _: reach(sock, silent))
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.03, 0.01)
    try:
        with pytest.raises(KeyboardInterrupt):
            connect_with_timeout("two.test", 80, None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [one.fileno() for one in made] == [-1, -1]


def reach(sock: socket.socket, address: SocketAddress) -> int:
    return socket.SocketType.connect_ex(sock, address)


def test_unknown_name_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(
        socket.gaierror, match=r"\('no.test', 80\).*not known"
    ) as caught:
        connect_with_timeout("no.test", 80)
    assert caught.value.errno == socket.EAI_NONAME


def test_name_without_addresses_says_so(resolves_to: SetAnswer) -> None:
    resolves_to()
    with pytest.raises(OSError, match=r"\('no.test', 80\): no address") as caught:
        connect_with_timeout("no.test", 80)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_any_error_of_the_resolver_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, flags: int, **__: object) -> None:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a literal")
        raise MemoryError("no room")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(MemoryError, match="no room"):
        connect_with_timeout("no.test", 80)


def test_hanging_resolver_does_not_break_the_deadline(
    monkeypatch: pytest.MonkeyPatch, made: list[Recorded]
) -> None:
    release = threading.Event()
    resolving: list[threading.Thread] = []

    def getaddrinfo(*_: object, flags: int, **__: object) -> list[object]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a literal")
        resolving.append(threading.current_thread())
        release.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"connect to \('slow.test', 80\) timed out"):
        connect_with_timeout("slow.test", 80, 0.05)
    elapsed = time.monotonic() - started
    release.set()
    (thread,) = resolving
    thread.join(5)
    assert 0.05 <= elapsed < 1.0
    assert thread.daemon, "a hanging resolver must not hold up the program's end"
    assert made == []


def test_time_spent_resolving_is_not_given_again(
    monkeypatch: pytest.MonkeyPatch, resolves_to: SetAnswer
) -> None:
    """An answer at the deadline is too late for any attempt."""
    now = 1000.0
    resolves_to(("127.0.0.1", 80))
    answer = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, type: int, flags: int) -> object:  # noqa: A002 - the stdlib's name
        nonlocal now
        if not flags & socket.AI_NUMERICHOST:
            now += 5.0
        return answer(host, port, type=type, flags=flags)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for module in (fdmux.sockets.connect, fdmux.sockets.wait):
        monkeypatch.setattr(module, "monotonic", lambda: now)
    monkeypatch.delattr(socket, "socket")
    with pytest.raises(TimeoutError, match=r"timed out after 5\.0 s"):
        connect_with_timeout("slow.test", 80)
