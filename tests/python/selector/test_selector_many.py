"""Selector with thousands of descriptors, and what is left when they are gone."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import weakref
from typing import TYPE_CHECKING

import pytest

from fdmux import EVENT_READ, EVENT_WRITE, NativeLoop, Selector
from fdmux._native import backend_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.compiled import HasLoop
    from tests.python.conftest import NativeUser

BACKENDS = pytest.mark.parametrize("backend", backend_names())


@pytest.fixture
def many_allowed() -> Iterator[int]:
    """Raise the limit of open files; return how many descriptors may be opened."""
    import resource  # noqa: PLC0415 - Windows has none, but the other tests

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@BACKENDS
@pytest.mark.parametrize("count", [2000, 9000])
@pytest.mark.slow
def test_thousands_at_once(backend: str, count: int, many_allowed: int) -> None:
    if many_allowed < count + 100:
        pytest.skip(f"the limit of open files is {many_allowed}")
    with contextlib.ExitStack() as stack, Selector(backend) as selector:
        fds = [os.eventfd(0) for _ in range(count)]
        for fd in fds:
            stack.callback(os.close, fd)
            selector.register(fd, EVENT_READ, -fd)
        assert selector.select(0) == []
        for fd in fds[::3]:
            os.eventfd_write(fd, 1)
        ready = selector.select(0)
        assert sorted(key.fd for key, _ in ready) == sorted(fds[::3])
        assert all(key.data == -key.fd and events == 1 for key, events in ready)
        for fd in fds[:10]:
            selector.modify(fd, EVENT_READ | EVENT_WRITE)
        for fd in fds[10:]:
            selector.unregister(fd)
        assert {key.fd for key, _ in selector.select(0)} == set(fds[:10])


@BACKENDS
def test_highest_descriptor_there_may_be(backend: str, many_allowed: int) -> None:
    reader, writer = os.pipe()
    highest = min(many_allowed - 1, 1_000_000)
    os.dup2(reader, highest)
    with Selector(backend) as selector:
        key = selector.register(highest, EVENT_READ)
        os.write(writer, b"x")
        assert selector.select() == [(key, EVENT_READ)]
        selector.unregister(highest)
    for fd in (reader, writer, highest):
        os.close(fd)


class Data:
    """Something that can be watched by a weak reference."""


@BACKENDS
def test_nothing_is_kept_alive_after_unregister(backend: str) -> None:
    left, right = socket.socketpair()
    with right, Selector(backend) as selector:
        first, second, third = Data(), Data(), Data()
        alive = [weakref.ref(thing) for thing in (left, first, second, third)]
        with left:
            selector.register(left, EVENT_READ | EVENT_WRITE, first)
            selector.modify(left, EVENT_WRITE, second)
            selector.modify(left, EVENT_READ, third)
            selector.modify(left, EVENT_READ | EVENT_WRITE, third)
            del first, second
            assert [ref() is not None for ref in alive] == [True, False, False, True]
            selector.select(0)
            selector.unregister(left)
        del left, third
        assert [ref() for ref in alive] == [None] * 4


@BACKENDS
@pytest.mark.parametrize("events", [EVENT_READ, EVENT_WRITE, EVENT_READ | EVENT_WRITE])
def test_data_is_let_go_at_unregister(backend: str, events: int) -> None:
    left, right = socket.socketpair()
    data = Data()
    alive = weakref.ref(data)
    with left, right, Selector(backend) as selector:
        selector.register(left, events, data)
        del data
        selector.select(0)
        selector.unregister(left)
        assert alive() is None


@BACKENDS
def test_nothing_is_kept_alive_after_close(backend: str) -> None:
    left, right = socket.socketpair()
    data = Data()
    alive = weakref.ref(data)
    with left, right, Selector(backend) as selector:
        selector.register(left, EVENT_READ, data)
        selector.register(right, EVENT_READ | EVENT_WRITE, data)
        del data
        selector.close()
        assert alive() is None


@BACKENDS
def test_failed_register_keeps_nothing_alive(backend: str) -> None:
    data = Data()
    alive = weakref.ref(data)
    with Selector(backend) as selector:
        reader, writer = os.pipe()
        os.close(reader)
        os.close(writer)
        with pytest.raises(OSError, match="watch fd"):
            selector.register(reader, EVENT_READ, data)
        del data
        gc.collect()  # the traceback in the exception that pytest holds
        assert alive() is None


@BACKENDS
def test_selector_that_is_dropped_in_a_cycle_is_collected(backend: str) -> None:
    left, right = socket.socketpair()
    with left, right:
        selector: Selector | None = Selector(backend)
        assert selector is not None
        selector.register(left, EVENT_READ, data=selector)
        alive = weakref.ref(selector)
        native = weakref.ref(selector.native)
        selector = None
        gc.collect()
        assert alive() is None
        assert native() is None


class LateUser:
    """Uses its selector when both are being collected."""

    def __init__(self, selector: Selector, sock: socket.socket) -> None:
        self.selector = selector
        self.sock = sock
        self.itself = self
        self.errors: list[BaseException] = []

    def __del__(self) -> None:
        for use in (
            lambda: self.selector.select(0),
            lambda: self.selector.unregister(self.sock),
            lambda: self.selector.register(self.sock, EVENT_READ),
            self.selector.native.stats,
            self.selector.close,
            self.selector.close,
        ):
            with contextlib.suppress(RuntimeError, ValueError, KeyError):
                use()


@BACKENDS
@pytest.mark.parametrize("is_first", [False, True])
def test_finalizer_may_use_the_selector_that_goes_with_it(
    backend: str, is_first: bool
) -> None:
    """Finalizers of a cycle run in any order; no call may reach freed memory."""
    for _ in range(20):
        left, right = socket.socketpair()
        with left, right:
            selector = Selector(backend)
            selector.register(left, EVENT_WRITE)
            if is_first:
                selector.close()
            user = weakref.ref(LateUser(selector, left))
            del selector
            gc.collect()
            assert user() is None


@BACKENDS
def test_destroyed_is_called_when_a_loop_is_dropped(
    backend: str, native_user: Callable[[HasLoop], NativeUser]
) -> None:
    left, right = socket.socketpair()
    with left, right:
        loop = NativeLoop(backend)
        native = native_user(loop)
        assert native.watch(left.fileno()) > 0
        del loop
        assert native.counts.destroyed == 0  # the capsule keeps it
        native.capsule = None
        assert native.counts.destroyed == 1
