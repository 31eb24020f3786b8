"""The iteration of EventLoop, in C: order, errors, stopping, waking, debug mode."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import faulthandler
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from functools import partial
from typing import TYPE_CHECKING, cast
from unittest import mock

import pytest
from tests.python.hosts.asyncio.asyncio_loops import (
    KINDS,
    SOON,
    Loop,
    errors_of,
    kind_of,
    make_loop,
    nothing,
    run_for,
    turn,
    until,
)

from fdmux.hosts.asyncio import EventLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

loop = pytest.fixture(params=KINDS)(make_loop)
kind = pytest.fixture(params=KINDS)(kind_of)


class OddError(BaseException):
    """An exception that is no Exception."""


def raiser(error: BaseException) -> Callable[[*tuple[object, ...]], None]:
    def fail(*_args: object) -> None:
        raise error

    return fail


# ---- order ---------------------------------------------------------------------------


def test_callbacks_run_in_the_order_of_their_calls(loop: Loop) -> None:
    ran: list[int] = []
    for i in range(100):
        (loop.call_soon_threadsafe if i % 3 else loop.call_soon)(ran.append, i)
    turn(loop)
    assert ran == list(range(100))


def test_what_a_callback_adds_runs_in_the_next_iteration(loop: Loop) -> None:
    ran: list[str] = []

    def first() -> None:
        ran.append("first")
        loop.call_soon(ran.append, "added")
        loop.call_soon(loop.stop)

    loop.call_soon(first)
    loop.call_soon(ran.append, "second")
    loop._run_once()
    assert ran == ["first", "second"]
    loop.run_forever()
    assert ran == ["first", "second", "added"]


def test_due_timers_run_after_what_was_ready(loop: Loop) -> None:
    ran: list[str] = []
    loop.call_at(1, ran.append, "timer 1")
    loop.call_soon(ran.append, "soon")
    loop.call_at(0, ran.append, "timer 0")
    loop._run_once()
    assert ran == ["soon", "timer 0", "timer 1"]


def test_descriptors_come_before_timers(loop: Loop) -> None:
    ran: list[str] = []
    left, right = socket.socketpair()
    with left, right:
        loop.add_reader(left, ran.append, "read")
        loop.add_writer(left, ran.append, "write")
        right.send(b".")
        loop.call_at(0, ran.append, "timer")
        loop.call_soon(ran.append, "soon")
        loop._run_once()
        loop.remove_reader(left)
        loop.remove_writer(left)
    assert ran == ["soon", "read", "write", "timer"]


def test_reader_that_a_callback_removes_does_not_run(loop: Loop) -> None:
    ran: list[str] = []
    left, right = socket.socketpair()
    with left, right:
        loop.add_reader(left, ran.append, "read")
        right.send(b".")
        loop.call_soon(loop.remove_reader, left)
        turn(loop)
        turn(loop)
    assert ran == []


def test_reader_whose_handle_was_cancelled_is_removed(loop: Loop) -> None:
    left, right = socket.socketpair()
    with left, right:
        loop.add_reader(left, nothing)
        right.send(b".")
        key = loop._selector.get_key(left)
        key.data[0].cancel()
        turn(loop)
        assert not loop.remove_reader(left)


# ---- exceptions ----------------------------------------------------------------------


@pytest.mark.parametrize("is_debug", [False, True])
@pytest.mark.parametrize(
    "error",
    [ValueError("wrong"), asyncio.CancelledError(), OddError(), GeneratorExit()],
)
def test_exception_goes_to_the_handler_and_the_loop_goes_on(
    loop: Loop, error: BaseException, is_debug: bool
) -> None:
    loop.set_debug(is_debug)
    errors = errors_of(loop)
    ran: list[int] = []
    handle = loop.call_soon(raiser(error))
    loop.call_soon(ran.append, 1)
    turn(loop)
    (context,) = errors
    assert context["exception"] is error
    assert context["handle"] is handle
    assert str(context["message"]).startswith("Exception in callback raiser.<locals>.")
    assert ("source_traceback" in context) == is_debug
    if is_debug:
        frames = cast("traceback.StackSummary", context["source_traceback"])
        assert frames[-1].filename == __file__
    assert ran == [1]


def test_message_of_an_exception_is_asyncio_s() -> None:
    told: list[list[str]] = []
    for made in KINDS.values():
        loop = cast("Loop", made())
        errors = errors_of(loop)
        error = ValueError("wrong")
        loop.call_soon(raiser(error), 1, "two")
        loop.call_at(0, raiser(error))
        turn(loop)
        told.append([str(context["message"]) for context in errors])
        loop.close()
    assert told[0] == told[1]


def test_traceback_ends_where_it_was_raised(loop: Loop) -> None:
    errors = errors_of(loop)
    error = ValueError()
    loop.call_soon(raiser(error))
    turn(loop)
    del errors[:]
    assert traceback.extract_tb(error.__traceback__)[-1].name == "fail"


def test_exception_handler_sees_the_exception_as_current(loop: Loop) -> None:
    seen: list[object] = []

    def handle(_loop: object, _context: object) -> None:
        seen.append(sys.exc_info()[1])

    error = ValueError()
    loop.set_exception_handler(handle)
    loop.call_soon(raiser(error))
    loop.call_soon(lambda: seen.append(sys.exc_info()[1]))
    turn(loop)
    assert seen == [error, None]


def test_exception_of_the_exception_handler_is_logged(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[int] = []
    loop.set_exception_handler(raiser(KeyError("handler")))
    loop.call_soon(raiser(ValueError()))
    loop.call_soon(ran.append, 1)
    turn(loop)
    assert "Unhandled error in exception handler" in caplog.text
    assert ran == [1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("is_debug", [False, True])
def test_interruption_leaves_the_loop_and_the_queue_stays(
    loop: Loop, error: type[BaseException], is_debug: bool
) -> None:
    loop.set_debug(is_debug)
    ran: list[int] = []
    loop.call_soon(ran.append, 1)
    loop.call_soon(raiser(error()))
    loop.call_soon(ran.append, 2)
    loop.call_soon(loop.stop)
    with pytest.raises(error):
        loop.run_forever()
    assert ran == [1]
    assert not loop.is_running()
    assert loop._current_handle is None
    assert len(loop._ready) == 2
    loop.run_forever()
    assert ran == [1, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interruption_of_the_exception_handler_leaves_the_loop(
    loop: Loop, error: type[BaseException]
) -> None:
    loop.set_exception_handler(raiser(error()))
    loop.call_soon(raiser(ValueError()))
    with pytest.raises(error):
        loop.run_forever()
    turn(loop)


def test_interruption_of_a_task_leaves_the_loop(loop: Loop) -> None:
    async def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(interrupt())
    turn(loop)


# ---- stopping ------------------------------------------------------------------------


def test_stop_ends_after_this_iteration(loop: Loop) -> None:
    ran: list[str] = []
    loop.call_soon(loop.stop)
    loop.call_soon(lambda: loop.call_soon(ran.append, "next"))
    loop.call_soon(ran.append, "this")
    loop.run_forever()
    assert ran == ["this"]
    turn(loop)
    assert ran == ["this", "next"]


def test_stop_before_running_does_one_iteration(loop: Loop) -> None:
    ran: list[int] = []
    loop.call_soon(ran.append, 1)
    loop.call_soon(loop.call_soon, ran.append, 2)
    loop.stop()
    loop.run_forever()
    assert ran == [1]
    loop.stop()
    loop.run_forever()
    assert ran == [1, 2]


def test_stop_of_an_idle_loop_from_a_thread(loop: Loop) -> None:
    timer = threading.Timer(0.02, loop.call_soon_threadsafe, (loop.stop,))
    timer.start()
    loop.run_forever()
    timer.join()


@pytest.mark.parametrize("flag", [1, "yes"])
def test_stopping_may_be_any_truth(loop: Loop, flag: object) -> None:
    loop.call_soon(setattr, loop, "_stopping", flag)
    loop.run_forever()
    loop.call_soon(setattr, loop, "_stopping", 0)
    turn(loop)


def test_run_once_by_hand_is_one_iteration(loop: Loop) -> None:
    ran: list[int] = []

    def again() -> None:
        ran.append(1)
        loop.call_soon(again)

    again()
    for count in range(2, 5):
        loop._run_once()
        assert len(ran) == count
    loop._ready.clear()


def test_run_once_in_a_callback_is_one_iteration(loop: Loop) -> None:
    ran: list[str] = []

    def pump() -> None:
        loop.call_soon(ran.append, "pumped")
        loop._run_once()
        ran.append("returned")
        loop.stop()

    loop.call_soon(pump)
    loop.run_forever()
    assert ran == ["pumped", "returned"]
    turn(loop)


def test_running_it_inside_of_itself_is_a_runtime_error(loop: Loop) -> None:
    errors = errors_of(loop)
    loop.call_soon(loop.run_forever)
    turn(loop)
    assert [type(each["exception"]) for each in errors] == [RuntimeError]
    turn(loop)


def test_closing_ends_all_uses(loop: Loop) -> None:
    loop.close()
    loop.close()
    assert loop.is_closed()
    for use in (loop.run_forever, loop._run_once):
        with pytest.raises((RuntimeError, AttributeError)):
            use()
    loop._write_to_self()


# ---- debug mode ----------------------------------------------------------------------


def test_slow_callback_is_logged(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    def slow() -> None:
        assert loop._current_handle is handle
        time.sleep(0.03)

    async def slow_task() -> None:
        time.sleep(0.03)  # noqa: ASYNC251 - that is the test

    loop.set_debug(True)
    loop.slow_callback_duration = 0.02
    handle = loop.call_soon(slow)
    loop.call_soon(nothing)
    with caplog.at_level(logging.WARNING, "asyncio"):
        turn(loop)
        loop.run_until_complete(slow_task())
    told = [record.getMessage() for record in caplog.records]
    assert sum("slow() at" in message for message in told) == 1
    assert sum("<Task" in message for message in told) == 1
    assert all("Executing <" in message for message in told)
    assert loop._current_handle is None


@pytest.mark.parametrize("is_debug", [False, True])
def test_task_that_failed_is_dropped_as_soon_as_its_step_is_over(
    loop: Loop, is_debug: bool
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        loop.create_task(fail())
        await asyncio.sleep(0)
        assert [type(context["exception"]) for context in errors] == [ZeroDivisionError]

    loop.set_debug(is_debug)
    errors = errors_of(loop)
    gc.disable()
    try:
        loop.run_until_complete(main())
    finally:
        gc.enable()


def test_slow_callback_is_logged_by_the_logger_of_base_events(loop: Loop) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    with mock.patch("asyncio.base_events.logger") as logger:
        turn(loop)
    assert logger.warning.called


def test_debug_mode_may_change_while_running(loop: Loop) -> None:
    seen: list[object] = []

    def look() -> None:
        seen.append(loop._current_handle is not None)

    loop.call_soon(look)
    loop.call_soon(loop.set_debug, True)
    loop.call_soon(look)
    loop.call_soon(loop.set_debug, False)
    loop.call_soon(look)
    turn(loop)
    assert seen == [False, True, False]


# ---- tasks ---------------------------------------------------------------------------


def test_tasks_futures_and_contexts(loop: Loop) -> None:
    variable = contextvars.ContextVar("variable", default=0)

    async def worker(number: int) -> tuple[int, int]:
        variable.set(number)
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return number, variable.get()

    async def main() -> None:
        results = await asyncio.gather(*map(worker, range(50)))
        assert results == [(i, i) for i in range(50)]
        assert variable.get() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(SOON)

    loop.run_until_complete(main())


def test_task_factory_is_asked(loop: Loop) -> None:
    made: list[object] = []

    def make(
        loop: asyncio.AbstractEventLoop, coro: object, **options: object
    ) -> asyncio.Task[object]:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **options)  # type: ignore[arg-type] # as it comes

    async def main() -> int:
        return await asyncio.create_task(asyncio.sleep(0, 5))

    loop.set_task_factory(make)  # type: ignore[arg-type] # it takes what comes
    assert loop.run_until_complete(main()) == 5
    assert len(made) == 2


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
def test_eager_tasks(loop: Loop) -> None:
    ran: list[str] = []

    async def child(name: str) -> None:
        ran.append(name)
        await asyncio.sleep(0)
        ran.append(name.upper())

    async def main() -> None:
        task = asyncio.create_task(child("a"))
        ran.append("main")
        await task

    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined] # see above
    loop.run_until_complete(main())
    assert ran == ["a", "main", "A"]


def test_generator_that_is_dropped_is_closed_by_the_loop(loop: Loop) -> None:
    ended: list[bool] = []

    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async def main() -> None:
        async for _ in generate():
            break
        gc.collect()
        await asyncio.sleep(0.001)

    loop.run_until_complete(main())
    assert ended == [True]
    loop.run_until_complete(loop.shutdown_asyncgens())


# ---- threads -------------------------------------------------------------------------


def test_calls_of_threads_are_not_lost_while_it_waits(loop: Loop) -> None:
    ran: list[int] = []

    def call() -> None:
        for i in range(200):
            loop.call_soon_threadsafe(ran.append, i)
            if i % 20 == 0:
                time.sleep(0.0005)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        loop.call_soon(thread.start)
    until(loop, lambda: len(ran) == 800)
    for thread in threads:
        thread.join()
    assert sorted(ran) == sorted(list(range(200)) * 4)


def test_calls_of_threads_are_not_lost_while_it_is_busy(loop: Loop) -> None:
    ran: list[int] = []

    def busy() -> None:
        if len(ran) < 4000:
            loop.call_soon(busy)
        else:
            loop.stop()

    def call() -> None:
        for i in range(1000):
            loop.call_soon_threadsafe(ran.append, i)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    loop.call_soon(busy)
    loop.run_forever()
    for thread in threads:
        thread.join()
    assert len(ran) == 4000


def test_threads_wake_it_each_time(loop: Loop) -> None:
    """One call, one answer: a lost wake would wait for ever."""
    answered = threading.Event()
    failed: list[int] = []

    def call() -> None:
        for i in range(300):
            answered.clear()
            loop.call_soon_threadsafe(answered.set)
            if not answered.wait(SOON):
                failed.append(i)
                break
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=call)
    thread.start()
    loop.run_forever()
    thread.join()
    assert failed == []


def test_threads_register_while_it_waits(loop: Loop) -> None:
    pairs = [socket.socketpair() for _ in range(150)]
    ran: list[int] = []

    def receive(left: socket.socket, i: int) -> None:
        left.recv(1)
        ran.append(i)

    def register() -> None:
        time.sleep(0.01)
        for i, (left, right) in enumerate(pairs):
            loop.add_reader(left, receive, left, i)
            right.send(b".")

    thread = threading.Thread(target=register)
    loop.call_soon(thread.start)
    until(loop, lambda: len(ran) == len(pairs))
    thread.join()
    for left, right in pairs:
        loop.remove_reader(left)
        left.close()
        right.close()
    assert sorted(ran) == list(range(len(pairs)))


def test_two_loops_in_two_threads(kind: type[Loop]) -> None:
    totals: list[int] = []

    async def work() -> int:
        total = 0
        for i in range(200):
            await asyncio.sleep(0)
            total += i
        return total

    def run() -> None:
        loop = kind()
        totals.append(loop.run_until_complete(work()))
        loop.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == [19900, 19900]


def test_executor_and_child_processes(loop: Loop) -> None:
    async def main() -> None:
        running = asyncio.get_running_loop()
        results = await asyncio.gather(
            *(running.run_in_executor(None, pow, 2, i) for i in range(20))
        )
        assert results == [2**i for i in range(20)]
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(input())", stdin=-1, stdout=-1
        )
        output, _ = await child.communicate(b"hello\n")
        assert output == b"hello\n"
        await running.shutdown_default_executor()

    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(asyncio.wait_for(main(), SOON))
    finally:
        asyncio.set_event_loop(None)


# ---- signals, fork -------------------------------------------------------------------


def test_signal_handler_of_the_loop(loop: Loop) -> None:
    ran: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, ran.append, 1)
    try:
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
        until(loop, lambda: ran == [1])
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)


def test_exception_of_a_signal_handler_leaves_a_wait(loop: Loop) -> None:
    old = signal.signal(signal.SIGALRM, raiser(ZeroDivisionError()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(ZeroDivisionError):
            loop.run_forever()
    finally:
        signal.signal(signal.SIGALRM, old)
    turn(loop)


def test_signal_does_not_end_a_wait_early(loop: Loop) -> None:
    seen: list[int] = []
    old = signal.signal(signal.SIGALRM, lambda number, _frame: seen.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        begun = time.monotonic()
        run_for(loop, 0.05)
        assert time.monotonic() - begun >= 0.05 - 0.0001
        signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert seen


BUSY = """
import sys, time
from fdmux.hosts.asyncio import EventLoop
loop = EventLoop()
def again():
    loop.call_soon(again)
