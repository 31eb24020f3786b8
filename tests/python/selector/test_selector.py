"""Selector: what register, modify, unregister, select and the map do, as in the stdlib.

CPython's own suite runs in test_cpython_suite.py; here is what it leaves out.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
from typing import TYPE_CHECKING

import pytest

import fdmux
from fdmux import EVENT_READ, EVENT_WRITE, Selector
from fdmux._native import backend_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.compiled import HasLoop
    from tests.python.conftest import NativeUser

    Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=backend_names())
def selector(request: pytest.FixtureRequest) -> Iterator[Selector]:
    with Selector(str(request.param)) as selector:
        yield selector


def test_is_a_base_selector_with_the_stdlib_s_own_values() -> None:
    assert issubclass(Selector, selectors.BaseSelector)
    assert (fdmux.EVENT_READ, fdmux.EVENT_WRITE) == (1, 2)
    assert fdmux.SelectorKey is selectors.SelectorKey


@pytest.mark.parametrize("backend", backend_names())
def test_backend_is_chosen_by_name(backend: str) -> None:
    with Selector(backend) as selector:
        assert selector.native.backend == backend


def test_best_backend_is_the_default() -> None:
    with Selector() as selector:
        best = "afd" if sys.platform == "win32" else "epoll"
        assert selector.native.backend == best


def test_register_returns_the_key_and_select_reports_it(
    selector: Selector, pair: Pair
) -> None:
    key = selector.register(pair[0], EVENT_READ | EVENT_WRITE, "data")
    assert key == (pair[0], pair[0].fileno(), EVENT_READ | EVENT_WRITE, "data")
    assert isinstance(key, selectors.SelectorKey)
    assert selector.select(0) == [(key, EVENT_WRITE)]
    pair[1].send(b"x")
    ((reported, events),) = selector.select()
    assert reported is key
    assert events == EVENT_READ | EVENT_WRITE


@pytest.mark.parametrize("events", [EVENT_READ, EVENT_WRITE, EVENT_READ | EVENT_WRITE])
def test_hangup_is_reported_as_what_was_asked_for(
    selector: Selector, pair: Pair, events: int
) -> None:
    key = selector.register(pair[0], events)
    pair[1].close()
    assert selector.select(0) == [(key, events)]


def test_descriptors_and_objects_name_the_same_registration(
    selector: Selector, pair: Pair
) -> None:
    key = selector.register(pair[0].fileno(), EVENT_READ)
    assert selector.get_key(pair[0]) is key
    assert selector.unregister(pair[0]) is key


def test_modify_changes_events_and_data(selector: Selector, pair: Pair) -> None:
    old = selector.register(pair[0], EVENT_WRITE, "old")
    assert selector.modify(pair[0], EVENT_WRITE, "old") is old
    new = selector.modify(pair[0], EVENT_WRITE, "new")
    assert selector.select(0) == [(new, EVENT_WRITE)]
    selector.modify(pair[0], EVENT_READ, "new")
    assert selector.select(0) == []
    pair[1].send(b"x")
    ((key, events),) = selector.select(0)
    assert (key.data, key.events, events) == ("new", EVENT_READ, EVENT_READ)


def test_modify_keeps_the_object_that_was_registered(
    selector: Selector, pair: Pair
) -> None:
    selector.register(pair[0], EVENT_READ)
    assert selector.modify(pair[0].fileno(), EVENT_WRITE).fileobj is pair[0]


def test_unregistered_object_is_not_reported(selector: Selector, pair: Pair) -> None:
    selector.register(pair[0], EVENT_WRITE)
    selector.unregister(pair[0])
    assert selector.select(0) == []
    key = selector.register(pair[0], EVENT_WRITE)
    assert selector.select(0) == [(key, EVENT_WRITE)]


def test_closed_object_can_still_be_unregistered(selector: Selector) -> None:
    left, right = socket.socketpair()
    with left, right:
        key = selector.register(left, EVENT_READ)
        left.close()
        assert selector.get_key(left) is key
        assert selector.unregister(left) is key
        with pytest.raises(ValueError):
            selector.unregister(left)


def test_closed_object_is_quiet(selector: Selector) -> None:
    left, right = socket.socketpair()
    with left, right:
        selector.register(left, EVENT_WRITE)
        left.close()
        assert [selector.select(0) for _ in range(3)] == [[], [], []]


def test_number_that_is_reused_can_be_registered_again(selector: Selector) -> None:
    left, right = socket.socketpair()
    with left, right:
        selector.register(left, EVENT_WRITE)
        selector.unregister(left)
        fd = left.detach()
        os.close(fd)
        reader, writer = os.pipe()
        os.dup2(reader, fd)
        key = selector.register(fd, EVENT_READ)
        assert selector.select(0) == []
        os.write(writer, b"x")
        assert selector.select(0) == [(key, EVENT_READ)]
        selector.unregister(fd)
        for open_fd in {reader, writer, fd}:
            os.close(open_fd)


def test_event_of_a_file_that_lives_on_as_a_dup_is_not_taken_for_the_new_one() -> None:
    with Selector("epoll") as selector:
        left, right = socket.socketpair()
        copy = left.dup()  # keeps the registered file alive, epoll(7) question 6
        with left, right, copy:
            fd = left.fileno()
            selector.register(left, EVENT_READ)
            reader, writer = os.pipe()
            os.dup2(reader, fd)
            selector.unregister(left)
            selector.register(fd, EVENT_READ)
            right.send(b"for the old file")
            assert selector.select(0) == []
            os.close(writer)
            assert [key.fd for key, _ in selector.select(0)] == [fd]
            os.close(reader)


def test_map_is_a_live_mapping(selector: Selector, pair: Pair) -> None:
    found = selector.get_map()
    assert len(found) == 0
    key = selector.register(pair[0], EVENT_READ)
    assert found[pair[0]] is key
    assert found[key.fd] is key
    assert pair[0] in found
    assert pair[1] not in found
    assert found.get(pair[1]) is None
    assert list(found) == [key.fd]
    assert list(found.values()) == [key]
    assert dict(found.items()) == {key.fd: key}
    assert selector.get_map() is found
    with pytest.raises(KeyError, match="is not registered"):
        found[pair[1]]
    with pytest.raises(TypeError):
        found[pair[0]] = key  # type: ignore[index] # that is what is tested
    selector.unregister(pair[0])
    assert len(found) == 0


def test_map_lookup_of_no_descriptor_at_all(selector: Selector) -> None:
    oracle = selectors.EpollSelector()
    for lookup in (selector.get_map, oracle.get_map):
        with pytest.raises(ValueError):
            lookup()["no file"]  # type: ignore[index] # that is what is tested
        with pytest.raises(ValueError):
            lookup().get("no file")  # type: ignore[call-overload] # the same
    oracle.close()


def test_context_manager_closes(pair: Pair) -> None:
    with Selector() as selector:
        selector.register(pair[0], EVENT_READ)
    assert selector.get_map() is None
    selector.close()


def test_fileno_is_readable_when_something_is_ready(pair: Pair) -> None:
    with Selector() as selector, selectors.PollSelector() as host:
        host.register(selector.fileno(), EVENT_READ)
        selector.register(pair[0], EVENT_READ)
        assert host.select(0) == []
        pair[1].send(b"x")
        assert host.select(0)
        assert selector.select(0)
        pair[0].recv(1)
        selector.select(0)
        assert host.select(0) == []


def test_native_functions_run_inside_select(
    selector: Selector, pair: Pair, native_user: Callable[[HasLoop], NativeUser]
) -> None:
    native = native_user(selector)
    assert native.timer(0.001) > 0
    assert native.post() == 0
    pair[1].send(b"x")
    token = native.watch(pair[0].fileno())
    key = selector.register(pair[0], EVENT_READ)  # the same descriptor
    assert selector.select() == [(key, EVENT_READ)]
    assert native.unwatch(token) == 0
    assert selector.unregister(pair[0]) is key
    selector.select(0.002)
    assert native.counts.called >= 3
    assert native.counts.destroyed == 1


def test_collected_watcher_of_native_code_is_nobody_s(
    selector: Selector, pair: Pair, native_user: Callable[[HasLoop], NativeUser]
) -> None:
    native = native_user(selector)
    pair[1].send(b"x")
    assert native.watch_collected(pair[0].fileno()) > 0
    key = selector.register(pair[1], EVENT_WRITE)
    assert selector.select() == [(key, EVENT_WRITE)]
    selector.unregister(pair[1])
    assert selector.select(0) == []


def test_native_error_leaves_select_and_the_selector_goes_on(
    selector: Selector, pair: Pair, native_user: Callable[[HasLoop], NativeUser]
) -> None:
    native = native_user(selector)
    native.counts.result = -71
    pair[1].send(b"x")
    token = native.watch(pair[0].fileno())
    with pytest.raises(OSError, match="wait in a Selector") as caught:
        selector.select()
    assert caught.value.errno == 71
    assert native.unwatch(token) == 0
    assert selector.select(0) == []
