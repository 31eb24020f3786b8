"""NativeLoop: the Python handle of a loop of the core."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fdmux import ForkedLoop, LoopClosed, NativeLoop, Selector
from fdmux._native import backend_names, check, timeout_ns

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from tests.compiled import HasLoop
    from tests.python.conftest import NativeUser

    Pair = tuple[socket.socket, socket.socket]
    Adopt = Callable[[HasLoop], NativeUser]

SOON = 20.0


@pytest.fixture(params=backend_names())
def loop(request: pytest.FixtureRequest) -> Iterator[NativeLoop]:
    with NativeLoop(str(request.param)) as loop:
        yield loop


def test_says_what_it_is(loop: NativeLoop) -> None:
    assert repr(loop) == f"<fdmux.NativeLoop {loop.backend} at {loop.address:#x}>"
    assert loop.address > 0


def test_stays_printable_when_it_could_not_be_made() -> None:
    loop = NativeLoop.__new__(NativeLoop)
    with pytest.raises(ValueError, match="no backend"):
        NativeLoop.__init__(loop, "none")
    assert "could not be made" in repr(loop)  # as in a traceback


def test_dispatch_calls_what_is_ready(
    loop: NativeLoop, pair: Pair, native_user: Adopt
) -> None:
    native = native_user(loop)
    assert loop.dispatch() is False
    token = native.watch(pair[0].fileno())
    assert loop.dispatch(0) is False
    pair[1].send(b"x")
    loop.dispatch(0)
    assert native.counts.called == 1
    assert native.unwatch(token) == 0
    assert native.counts.destroyed == 1
    loop.dispatch(0)
    assert native.counts.called == 1


def test_timers_are_called_in_time_and_never_early(
    loop: NativeLoop, native_user: Adopt
) -> None:
    native = native_user(loop)
    assert loop.next_deadline() is None
    started = time.monotonic()
    assert native.timer(0.02) > 0
    deadline = loop.next_deadline()
    assert deadline is not None
    assert started + 0.019 <= deadline <= time.monotonic() + 0.02
    while not native.counts.called:
        assert time.monotonic() < started + SOON
        loop.dispatch(0.005)
    assert time.monotonic() >= deadline
    loop.wake()
    assert loop.next_deadline() is not None  # the wake waits
    loop.dispatch(0)
    assert loop.next_deadline() is None


def test_posted_calls_run_and_make_the_deadline_now(
    loop: NativeLoop, native_user: Adopt
) -> None:
    native = native_user(loop)
    assert native.post() == 0
    deadline = loop.next_deadline()
    assert deadline is not None
    assert deadline <= time.monotonic()
    loop.dispatch(0)
    assert native.counts.called == 1


def test_dispatch_without_limit_is_ended_by_a_wake(loop: NativeLoop) -> None:
    thread = threading.Thread(target=loop.wake)
    thread.start()
    assert loop.dispatch(None) is False
    thread.join()


def test_error_of_a_native_function_is_raised_and_the_loop_goes_on(
    loop: NativeLoop, pair: Pair, native_user: Adopt
) -> None:
    native = native_user(loop)
    native.counts.result = -71
    pair[1].send(b"x")
    token = native.watch(pair[0].fileno())
    with pytest.raises(OSError, match="dispatch the loop") as caught:
        loop.dispatch(0)
    assert caught.value.errno == 71
    native.counts.result = 0
    loop.dispatch(0)
    assert native.counts.called == 2
    assert native.unwatch(token) == 0


def test_collected_watcher_needs_a_selector(
    loop: NativeLoop, pair: Pair, native_user: Adopt
) -> None:
    native = native_user(loop)
    pair[1].send(b"x")
    token = native.watch_collected(pair[0].fileno())
    with pytest.raises(OSError, match="dispatch the loop"):
        loop.dispatch(0)
    assert native.unwatch(token) == 0
    assert loop.dispatch(0) is False


def test_fileno_polls_readable_for_events_timers_and_posts(
    pair: Pair, native_user: Adopt
) -> None:
    with NativeLoop("epoll") as loop:
        native = native_user(loop)
        host = select.poll()
        host.register(loop.fileno(), select.POLLIN)
        assert loop.fileno() == loop.fileno()
        assert os.get_inheritable(loop.fileno()) is False
        assert host.poll(0) == []
        token = native.watch(pair[0].fileno())
        pair[1].send(b"x")
        assert host.poll(0)
        assert native.unwatch(token) == 0
        loop.dispatch(0)
        assert host.poll(0) == []
        for begin in (native.post, loop.wake, lambda: native.timer(0.001)):
            begin()
            assert host.poll(SOON * 1000)
            loop.dispatch(0)
            assert host.poll(0) == []


def test_poll_backend_has_no_fileno() -> None:
    with NativeLoop("poll") as loop:
        with pytest.raises(OSError, match="get the fd of the loop"):
            loop.fileno()
        assert loop.dispatch(0) is False


def test_stats_count_what_happens(
    loop: NativeLoop, pair: Pair, native_user: Adopt
) -> None:
    native = native_user(loop)
    before = loop.stats()
    pair[1].send(b"x")
    native.watch(pair[0].fileno())
    native.watch(pair[0].fileno())
    native.post()
    native.timer(0)
    loop.dispatch(0)
    stats = loop.stats()
    assert stats.iteration_count > before.iteration_count
    assert (stats.io_called_count, stats.timer_count, stats.post_count) == (2, 1, 1)
    assert (stats.io_live, stats.fd_live, stats.timer_live) == (2, 1, 1)
    assert (stats.io_collected_count, stats.stale_event_count) == (0, 0)
    assert "waits below a millisecond" in stats.features
    assert ("pollable fd" in stats.features) is (loop.backend == "epoll")


def test_close_ends_every_watcher_and_is_idempotent(
    loop: NativeLoop, pair: Pair, native_user: Adopt
) -> None:
    native = native_user(loop)
    native.watch(pair[0].fileno())
    native.timer(SOON)
    loop.close()
    assert native.counts.destroyed == 2
    loop.close()
    assert native.counts.destroyed == 2


def test_closed_loop_says_so(loop: NativeLoop) -> None:
    loop.close()
    for use in (
        loop.dispatch,
        loop.fileno,
        loop.next_deadline,
        loop.stats,
        loop.wake,
        loop.after_fork,
    ):
        with pytest.raises(LoopClosed, match="the loop is closed"):
            use()
    assert loop.backend in repr(loop)


def test_close_ends_a_dispatch_in_another_thread(loop: NativeLoop) -> None:
    outcomes: list[BaseException] = []

    def serve() -> None:
        try:
            loop.dispatch(SOON)
        except LoopClosed as error:
            outcomes.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    loop.close()
    thread.join(SOON)
    assert len(outcomes) == 1


def test_after_fork_without_a_fork_changes_nothing(loop: NativeLoop) -> None:
    loop.after_fork()
    assert loop.dispatch(0) is False


def test_selector_closes_its_loop() -> None:
    with Selector() as selector:
        native = selector.native
    with pytest.raises(LoopClosed):
        native.dispatch()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1, PermissionError),
        (2, FileNotFoundError),
        (9, OSError),
        (10, ForkedLoop),
        (11, BlockingIOError),
        (12, MemoryError),
        (16, RuntimeError),
        (errno.ECONNREFUSED, ConnectionRefusedError),
        (errno.ESTALE, LoopClosed),
    ],
)
def test_check_makes_the_exception_that_fits(
    code: int, expected: type[Exception]
) -> None:
    with pytest.raises(expected, match=r"^(\[Errno \d+\] )?watch fd 7: ") as caught:
        check(-code, "watch fd 7")
    assert type(caught.value) is expected
    assert getattr(caught.value, "errno", code) == code


def test_check_passes_results_on() -> None:
    assert check(0, "x") == 0
    assert check(7, "x") == 7


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [
        (None, -1),
        (float("inf"), -1),
        (1e300, -1),
        (2**70, -1),
        (0, 0),
        (-1, 0),
        (float("-inf"), 0),
        (1, 10**9),
        (1e-9, 1),
        (1e-10, 1),
        (0.0002, 200_000),
        (1.5, 1_500_000_000),
        (2**31, 2**31 * 10**9),
    ],
)
def test_timeouts_are_rounded_up(timeout: float | None, expected: int) -> None:
    assert timeout_ns(timeout) == expected
