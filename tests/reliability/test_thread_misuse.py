"""One loop used from several threads: what is promised about each call.

Registering takes effect during a wait, also while every table grows; closing ends the
wait; a second waiter is refused; stopping and posting are for any thread. No test
sleeps: SOON bounds only how long a failing test takes.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

import fdmux.selector as selector_module
from fdmux import EVENT_READ, LoopClosed, Selector, SelectorEventLoop
from fdmux._ffi import lib
from fdmux._native import backend_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.reliability.conftest import Bars

    from fdmux._ffi import CLoop

pytestmark = [pytest.mark.commit, pytest.mark.slow]

SOON = 30.0
MANY = 10_000
RESERVED = 200  # of descriptors, for everything else
CLOSES = 200
STOPS = 200
STOPPERS = 8
both_backends = pytest.mark.parametrize("backend", backend_names())


class Worker(threading.Thread):
    """A thread whose exception `result` raises."""

    def __init__(self, fn: Callable[[], object]) -> None:
        super().__init__()
        self._fn = fn
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._fn()
        except BaseException as error:  # noqa: BLE001 - handed over by result()
            self._error = error

    def result(self) -> None:
        self.join(SOON)
        assert not self.is_alive(), "the thread does not end"
        if self._error is not None:
            raise self._error


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not is_so():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0)  # lets the other thread run


def is_waiting_in(selector: Selector) -> Callable[[], bool]:
    before = selector.native.stats().iteration_count
    return lambda: selector.native.stats().iteration_count > before


@pytest.fixture
def many_fds() -> Iterator[list[int]]:
    """As many readable descriptors as the limit allows, up to ten thousand."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY + RESERVED
    enough = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))
    count = min(MANY, enough - RESERVED)
    fds: list[int] = []
    try:
        fds.extend(os.eventfd(1) for _ in range(count))
        yield fds
    finally:
        for fd in fds:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@both_backends
def test_ten_thousand_descriptors_registered_during_a_wait(
    backend: str, many_fds: list[int], bars: Bars
) -> None:
    """Every table doubles under a wait that runs without the GIL."""
    seen: set[int] = set()
    wrong: list[object] = []
    with Selector(backend) as selector:

        def serve() -> None:
            while len(seen) < len(many_fds):
                for key, events in selector.select(SOON):
                    if key.fd in seen or key.data != -key.fd or events != EVENT_READ:
                        wrong.append(key)
                    selector.unregister(key.fd)
                    seen.add(key.fd)

        is_waiting = is_waiting_in(selector)
        worker = Worker(serve)
        wait_until(is_waiting)
        for fd in many_fds:
            selector.register(fd, EVENT_READ, -fd)
        worker.result()
        assert len(selector.get_map()) == selector.native.stats().io_live == 0
    name = f"descriptors registered during a wait and reported once, {backend}"
    bars.at_least(len(many_fds), name, len(seen & set(many_fds)))
    bars.at_most(0, f"wrong reports of them, {backend}", len(wrong))