def begin():
    print("ready", flush=True)
    {begin}
loop.call_soon(begin)
try:
    loop.run_forever()
except KeyboardInterrupt:
    print(time.time(), flush=True)
loop.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("begin", ["again()", "loop.call_later(1000, again)"])
def test_ctrl_c_ends_it_at_once(begin: str) -> None:
    program = BUSY.format(begin=begin)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.05)
        begun = time.time()
        child.send_signal(signal.SIGINT)
        ended = child.stdout.readline()
        assert child.wait(SOON) == 0
    # 0.1 without other programs, which tests/reliability/test_interrupts.py leaves out.
    assert float(ended) - begun < 1.0


@pytest.mark.filterwarnings("ignore:This process")
def test_fork_in_a_callback(loop: Loop) -> None:
    def fork() -> None:
        child = os.fork()
        if child == 0:
            os._exit(5)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    statuses: list[int] = []
    loop.call_soon(fork)
    run_for(loop, 0.001)
    assert statuses == [5]


@pytest.mark.filterwarnings("ignore:This process")
def test_forked_child_runs_a_loop_of_its_own(kind: type[Loop]) -> None:
    loop = kind()
    turn(loop)
    child = os.fork()
    if child == 0:
        try:
            own = kind()
            run_for(own, 0.001)
            own.close()
            os._exit(5)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    turn(loop)
    loop.close()


