"""Selector and NativeLoop across fork(): the child is told, the parent unaffected."""

from __future__ import annotations

import gc
import multiprocessing
import os
import traceback
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fdmux import EVENT_READ, EVENT_WRITE, ForkedLoop, Selector
from fdmux._native import backend_names

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from tests.compiled import HasLoop
    from tests.python.conftest import NativeUser

    Pair = tuple[socket.socket, socket.socket]

SOON = 20.0


@pytest.fixture(params=backend_names())
def selector(request: pytest.FixtureRequest) -> Iterator[Selector]:
    with Selector(str(request.param)) as selector:
        yield selector


def run_in_child(check: Callable[[], object]) -> None:
    """Fork, run ``check`` in the child, and fail here if it raises there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking beside threads of other tests
        process = os.fork()
    if process == 0:
        status = 1
        try:
            check()
            status = 0
        except BaseException:  # noqa: BLE001 - the child must end here
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "see the child's traceback"


def test_child_is_told_at_every_call(selector: Selector, pair: Pair) -> None:
    here, there = pair
    key = selector.register(here, EVENT_READ)

    def check() -> None:
        for use in (
            lambda: selector.register(there, EVENT_READ),
            lambda: selector.modify(here, EVENT_WRITE),
            lambda: selector.unregister(here),
            lambda: selector.select(0),
            selector.fileno,
            selector.native.dispatch,
            selector.native.wake,
            selector.native.stats,
            selector.native.next_deadline,
        ):
            with pytest.raises(ForkedLoop, match="before fork"):
                use()
        assert selector.get_key(here) is key
        assert len(selector.get_map()) == 1

    run_in_child(check)
    there.send(b"x")
    assert selector.select(0) == [(key, EVENT_READ)]


def test_child_that_adopts_it_has_the_same_registrations(
    selector: Selector, pair: Pair
) -> None:
    here, there = pair
    key = selector.register(here, EVENT_READ)

    def check() -> None:
        selector.native.after_fork()
        selector.native.after_fork()
        assert selector.select(0) == []
        there.send(b"x")
        assert selector.select(SOON) == [(key, EVENT_READ)]
        assert selector.modify(here, EVENT_WRITE).events == EVENT_WRITE
        selector.unregister(here)
        selector.register(there, EVENT_WRITE)
        assert [k.fileobj for k, _ in selector.select(SOON)] == [there]
        selector.native.wake()
        selector.unregister(there)
        assert selector.select(SOON) == []

    run_in_child(check)
    # The child changed only its copy; both processes share the socket and its byte.
    assert selector.get_key(here) is key
    assert selector.select(SOON) == [(key, EVENT_READ)]


@pytest.mark.parametrize("adopts", [False, True])
def test_child_that_closes_it_leaves_the_parent_s_alone(
    selector: Selector, pair: Pair, adopts: bool
) -> None:
    key = selector.register(pair[0], EVENT_READ)

    def check() -> None:
        if adopts:
            selector.native.after_fork()
        selector.close()
        selector.close()
        assert selector.get_map() is None

    run_in_child(check)
    pair[1].send(b"x")
    assert selector.select(SOON) == [(key, EVENT_READ)]
    assert selector.unregister(pair[0]) is key


def test_child_that_drops_it_leaves_the_parent_s_alone(
    selector: Selector, pair: Pair
) -> None:
    held = {"selector": Selector(selector.native.backend)}
    key = held["selector"].register(pair[0], EVENT_READ)
    alive = weakref.ref(held["selector"])

    def check() -> None:
        held.clear()
        gc.collect()
        assert alive() is None

    run_in_child(check)
    pair[1].send(b"x")
    with held["selector"] as kept:
        assert kept.select(SOON) == [(key, EVENT_READ)]


def test_child_makes_its_own(selector: Selector, pair: Pair) -> None:
    selector.register(pair[0], EVENT_READ)

    def check() -> None:
        with Selector(selector.native.backend) as fresh:
            key = fresh.register(pair[0], EVENT_WRITE)
            assert fresh.select(SOON) == [(key, EVENT_WRITE)]
        selector.close()

    run_in_child(check)
    assert selector.select(0) == []


def test_fork_within_a_callback_of_native_code_is_noticed(
    selector: Selector, pair: Pair, native_user: Callable[[HasLoop], NativeUser]
) -> None:
    native = native_user(selector)
    token = native.watch(pair[0].fileno())
    native.post()

    def check() -> None:
        with pytest.raises(ForkedLoop):
            selector.select(0)
        assert native.wake() < 0
        selector.native.after_fork()
        selector.select(0)
        assert native.counts.called == 0  # the posted call belongs to the parent
        pair[1].send(b"x")
        selector.native.dispatch(0)
        assert native.counts.called == 1
        assert native.unwatch(token) == 0
        assert native.counts.destroyed == 1

    run_in_child(check)
    assert native.counts.destroyed == 0
    pair[0].recv(1)
    selector.select(0)
    assert native.counts.called == 1  # the posted call


def open_fds() -> set[int]:
    links = list(Path("/proc/self/fd").iterdir())
    return {int(link.name) for link in links if link.is_symlink()}  # still open


def test_descriptors_are_not_inherited_by_programs(selector: Selector) -> None:
    before = open_fds()
    with Selector(selector.native.backend) as fresh:
        if fresh.native.backend == "epoll":
            fresh.fileno()
        made = open_fds() - before
        assert made
        assert not any(os.get_inheritable(fd) for fd in made)


def answer(connection: socket.socket) -> None:
    """Echo one message, waiting with a Selector of the child's own."""
    with Selector() as selector:
        selector.register(connection, EVENT_READ)
        assert len(selector.select(SOON)) == 1
        connection.send(connection.recv(100))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads
def test_multiprocessing_with_fork(selector: Selector, pair: Pair) -> None:
    here, there = pair
    key = selector.register(here, EVENT_READ)
    process = multiprocessing.get_context("fork").Process(target=answer, args=(there,))
    process.start()
    here.send(b"question")
    assert selector.select(SOON) == [(key, EVENT_READ)]
    assert here.recv(100) == b"question"
    process.join(SOON)
    assert process.exitcode == 0
    process.close()