@both_backends
def test_descriptor_unregistered_before_register_has_returned(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registering during a wait takes effect at once."""
    fds = [os.eventfd(1) for _ in range(3)]
    with Selector(backend) as selector:
        real = selector_module.io_add

        def add(c_loop: CLoop, fd: int, events: int) -> int:
            token = real(c_loop, fd, events)
            if fd != fds[0]:
                selector.unregister(fd)
            return token

        monkeypatch.setattr(selector_module, "io_add", add)
        for fd in fds:
            selector.register(fd, EVENT_READ)
        assert [key.fd for key, _ in selector.select(0)] == fds[:1]
        assert len(selector.get_map()) == selector.native.stats().io_live == 1
        monkeypatch.undo()
        selector.register(fds[1], EVENT_READ)
        assert {key.fd for key, _ in selector.select(0)} == set(fds[:2])
    for fd in fds:
        os.close(fd)


@both_backends
def test_selector_closed_during_a_wait(backend: str, bars: Bars) -> None:
    """Closing ends the wait with the events it has; the next wait raises."""
    ended = 0
    for number in range(CLOSES):
        selector = Selector(backend)
        fd = os.eventfd(number % 2)
        selector.register(fd, EVENT_READ)
        results: list[int] = []

        def wait(selector: Selector = selector, into: list[int] = results) -> None:
            with contextlib.suppress(ValueError):  # it was closed before
                into.extend(events for _, events in selector.select(SOON))

        worker = Worker(wait)
        if number % 3:
            time.sleep(0)
        selector.close()
        worker.result()
        os.close(fd)
        assert results in ([], [EVENT_READ])
        with pytest.raises(ValueError, match="closed"):
            selector.select(0)
        ended += 1
    bars.at_least(
        CLOSES, f"waits that end as their selector is closed, {backend}", ended
    )


@both_backends
def test_loop_that_runs_is_not_closed_but_its_native_loop_may_be(backend: str) -> None:
    loop = SelectorEventLoop(Selector(backend))
    started = threading.Event()
    loop.call_soon_threadsafe(started.set)
    worker = Worker(lambda: loop.run(None))
    assert started.wait(SOON)
    with pytest.raises(RuntimeError, match="it is running"):
        loop.close()
    loop.stop()
    worker.result()
    loop.close()
    with pytest.raises(LoopClosed):
        loop.call_soon_threadsafe(print)
    loop.stop()  # quiet


@both_backends
def test_second_waiter_is_refused(backend: str, bars: Bars) -> None:
    refused = 0
    with Selector(backend) as selector:
        is_waiting = is_waiting_in(selector)
        worker = Worker(lambda: selector.select(SOON))
        wait_until(is_waiting)
        for _ in range(100):
            with pytest.raises(RuntimeError, match="dispatched already"):
                selector.select(0)
            refused += 1
        selector.native.wake()
        worker.result()
        assert selector.select(0) == []
    bars.at_least(100, f"second waiters that are refused, {backend}", refused)


@both_backends
def test_second_runner_is_refused(backend: str) -> None:
    with SelectorEventLoop(Selector(backend)) as loop:
        started = threading.Event()
        loop.call_soon_threadsafe(started.set)
        worker = Worker(lambda: loop.run(None))
        assert started.wait(SOON)
        for _ in range(100):
            with pytest.raises(RuntimeError, match="running already"):
                loop.run_once(0)
        loop.stop()
        worker.result()


@both_backends
def test_stop_from_many_threads(backend: str, bars: Bars) -> None:
    """The first `stop` ends each run; the later ones do no harm."""
    runs = 0
    with SelectorEventLoop(Selector(backend)) as loop:
        for _ in range(STOPS // STOPPERS):
            barrier = threading.Barrier(STOPPERS)

            def stop(barrier: threading.Barrier = barrier) -> None:
                barrier.wait(SOON)
                loop.stop()

            workers = [Worker(stop) for _ in range(STOPPERS)]
            loop.run(None)
            for worker in workers:
                worker.result()
            runs += 1
            loop.run_once(0)  # forgets a stop that came after the run
        assert lib_verifies(loop)
    bars.at_least(STOPS // STOPPERS, f"runs that many threads stop, {backend}", runs)


def lib_verifies(loop: SelectorEventLoop) -> bool:
    """Is every structure of the core sound? A release build cannot tell."""
    verify = getattr(lib, "fdmux_testing_verify", None)
    return verify is None or verify(loop.native._c_loop) == 0


@both_backends
def test_close_while_others_register_and_post(backend: str) -> None:
    """Their calls raise after the close; registered descriptors stay open."""
    for _ in range(20):
        selector = Selector(backend)
        begun = threading.Barrier(4)

        def churn(
            selector: Selector = selector, begun: threading.Barrier = begun
        ) -> None:
            left, right = socket.socketpair()
            with left, right:
                begun.wait(SOON)
                with contextlib.suppress(ValueError, KeyError):  # closed
                    while True:
                        selector.register(left, EVENT_READ)
                        selector.modify(left, EVENT_READ, "other data")
                        selector.unregister(left)
                assert left.fileno() >= 0

        workers = [Worker(churn) for _ in range(3)]
        begun.wait(SOON)
        with contextlib.suppress(ValueError):
            selector.select(0)
        selector.close()
        for worker in workers:
            worker.result()
