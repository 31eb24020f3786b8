"""How long a loop runs, and what ends it."""

from __future__ import annotations

import functools
import os
import signal
import socket
import threading
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from fdmux import current
from fdmux._native import LoopClosed
from fdmux.loop.event_loop import SelectorEventLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.python.conftest import FakeClock, SelectorFactory

    from fdmux.checks import Seconds

    Pair = tuple[socket.socket, socket.socket]

LONG = 30.0  # no wait may last this long
SOON = 5.0  # generous to a slow machine, and still much less than LONG


def fail(_sock: object) -> None:
    pytest.fail("called, though nobody may be")


def in_thread(fn: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=fn)
    thread.start()
    return thread


def test_run_once_counts_callbacks(loop: SelectorEventLoop, pair: Pair) -> None:
    loop.register_read(pair[0], lambda _: None)
    loop.register_write(pair[0], lambda _: None)
    pair[1].send(b"x")
    loop.call_later(0, int)
    loop.call_soon_threadsafe(int)
    assert loop.run_once(LONG) == 4


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.0, -5.5, float("-inf")])
def test_no_timeout_does_not_wait(loop: SelectorEventLoop, timeout: float) -> None:
    assert loop.run_once(timeout) == 0


@pytest.mark.parametrize("timeout", [None, float("inf"), 1e300, 2**31 / 1000, 1 << 70])
def test_long_timeout_waits_for_what_comes(
    loop: SelectorEventLoop, timeout: float | None
) -> None:
    loop.call_later(0.001, int)
    while not loop.run_once(timeout):
        pass


@pytest.mark.parametrize(
    "delay", [Fraction(1, 500), Decimal("0.002"), Fraction(-1), False], ids=repr
)
def test_every_real_number_is_a_time(loop: SelectorEventLoop, delay: Seconds) -> None:
    called: list[str] = []
    loop.call_later(delay, called.append, "later")
    loop.call_at(delay, called.append, "at")  # long ago, on the loop's clock
    loop.run_once(delay)
    while len(called) < 2:
        loop.run_once(Fraction(LONG))
    assert called == ["at", "later"]


def test_timeout_beyond_any_float_sets_no_limit(loop: SelectorEventLoop) -> None:
    loop.call_later(10**400, int)  # never due
    loop.call_later(Decimal("0.001"), int)
    assert loop.run_once(10**400) == 1


def test_timeout_is_not_cut_short(loop: SelectorEventLoop) -> None:
    started = loop.time()
    assert loop.run_once(0.0125) == 0
    assert loop.time() - started >= 0.0125


