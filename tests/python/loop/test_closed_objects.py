"""Objects that were closed while registered, and whose ``fileno()`` then raises.

A closed file raises ValueError. Other objects raise what they like: a closed port of
pyserial an OSError of its own, a closed `NativeLoop` LoopClosed.
"""

from __future__ import annotations

import selectors
import socket
from typing import TYPE_CHECKING

import pytest

from fdmux import EVENT_READ, EVENT_WRITE, NativeLoop, Selector, mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fdmux import SelectorEventLoop

    Pair = tuple[socket.socket, socket.socket]


class PortNotOpenError(OSError):
    """What pyserial raises."""


class Port:
    """A device whose ``fileno()`` raises once it is closed."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self._sock, self.far = socket.socketpair()

    def fileno(self) -> int:
        if self._sock.fileno() < 0:
            raise self._error
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()


ERRORS = [PortNotOpenError(), ValueError(), RuntimeError(), ZeroDivisionError()]


@pytest.fixture(params=ERRORS, ids=repr)
def port(request: pytest.FixtureRequest) -> Iterator[Port]:
    port = Port(request.param)
    with port.far:
        yield port
        port.close()


def occupy(fd: int) -> Pair:
    """Return a pair of sockets, one of which has this number."""
    spare: list[socket.socket] = []
    try:
        while True:
            pair = socket.socketpair()
            if fd in (pair[0].fileno(), pair[1].fileno()):
                return pair if pair[0].fileno() == fd else (pair[1], pair[0])
            spare.extend(pair)
    finally:
        for sock in spare:
            sock.close()


def fail(_sock: object) -> None:
    pytest.fail("called for an object that is closed")


def test_unregister_of_a_closed_object_is_quiet(
    loop: SelectorEventLoop, port: Port
) -> None:
    fd = port.fileno()
    loop.register_read(port, fail)
    loop.register_write(port, fail)
    port.close()
    loop.unregister_read(port)
    loop.unregister(port)
    loop.unregister(port)  # not registered any more
    with_number, other = occupy(fd)
    called: list[object] = []
    with with_number, other:
        loop.register_read(with_number, called.append)
        other.send(b"x")
        assert loop.run_once(1) == 1
    assert called == [with_number]


def test_number_of_a_closed_object_can_be_registered(
    loop: SelectorEventLoop, port: Port
) -> None:
    fd = port.fileno()
    loop.register_read(port, fail)
    port.close()
    with_number, other = occupy(fd)
    called: list[object] = []
    with with_number, other:
        loop.register_read(with_number, called.append)
        other.send(b"x")
        assert loop.run_once(1) == 1
    assert called == [with_number]


def test_iteration_goes_on_when_an_object_is_closed_in_it(
    loop: SelectorEventLoop, port: Port, pair: Pair
) -> None:
    called: list[object] = []

    def close_port(sock: object) -> None:
        called.append(sock)
        port.close()

    loop.register_read(pair[0], close_port)
    loop.register_read(port, lambda _: port.close())
    port.far.send(b"x")
    pair[1].send(b"x")
    assert loop.run_once(1) in (1, 2)  # in whichever order they are reported
    loop.run_once(0)  # select(2) fails as a whole, and the loop drops the closed one
    assert loop.run_once(0) == 1
    assert set(called) == {pair[0]}


def test_register_raises_what_fileno_raises(loop: SelectorEventLoop) -> None:
    port = Port(PortNotOpenError("closed"))
    with port.far:
        port.close()
        with pytest.raises(PortNotOpenError, match="closed"):
            loop.register_read(port, fail)
    assert loop.run_once(0) == 0


@pytest.mark.parametrize("backend", ["epoll", "poll"])
def test_selector_unregisters_and_modifies_a_closed_object(
    port: Port, backend: str
) -> None:
    """The standard library's selectors do so for ValueError alone."""
    with Selector(backend) as selector:
        key = selector.register(port, EVENT_READ, "first")
        port.close()
        assert selector.get_key(port) is key
        assert selector.modify(port, EVENT_READ, "second").data == "second"
        assert selector.unregister(port).fd == key.fd
        with pytest.raises(type(port._error)):
            selector.unregister(port)
        with_number, other = occupy(key.fd)
        with with_number, other:
            selector.register(with_number, EVENT_WRITE)
            assert [pair[0].fileobj for pair in selector.select(1)] == [with_number]


def test_native_loop_that_was_closed_is_dropped(loop: SelectorEventLoop) -> None:
    native = NativeLoop()
    loop.register_read(native, fail)
    native.wake()
    native.close()
    assert loop.run_once(0) == 0
    loop.unregister(native)


def test_mounted_loop_that_was_closed_leaves_its_selector() -> None:
    with selectors.DefaultSelector() as selector:
        mounted = mount(selector)
        mounted.native.close()
        mounted.unmount()
        assert len(selector.get_map()) == 0


def test_stranger_under_the_number_of_a_closed_object_calls_nobody(
    loop: SelectorEventLoop, port: Port
) -> None:
    fd = port.fileno()
    loop.register_read(port, fail)
    port.close()
    stranger, other = occupy(fd)
    with stranger, other:
        other.send(b"x")
        assert loop.run_once(0) == 0
        assert loop.run_once(0) == 0


@pytest.mark.parametrize(("backend", "is_silent"), [("epoll", True), ("poll", False)])
def test_stranger_under_a_number_is_known_to_epoll_alone(
    backend: str, *, is_silent: bool
) -> None:
    """poll(2) knows only numbers, as docs/special-problems.md says."""
    port = Port(ValueError())
    with port.far, Selector(backend) as selector:
        key = selector.register(port.fileno(), EVENT_READ)
        port.close()
        stranger, other = occupy(key.fd)
        with stranger, other:
            other.send(b"x")
            assert selector.select(0) == ([] if is_silent else [(key, EVENT_READ)])
