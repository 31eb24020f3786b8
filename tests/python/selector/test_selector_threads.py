"""Selector with several threads: registering, waking and closing during a select.

No test sleeps: a thread waits for the action of the other one, and each precondition is
awaited. SOON bounds only how long a failing test takes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fdmux import EVENT_READ, EVENT_WRITE, Selector
from fdmux._native import backend_names

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    Pair = tuple[socket.socket, socket.socket]

SOON = 20.0
READY_COUNT = 2000


class Worker(threading.Thread):
    """A thread whose result, or exception, `result` hands over."""

    def __init__(self, fn: Callable[[], object]) -> None:
        super().__init__()
        self._fn = fn
        self._outcome: object = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._outcome = self._fn()
        except BaseException as error:  # noqa: BLE001 - handed over by result()
            self._error = error

    def result(self) -> object:
        self.join(SOON)
        assert not self.is_alive(), "the thread does not end"
        if self._error is not None:
            raise self._error
        return self._outcome


@pytest.fixture(params=backend_names())
def selector(request: pytest.FixtureRequest) -> Iterator[Selector]:
    with Selector(str(request.param)) as selector:
        yield selector


@pytest.fixture
def ready_fds() -> Iterator[list[int]]:
    """Descriptors that are readable and writable, always."""
    with contextlib.ExitStack() as stack:
        fds = []
        for _ in range(READY_COUNT):
            fd = os.eventfd(1)
            stack.callback(os.close, fd)
            fds.append(fd)
        yield fds


def check_select(selector: Selector, timeout: float | None) -> None:
    """Check that each was reported for its own events, even if removed since."""
    names = {EVENT_READ: "read", EVENT_WRITE: "write"}
    ready = selector.select(timeout)
    assert all(names[events] == key.data for key, events in ready)


def select_in_thread(selector: Selector) -> Worker:
    """Return when the other thread is in the kernel's wait."""
    before = selector.native.stats().iteration_count
    worker = Worker(selector.select)
    deadline = time.monotonic() + SOON
    while selector.native.stats().iteration_count == before:
        assert time.monotonic() < deadline, "the other thread does not select"
        time.sleep(0)  # lets it run
    return worker


@pytest.mark.slow
def test_everything_registered_by_another_thread_is_reported(
    selector: Selector, ready_fds: list[int]
) -> None:
    seen: set[int] = set()
    has_seen_all = threading.Event()

    def serve() -> None:
        while len(seen) < len(ready_fds):
            ready = selector.select()
            assert all((events, key.data) == (1, "read") for key, events in ready)
            seen.update(key.fd for key, _ in ready)
        has_seen_all.set()
        while selector.get_map():
            check_select(selector, None)

    worker = Worker(serve)
    for fd in ready_fds:
        selector.register(fd, EVENT_READ, "read")
    assert has_seen_all.wait(SOON)
    for fd in ready_fds:
        assert selector.modify(fd, EVENT_WRITE, "write").fd == fd
    for fd in ready_fds:
        assert selector.unregister(fd).data == "write"
    selector.native.wake()
    worker.result()
    assert seen == set(ready_fds)
    assert selector.select(0) == []


@pytest.mark.slow
def test_event_of_a_removed_descriptor_is_not_reported_for_its_successor(
    selector: Selector,
) -> None:
    """Ready and idle sockets take turns; only ready ones may be reported."""
    ready, idle = os.eventfd(1), os.eventfd(0)
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.is_set():
            for key, events in selector.select(SOON):
                assert (key.data, events) == ("ready", EVENT_READ)

    worker = Worker(serve)
    for _ in range(5000):
        selector.register(ready, EVENT_READ, "ready")
        selector.unregister(ready)
        selector.register(idle, EVENT_READ, "idle")
        selector.unregister(idle)
    is_over.set()
    selector.native.wake()
    worker.result()
    os.close(ready)
    os.close(idle)


@pytest.mark.slow
def test_threads_that_register_at_the_same_time(
    selector: Selector, ready_fds: list[int]
) -> None:
    def churn(fds: list[int]) -> None:
        for _ in range(3):
            for fd in fds:
                selector.register(fd, EVENT_READ, "read")
            for fd in fds:
                selector.modify(fd, EVENT_WRITE, "write")
            for fd in fds:
                selector.unregister(fd)

    workers = [Worker(functools.partial(churn, ready_fds[i::4])) for i in range(4)]
    while any(worker.is_alive() for worker in workers):
        check_select(selector, 0)
    for worker in workers:
        worker.result()
    assert len(selector.get_map()) == 0
    assert selector.select(0) == []
    assert selector.native.stats().io_live == 0