def test_nan_timeout_is_refused(loop: SelectorEventLoop) -> None:
    with pytest.raises(ValueError, match="NaN"):
        loop.run_once(float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        loop.run(float("nan"))
    assert loop.run_once(0) == 0


@pytest.mark.parametrize("timeout", ["1", b"1", []])
def test_timeout_must_be_a_number(loop: SelectorEventLoop, timeout: float) -> None:
    with pytest.raises(TypeError):
        loop.run_once(timeout)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_run_makes_so_many_iterations(
    loop: SelectorEventLoop, pair: Pair, count: int
) -> None:
    called: list[object] = []
    loop.register_write(pair[0], called.append)
    loop.run(LONG, max_iterations=count)
    assert len(called) == count


def test_wrong_number_of_iterations_is_refused(loop: SelectorEventLoop) -> None:
    with pytest.raises(ValueError, match="max_iterations"):
        loop.run(0, max_iterations=-1)
    with pytest.raises(TypeError):
        loop.run(0, max_iterations=1.5)  # type: ignore[arg-type] # on purpose


def test_stop_in_a_callback_ends_the_run(loop: SelectorEventLoop, pair: Pair) -> None:
    called: list[object] = []

    def stop(sock: socket.socket) -> None:
        called.append(sock)
        loop.stop()

    loop.register_write(pair[0], stop)
    loop.run(LONG)
    loop.run(LONG)
    assert len(called) == 2


def test_stop_from_another_thread_ends_the_wait(loop: SelectorEventLoop) -> None:
    running = threading.Event()
    stopped_at: list[float] = []

    def stop_when_running() -> None:
        running.wait()
        stopped_at.append(loop.time())
        loop.stop()

    thread = in_thread(stop_when_running)
    loop.call_later(0, running.set)
    loop.run(LONG)
    assert loop.time() - stopped_at[0] < SOON
    thread.join()


def test_stop_from_another_thread_ends_run_once(loop: SelectorEventLoop) -> None:
    started = loop.time()
    thread = in_thread(loop.stop)
    assert loop.run_once(LONG) == 0
    assert loop.time() - started < SOON
    thread.join()


def test_stop_before_run_leaves_one_iteration_without_wait(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    called: list[object] = []
    loop.register_write(pair[0], called.append)
    loop.stop()
    loop.run(LONG)
    assert len(called) == 1
    loop.run(LONG, max_iterations=3)
    assert len(called) == 4


def test_stop_from_a_signal_handler_ends_the_wait(loop: SelectorEventLoop) -> None:
    running = threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def kill_when_running() -> None:
        running.wait()
        signal.pthread_kill(main, signal.SIGUSR1)

    old = signal.signal(signal.SIGUSR1, lambda *_: loop.stop())
    thread = in_thread(kill_when_running)
    try:
        loop.call_later(0, running.set)
        started = loop.time()
        loop.run(LONG)
        assert loop.time() - started < SOON
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, old)


def test_ctrl_c_leaves_run_and_loses_nothing(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    called: list[str] = []

    def interrupt() -> None:
        called.append("interrupt")
        signal.raise_signal(signal.SIGINT)

    loop.register_read(pair[0], lambda _: called.append("read"))
    loop.call_later(0, interrupt)
    loop.call_later(0, called.append, "timer")
    loop.call_soon_threadsafe(called.append, "posted")
    with pytest.raises(KeyboardInterrupt):
        loop.run(LONG)
    pair[1].send(b"x")
    assert called == ["interrupt"]
    assert loop.run_once(LONG) == 3
    assert called == ["interrupt", "read", "timer", "posted"]


def test_signals_wake_a_run_and_only_a_run(loop: SelectorEventLoop) -> None:
    """Without this, a signal just before the wait is seen only after it."""
    seen: list[int] = []

    def look() -> None:
        fd = signal.set_wakeup_fd(-1)
        seen.append(fd)
        signal.set_wakeup_fd(fd)

    loop.call_later(0, look)
    loop.run(0, max_iterations=1)
    look()
    assert seen[0] >= 0
    assert seen[1] == -1


def test_foreign_wakeup_fd_is_left_alone(loop: SelectorEventLoop, pair: Pair) -> None:
    seen: list[int] = []
    signal.set_wakeup_fd(pair[0].fileno())
    try:
        loop.call_later(0, lambda: seen.append(signal.set_wakeup_fd(pair[0].fileno())))
        loop.run(0, max_iterations=1)
    finally:
        seen.append(signal.set_wakeup_fd(-1))
    assert seen == [pair[0].fileno()] * 2


def test_run_in_a_callback_is_refused(loop: SelectorEventLoop) -> None:
    errors: list[str] = []

    def nest() -> None:
        for run in (loop.run, loop.run_once, loop.close):
            with pytest.raises(RuntimeError, match="running") as caught:
                run()
            errors.append(str(caught.value))

    loop.call_later(0, nest)
    assert loop.run_once(LONG) == 1
    assert len(errors) == 3
    assert loop.run_once(0) == 0


def test_run_in_two_threads_is_refused(loop: SelectorEventLoop) -> None:
    running = threading.Event()
    loop.call_later(0, running.set)
    thread = in_thread(loop.run)
    running.wait()
    with pytest.raises(RuntimeError, match="running already"):
        loop.run_once(0)
    with pytest.raises(RuntimeError, match="running"):
        loop.close()
    loop.stop()
    thread.join()


def test_calls_from_threads_run_once_each_and_in_order(
    loop: SelectorEventLoop,
) -> None:
    called: list[tuple[int, int]] = []

    def post(thread: int) -> None:
        for i in range(500):
            loop.call_soon_threadsafe(called.append, (thread, i))

    threads = [in_thread(functools.partial(post, i)) for i in range(4)]
    while len(called) < 2000:
        assert loop.run_once(LONG) >= 0
    for thread in threads:
        thread.join()
    assert loop.run_once(0) == 0
    for i in range(4):
        assert [n for thread, n in called if thread == i] == list(range(500))


def test_cancelled_call_does_not_run(loop: SelectorEventLoop) -> None:
    handle = loop.call_soon_threadsafe(pytest.fail, "cancelled")
    handle.cancel()
    assert handle.is_cancelled
    assert loop.run_once(0) == 0


def test_call_that_posts_itself_does_not_starve_io(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    called: list[object] = []

    def post_again() -> None:
        loop.call_soon_threadsafe(post_again)

    post_again()
    loop.register_write(pair[0], called.append)
    loop.run(LONG, max_iterations=5)
    assert len(called) == 5


def test_close_is_idempotent_and_closes_the_selector(
    selector_factory: SelectorFactory, pair: Pair
) -> None:
    selector = selector_factory()
    loop = SelectorEventLoop(selector)
    loop.register_read(pair[0], fail)
    loop.close()
    loop.close()
    with pytest.raises((RuntimeError, KeyError)):
        selector.get_key(pair[0])
    assert pair[0].fileno() >= 0


def test_use_after_close_says_so(loop: SelectorEventLoop, pair: Pair) -> None:
    loop.close()
    for use in (
        lambda: loop.run(0),
        lambda: loop.run_once(0),
        lambda: loop.register_read(pair[0], fail),
        lambda: loop.register_write(pair[0], fail),
        lambda: loop.call_later(0, int),
        lambda: loop.call_at(0, int),
        lambda: loop.call_soon_threadsafe(int),
        lambda: loop.native,
        loop.__fdmux_loop__,
        loop.__enter__,
    ):
        with pytest.raises(LoopClosed, match="closed"):
            use()
    loop.stop()
    loop.unregister(pair[0])


def test_failed_construction_leaves_the_given_selector_open(
    selector_factory: SelectorFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptors() -> None:
        raise OSError(24, "Too many open files")

    with selector_factory() as selector:
        monkeypatch.setattr(socket, "socketpair", no_descriptors)
        with pytest.raises(OSError, match="Too many"):
            SelectorEventLoop(selector)
        with pytest.raises(OSError, match="Too many"):
            SelectorEventLoop()
        assert selector.select(0) == []


def test_native_loop_is_served(loop: SelectorEventLoop) -> None:
    native = loop.native
    assert loop.native is native
    thread = in_thread(native.wake)
    started = loop.time()
    loop.run_once(LONG)
    assert loop.time() - started < SOON
    thread.join()
    assert loop.__fdmux_loop__() is not None


def test_current_is_the_loop_whose_callback_runs(loop: SelectorEventLoop) -> None:
    seen: list[object] = []

    def look() -> None:
        seen.append(current())

    def nest() -> None:
        look()
        with SelectorEventLoop() as inner:
            inner.call_later(0, look)
            inner.run_once(LONG)
            assert seen[-1] is inner.native
        look()

    loop.call_later(0, nest)
    loop.run_once(LONG)
    assert seen[0] is seen[2] is loop.native
    with pytest.raises(RuntimeError, match="no loop"):
        current()


def run_in_child(fn: Callable[[], None]) -> int:
    """Fork, call ``fn`` in the child, return its exit code: 0 if ``fn`` returned."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            fn()
            code = 0
        finally:
            os._exit(code)
    _pid, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def test_forked_child_is_told_and_parent_is_unaffected(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    called: list[object] = []
    loop.register_read(pair[0], called.append)

    def child() -> None:
        for use in (loop.run_once, lambda: loop.register_read(pair[0], fail)):
            with pytest.raises(LoopClosed, match="parent process"):
                use()
        loop.unregister(pair[0])
        loop.close()

    assert run_in_child(child) == 0
    pair[1].send(b"x")
    assert loop.run_once(LONG) == 1


def test_fork_in_a_callback_calls_nobody_in_the_child(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    """The child returns into the batch, which has another ready socket in it."""
    parent = os.getpid()
    codes: list[int] = []
    calls: list[int] = []

    def fork(_sock: object) -> None:
        calls.append(os.getpid())
        child = os.fork()
        if child:
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            loop.unregister(pair[0])
            loop.unregister(pair[1])
            loop.stop()

    loop.register_write(pair[0], fork)
    loop.register_write(pair[1], fork)
    code = 1
    try:
        loop.run(LONG)
    except LoopClosed:
        code = 0 if len(calls) == 1 else 2
    finally:
        if os.getpid() != parent:
            os._exit(code)
    assert codes == [0]
    assert len(calls) == 1


def test_clock_can_be_given(clock: FakeClock) -> None:
    with SelectorEventLoop(clock=clock) as loop:
        assert loop.time() == clock.now


def test_exception_out_of_a_thread_s_run_has_no_context(
    loop: SelectorEventLoop,
) -> None:
    """Only the main thread can have a wakeup fd; its absence is no error."""
    caught: list[Exception] = []

    def run() -> None:
        try:
            loop.run(SOON)
        except ZeroDivisionError as error:
            caught.append(error)

    loop.call_later(0, lambda: 1 // 0)
    in_thread(run).join()
    assert [error.__context__ for error in caught] == [None]
