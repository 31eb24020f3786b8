"""Selector with bad input, on bad descriptors and after close, as the stdlib's.

Where the stdlib's EpollSelector is the oracle, the same call is made on both.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
from typing import TYPE_CHECKING

import pytest

from fdmux import EVENT_READ, EVENT_WRITE, Selector
from fdmux._native import backend_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Pair = tuple[socket.socket, socket.socket]
    Case = Callable[[selectors.BaseSelector], object]


@pytest.fixture(params=backend_names())
def selector(request: pytest.FixtureRequest) -> Iterator[Selector]:
    with Selector(str(request.param)) as selector:
        yield selector


@pytest.fixture
def oracle() -> Iterator[selectors.EpollSelector]:
    with selectors.EpollSelector() as oracle:
        yield oracle


@pytest.mark.parametrize("events", [0, 4, 7, -1, None, "", 1.0, "1", 2**70, [1]])
def test_bad_events(
    selector: Selector, oracle: selectors.EpollSelector, pair: Pair, events: int
) -> None:
    with pytest.raises((ValueError, TypeError)) as expected:
        oracle.register(pair[0], events)
    with pytest.raises(expected.type):
        selector.register(pair[0], events)
    assert len(selector.get_map()) == 0
    key = selector.register(pair[0], EVENT_READ)
    with pytest.raises(expected.type):
        selector.modify(pair[0], events)
    assert selector.get_key(pair[0]) is key


class Silent:
    """An object whose `fileno` returns what it was given."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    def __repr__(self) -> str:
        return f"Silent({self._answer!r})"

    def fileno(self) -> int:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer  # type: ignore[return-value] # that is what is tested


@pytest.mark.parametrize(
    "fileobj",
    [
        -1,
        "stdin",
        None,
        1.5,
        1j,
        Silent(-1),
        Silent("x"),
        Silent(None),
        Silent(AttributeError()),
        Silent(ValueError()),
        Silent(ZeroDivisionError()),
        Silent(OSError(9, "closed")),
        2**31,
        2**64,
        Silent(2**31),
        1_000_000_000,
    ],
    ids=repr,
)
def test_bad_file_objects(
    selector: Selector, oracle: selectors.EpollSelector, fileobj: int
) -> None:
    for call in ("register", "unregister", "modify"):
        arguments = (fileobj,) if call == "unregister" else (fileobj, EVENT_READ)
        with pytest.raises(Exception) as expected:
            getattr(oracle, call)(*arguments)
        with pytest.raises(expected.type) as caught:
            getattr(selector, call)(*arguments)
        assert type(caught.value) is expected.type, call
    assert len(selector.get_map()) == 0
    assert selector.select(0) == []


def test_wild_number_does_not_cost_a_table_of_its_size(selector: Selector) -> None:
    with pytest.raises(OSError, match="fd 1073741823") as caught:
        selector.register(2**30 - 1, EVENT_READ)
    assert caught.value.errno == errno.EBADF


def test_closed_descriptor(selector: Selector) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match=f"fd {reader}: Bad file") as caught:
        selector.register(reader, EVENT_READ)
    assert caught.value.errno == errno.EBADF
    assert len(selector.get_map()) == 0


def test_regular_file_is_refused_by_epoll(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, Selector("epoll") as selector:
        with pytest.raises(PermissionError, match=f"watch fd {file.fileno()}"):
            selector.register(file, EVENT_READ)
        assert len(selector.get_map()) == 0
        with pytest.raises(KeyError):
            selector.unregister(file)


def test_regular_file_is_always_ready_for_poll(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, Selector("poll") as selector:
        key = selector.register(file, EVENT_READ | EVENT_WRITE)
        assert selector.select() == [(key, EVENT_READ | EVENT_WRITE)]


def test_selector_cannot_watch_itself(oracle: selectors.EpollSelector) -> None:
    with Selector("epoll") as selector:
        with pytest.raises(OSError, match="watch fd"):
            selector.register(selector.fileno(), EVENT_READ)
        assert len(selector.get_map()) == 0
    with pytest.raises(OSError, match=r"\[Errno \d+\]"):
        oracle.register(oracle.fileno(), EVENT_READ)


def test_registered_twice(selector: Selector, pair: Pair) -> None:
    key = selector.register(pair[0], EVENT_READ, "first")
    for again in (pair[0], pair[0].fileno()):
        with pytest.raises(KeyError, match=r"FD \d+\) is already registered"):
            selector.register(again, EVENT_WRITE, "second")
    assert selector.get_key(pair[0]) is key
    assert selector.select(0) == []


def test_unknown_object(selector: Selector, pair: Pair) -> None:
    for call in (selector.unregister, selector.get_key):
        with pytest.raises(KeyError, match="is not registered"):
            call(pair[0])
    with pytest.raises(KeyError, match="is not registered"):
        selector.modify(pair[0], EVENT_READ)


def test_failing_modify_drops_the_registration(selector: Selector) -> None:
    left, right = socket.socketpair()
    with left, right:
        fd = left.fileno()
        selector.register(left, EVENT_READ)
        left.close()
        if selector.native.backend == "poll":
            selector.select(0)  # poll(2) says that a number is closed in a wait only
        with pytest.raises(OSError, match=f"watch fd {fd} for other") as caught:
            selector.modify(left, EVENT_WRITE)
        assert caught.value.errno == errno.EBADF
        assert len(selector.get_map()) == 0


@pytest.mark.parametrize("backend", [3, b"epoll", ["epoll"]])
def test_backend_of_another_type(backend: str) -> None:
    with pytest.raises(TypeError, match="backend"):
        Selector(backend)


@pytest.mark.parametrize("backend", ["", "kqueue9", "epoll ", "epoll\0", "\ud800"])
def test_unknown_backend(backend: str) -> None:
    with pytest.raises(ValueError, match="backend"):
        Selector(backend)


CLOSED_CASES: dict[str, Case] = {
    "register": lambda selector: selector.register(0, EVENT_READ),
    "register-object": lambda selector: selector.register(Silent(0), EVENT_READ),
    "register-bad-events": lambda selector: selector.register(0, 0),
    "unregister": lambda selector: selector.unregister(0),
    "unregister-bad": lambda selector: selector.unregister(-1),
    "modify": lambda selector: selector.modify(0, EVENT_READ),
    "select": lambda selector: selector.select(),
    "select-0": lambda selector: selector.select(0),
    "get_key": lambda selector: selector.get_key(0),
    "get_map": lambda selector: selector.get_map(),
    "close": lambda selector: selector.close(),
    "fileno": lambda selector: getattr(selector, "fileno")(),  # noqa: B009 - not in the base
}


@pytest.mark.parametrize("name", CLOSED_CASES)
def test_closed_selector_behaves_as_the_stdlib_s(
    selector: Selector, oracle: selectors.EpollSelector, name: str
) -> None:
    outcomes = []
    for closed in (oracle, selector):
        closed.close()
        try:
            outcomes.append(CLOSED_CASES[name](closed))
        except Exception as error:  # noqa: BLE001 - whichever it is is compared
            outcomes.append(type(error))
    assert outcomes[1] == outcomes[0]


def test_entering_a_closed_selector(selector: Selector) -> None:
    selector.close()
    with selector as entered:
        assert entered.get_map() is None
