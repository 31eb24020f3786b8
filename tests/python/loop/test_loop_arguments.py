"""Wrong arguments of a loop: TypeError at the call, which registers nothing.

Each message names the argument, what it has to be, and what was given.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import pytest

from fdmux import EVENT_READ, Guest, Selector, SelectorEventLoop

if TYPE_CHECKING:
    import selectors
    import socket
    from collections.abc import Callable, Iterator

    Pair = tuple[socket.socket, socket.socket]
    Call = Callable[[SelectorEventLoop], object]

WRONG = cast("Callable[[], object]", 5)
WRONG_READY = cast("Callable[[object], object]", 5)
WRONG_NUMBER = cast("float", "x")
NO_NUMBER = cast("float", None)


def nothing(*_: object) -> None:
    """Do nothing."""


CALLS: dict[str, tuple[Call, str]] = {
    "call_later delay": (
        lambda loop: loop.call_later(WRONG_NUMBER, nothing),
        "delay is 'x'; it must be a number of seconds",
    ),
    "call_later None": (
        lambda loop: loop.call_later(NO_NUMBER, nothing),
        "delay is None; it must be a number of seconds",
    ),
    "call_at when": (
        lambda loop: loop.call_at(NO_NUMBER, nothing),
        "when is None; it must be a number of seconds",
    ),
    "call_later callback": (
        lambda loop: loop.call_later(0, WRONG),
        "callback is 5; it must be callable",
    ),
    "call_at callback": (
        lambda loop: loop.call_at(0, WRONG),
        "callback is 5; it must be callable",
    ),
    "call_soon_threadsafe": (
        lambda loop: loop.call_soon_threadsafe(WRONG),
        "callback is 5; it must be callable",
    ),
    "run_once": (
        lambda loop: loop.run_once(WRONG_NUMBER),
        "timeout is 'x'; it must be a number of seconds, or None",
    ),
    "run": (
        lambda loop: loop.run(WRONG_NUMBER),
        "timeout is 'x'; it must be a number of seconds, or None",
    ),
    "max_iterations": (
        lambda loop: loop.run(0, cast("int", 1.5)),
        r"max_iterations is 1\.5; it must be an integer >= 0",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_argument_is_named_and_nothing_is_kept(
    loop: SelectorEventLoop, name: str
) -> None:
    call, message = CALLS[name]
    with pytest.raises(TypeError, match=message):
        call(loop)
    assert len(loop._iteration.timers) == 0
    assert loop.run_once(0) == 0


def test_callback_of_a_descriptor_is_checked(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    watched = len(loop._iteration.table)
    with pytest.raises(TypeError, match="callback is 5; it must be callable"):
        loop.register_read(pair[0], WRONG_READY)
    with pytest.raises(TypeError, match="callback is 5; it must be callable"):
        loop.register_write(pair[0], WRONG_READY)
    assert len(loop._iteration.table) == watched


def test_arguments_of_the_loop_are_checked() -> None:
    with pytest.raises(TypeError, match=r"selector is 5; it must be .*BaseSelector"):
        SelectorEventLoop(cast("selectors.BaseSelector", 5))
    with pytest.raises(TypeError, match="error_hook is 5; it must be callable"):
        SelectorEventLoop(error_hook=cast("Callable[[Exception, object], None]", 5))
    with pytest.raises(TypeError, match="clock is 5; it must be callable"):
        SelectorEventLoop(clock=cast("Callable[[], float]", 5))


@pytest.mark.parametrize("wrong", [5, "x", Selector, 1j], ids=repr)
def test_guest_names_the_loop_it_cannot_run(wrong: object) -> None:
    with pytest.raises(
        TypeError, match=r"^loop is .*; it must be a fdmux\.SelectorEventLoop"
    ):
        Guest(cast("SelectorEventLoop", wrong))


@pytest.fixture
def path_fd() -> Iterator[int]:
    fd = os.open("/", os.O_PATH)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("backend", ["epoll", "poll"])
def test_selector_names_a_descriptor_of_a_path(path_fd: int, backend: str) -> None:
    """Both kernel interfaces say EBADF, as if the descriptor were closed."""
    with Selector(backend) as selector:
        with pytest.raises(OSError, match=rf"fd {path_fd}: .*O_PATH"):
            selector.register(path_fd, EVENT_READ)
        assert len(selector.get_map()) == 0


def test_loop_names_a_descriptor_of_a_path(
    loop: SelectorEventLoop, path_fd: int
) -> None:
    if "Epoll" not in repr(loop._iteration.table.selector) and not isinstance(
        loop._iteration.table.selector, Selector
    ):
        pytest.skip("poll and select of the standard library take any number")
    with pytest.raises(OSError, match=rf"fd {path_fd}: .*O_PATH"):
        loop.register_read(path_fd, nothing)
    assert loop.run_once(0) == 0