def test_one_of_two_threads_registers_a_descriptor(selector: Selector) -> None:
    fd = os.eventfd(1)
    for _ in range(50):
        barrier = threading.Barrier(2)

        def register(barrier: threading.Barrier = barrier) -> bool:
            barrier.wait(SOON)
            try:
                selector.register(fd, EVENT_READ)
            except KeyError:
                return False
            return True

        outcomes = [worker.result() for worker in [Worker(register), Worker(register)]]
        assert sorted(outcomes) == [False, True]  # type: ignore[type-var] # two bools
        selector.unregister(fd)
        assert selector.native.stats().io_live == 0
    os.close(fd)


def test_registering_ends_no_wait_but_its_event_does(
    selector: Selector, pair: Pair
) -> None:
    worker = select_in_thread(selector)
    key = selector.register(pair[0], EVENT_READ)
    pair[1].send(b"x")
    assert worker.result() == [(key, EVENT_READ)]


def test_modify_takes_effect_during_a_wait(selector: Selector, pair: Pair) -> None:
    selector.register(pair[0], EVENT_READ)
    worker = select_in_thread(selector)
    key = selector.modify(pair[0], EVENT_WRITE)
    assert worker.result() == [(key, EVENT_WRITE)]


def test_unregister_takes_effect_during_a_wait(selector: Selector, pair: Pair) -> None:
    selector.register(pair[0], EVENT_READ)
    worker = select_in_thread(selector)
    selector.unregister(pair[0])
    pair[1].send(b"x")
    selector.native.wake()
    assert worker.result() == []


@pytest.mark.parametrize("attempt", range(20))
def test_close_ends_the_wait_of_another_thread(
    selector: Selector, pair: Pair, attempt: int
) -> None:
    selector.register(pair[0], EVENT_READ)
    if attempt % 2:
        pair[1].send(b"x")  # it may return with an event, or begin too late
        worker = Worker(selector.select)
    else:
        worker = select_in_thread(selector)
    with contextlib.suppress(ValueError):  # it began after the close
        selector.close()
        outcome = worker.result()
        assert isinstance(outcome, list)
        assert [events for _, events in outcome] in ([], [EVENT_READ])
    with pytest.raises(ValueError, match="closed"):
        selector.select(0)


def test_close_during_a_wait_is_not_an_error_of_the_wait(selector: Selector) -> None:
    for _ in range(20):
        with Selector(selector.native.backend) as closing:
            worker = select_in_thread(closing)
        assert worker.result() == []


def test_second_thread_is_refused_and_nothing_breaks(
    selector: Selector, pair: Pair
) -> None:
    key = selector.register(pair[0], EVENT_READ)
    worker = select_in_thread(selector)
    with pytest.raises(RuntimeError, match="dispatched already"):
        selector.select(0)
    pair[1].send(b"x")
    assert worker.result() == [(key, EVENT_READ)]
    assert selector.select(0) == [(key, EVENT_READ)]


def test_wake_ends_the_wait(selector: Selector) -> None:
    worker = select_in_thread(selector)
    selector.native.wake()
    assert worker.result() == []


def test_wake_before_the_wait_is_kept(selector: Selector) -> None:
    selector.native.wake()
    selector.native.wake()
    assert selector.select() == []
    started = time.monotonic()
    assert selector.select(0.01) == []  # several wakes count as one
    assert time.monotonic() - started >= 0.01


@pytest.mark.slow
def test_no_wake_is_lost(selector: Selector) -> None:
    """Each wake is answered before the next one, so a lost wake would hang."""
    turn = threading.Semaphore(0)

    def serve() -> None:
        for _ in range(2000):
            assert selector.select(SOON) == []
            turn.release()

    worker = Worker(serve)
    for _ in range(2000):
        selector.native.wake()
        assert turn.acquire(timeout=SOON)
    worker.result()


def test_wakes_of_many_threads_all_end_a_wait(selector: Selector) -> None:
    rounds = 200
    callers = [(threading.Event(), threading.Semaphore(0)) for _ in range(3)]

    def wake(flag: threading.Event, answer: threading.Semaphore) -> None:
        for _ in range(rounds):
            flag.set()
            selector.native.wake()
            assert answer.acquire(timeout=SOON)

    def serve() -> None:
        served = 0
        while served < rounds * len(callers):
            assert selector.select(SOON) == []
            for flag, answer in callers:
                if flag.is_set():
                    flag.clear()
                    served += 1
                    answer.release()

    workers = [Worker(functools.partial(wake, *caller)) for caller in callers]
    for worker in [*workers, Worker(serve)]:
        worker.result()


def test_a_wait_does_not_hold_the_gil(selector: Selector) -> None:
    started = time.monotonic()
    worker = select_in_thread(selector)
    assert sum(range(1000)) == 499_500  # this thread runs
    selector.native.wake()
    assert worker.result() == []
    assert time.monotonic() - started < SOON