# ---- the end -------------------------------------------------------------------------


def test_loop_left_unclosed_warns(kind: type[Loop]) -> None:
    loop = kind()
    reference = weakref.ref(loop)
    loop.call_soon(nothing)
    turn(loop)
    del loop  # its selector and sockets refer to it
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        gc.collect()
    assert reference() is None


def test_closed_loop_is_freed(kind: type[Loop]) -> None:
    loop = kind()
    left, right = socket.socketpair()
    with left, right:
        loop.add_reader(left, nothing)
        turn(loop)
        loop.remove_reader(left)
    reference = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert reference() is None


def test_traceback_of_a_callback_shows_who_runs_it(loop: Loop) -> None:
    names: list[str] = []

    def look() -> None:
        names.extend(frame.name for frame in traceback.extract_stack())

    loop.call_soon(look)
    turn(loop)
    assert names[-1] == "look"
    assert "run_forever" in names
    assert "turn" in names


def test_faulthandler_shows_the_callback_and_who_runs_it(loop: Loop) -> None:
    with tempfile.TemporaryFile() as file:
        loop.call_soon(faulthandler.dump_traceback, file)
        turn(loop)
        file.seek(0)
        text = file.read().decode()
    assert "in run_forever" in text
    assert "in turn" in text


def test_loop_that_was_not_initialised_does_no_harm(kind: type[Loop]) -> None:
    loop = kind.__new__(kind)
    uses: list[Callable[[], object]] = [
        partial(loop.call_soon, nothing),
        partial(loop.call_later, 1, nothing),
        partial(getattr, loop, "_ready"),
        loop._run_once,
    ]
    while uses:
        with contextlib.suppress(AttributeError):
            uses.pop()()
    loop._closed = True  # type: ignore[attr-defined] # or it would be closed
    loop._ready = []
    del loop
    gc.collect()


def test_eventloop_is_a_selectoreventloop() -> None:
    assert issubclass(EventLoop, asyncio.SelectorEventLoop)
    assert issubclass(EventLoop, asyncio.BaseEventLoop)
