"""Completions: results of native threads, awaited in asyncio, trio and gevent."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import os
import threading
import weakref
from typing import TYPE_CHECKING

import pytest

import fdmux
from fdmux.aio import Completion
from fdmux.native import completion
from fdmux.testing import NativeJob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import ModuleType

    Main = Callable[[], Awaitable[object]]
    Run = Callable[[Main], object]

SOON = 10.0


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    completion.abandoned.clear()
    gc.collect()


def finish_in_thread(completion: Completion, result: int) -> threading.Thread:
    job = NativeJob(completion)
    thread = threading.Thread(target=job.finish, args=(result,))
    thread.start()
    return thread


def test_result_of_a_thread_is_awaited(run: Run) -> None:
    async def main() -> object:
        completion = Completion()
        assert not completion.is_done
        thread = finish_in_thread(completion, 42)
        assert await completion == 42
        thread.join()
        assert completion.is_done
        assert "result 42" in repr(completion)
        return await completion

    assert run(main) == 42


def test_negative_result_is_an_error(run: Run) -> None:
    async def main() -> None:
        completion = Completion()
        NativeJob(completion).finish(-errno.ECONNREFUSED)
        with pytest.raises(ConnectionRefusedError, match="native code failed"):
            await completion

    run(main)


def test_many_completions_share_one_descriptor(run: Run) -> None:
    async def main() -> list[object]:
        completions = [Completion() for _ in range(200)]
        jobs = [NativeJob(completion) for completion in completions]
        thread = threading.Thread(
            target=lambda: [job.finish(number) for number, job in enumerate(jobs)]
        )
        thread.start()
        results = [await completion for completion in completions]
        thread.join()
        assert len({id(completion._core) for completion in completions}) == 1
        assert completions[0]._core.count() == 0
        return results

    assert run(main) == list(range(200))


@pytest.mark.parametrize("count", [1, 3])
def test_cancelled_waits_in_asyncio_leave_no_waiters(count: int) -> None:
    async def wait_for(completion: Completion) -> object:
        return await completion

    async def main() -> None:
        completion = Completion()
        job = NativeJob(completion)
        for _ in range(10):
            waiting = [
                asyncio.ensure_future(wait_for(completion)) for _ in range(count)
            ]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        held = gc.get_referents(completion)
        futures = [one for one in held if isinstance(one, asyncio.Future)]
        futures += [one for list_ in held if isinstance(list_, list) for one in list_]
        assert len(futures) <= count  # of the last round
        others = [asyncio.ensure_future(wait_for(completion)) for _ in range(count)]
        await asyncio.sleep(0)
        others[0].cancel()
        job.finish(7)
        assert await asyncio.gather(*others[1:]) == [7] * (count - 1)
        assert await completion == 7

    asyncio.run(main())


def test_cancelled_wait_in_trio_leaves_no_waiter(trio: ModuleType) -> None:
    async def main() -> None:
        completion = Completion()
        job = NativeJob(completion)
        with trio.move_on_after(0) as scope:
            await completion
        assert scope.cancelled_caught
        statistics = completion._get_event().statistics()  # type: ignore[attr-defined] # trio.Event
        assert statistics.tasks_waiting == 0
        job.finish(7)
        assert await completion == 7

    trio.run(main)


def test_place_of_a_dropped_completion_stays_valid(run: Run) -> None:
    async def main() -> None:
        dropped, last = Completion(), Completion()
        port, alive = last._core, weakref.ref(dropped)
        jobs = [NativeJob(dropped), NativeJob(last)]
        del dropped
        gc.collect()
        assert alive() is not None
        assert port.count() == 2  # a thread may still write there
        for number, job in enumerate(jobs):
            job.finish(number)
        assert await last == 1
        assert alive() is None
        assert port.count() == 0

    run(main)


def test_put_after_the_end_of_the_loop_is_refused(run: Run) -> None:
    async def main() -> NativeJob:
        return NativeJob(Completion())

    job = run(main)
    assert isinstance(job, NativeJob)
    gc.collect()
    assert len(completion.abandoned) == 1
    assert job.finish(1) == -errno.ESTALE


def test_discarded_completion_is_cancelled(run: Run) -> None:
    async def main() -> None:
        completion = Completion()
        completion.discard()
        completion.discard()
        assert completion._core.count() == 0
        with pytest.raises(OSError, match="native code failed") as caught:
            await completion
        assert caught.value.errno == errno.ECANCELED

    run(main)


def test_new_run_of_a_loop_gets_a_new_port(run: Run) -> None:
    async def main() -> Completion:
        completion = Completion()
        NativeJob(completion).finish(0)
        await completion
        return completion

    first, second = run(main), run(main)
    assert isinstance(first, Completion)
    assert isinstance(second, Completion)
    assert first._core is not second._core
    for made in (first, second):
        with pytest.raises(ValueError, match="it is closed"):
            made._core.queue_owner.fileno()


def test_result_is_whatever_convert_makes_of_the_number(run: Run) -> None:
    async def main() -> None:
        rows = {7: ["a row"]}
        found, missing, failed = (Completion(rows.__getitem__) for _ in range(3))
        for one, result in ((found, 7), (missing, 8), (failed, -errno.EPIPE)):
            NativeJob(one).finish(result)
        assert await found is rows[7]
        with pytest.raises(KeyError, match="8"):
            await missing
        with pytest.raises(BrokenPipeError):  # an error is not converted
            await failed

    run(main)


def test_convert_must_be_callable() -> None:
    with pytest.raises(TypeError, match="convert must be callable, not 5"):
        Completion(5)  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize("outcome", [None, "text", (1, 2), KeyError("gone")])
def test_completion_is_set_in_the_loop(run: Run, outcome: object) -> None:
    async def main() -> None:
        completion = Completion()
        if isinstance(outcome, KeyError):
            completion.set_exception(outcome)
            completion.set_result("too late")
            with pytest.raises(KeyError, match="gone"):
                await completion
            assert "error KeyError" in repr(completion)
        else:
            completion.set_result(outcome)
            completion.set_exception(KeyError("too late"))
            assert await completion is outcome
            assert completion.result() is outcome
        assert completion.is_done

    run(main)


def test_only_exceptions_are_set_as_such(run: Run) -> None:
    async def main() -> None:
        completion = Completion()
        with pytest.raises(TypeError, match="is no exception"):
            completion.set_exception("text")  # type: ignore[arg-type] # on purpose
        completion.set_exception(StopIteration("it would end the task"))
        with pytest.raises(RuntimeError, match="StopIteration"):
            await completion

    run(main)


def test_every_task_that_waits_gets_the_object(anyio: ModuleType) -> None:
    """On asyncio, and on trio."""

    async def main() -> None:
        completion = Completion()
        results: list[object] = []
        value = object()

        async def wait() -> None:
            results.append(await completion)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(wait)
            await anyio.sleep(0)
            await anyio.sleep(0)
            completion.set_result(value)
        assert results == [value] * 3

    for backend in ("asyncio", "trio"):
        anyio.run(main, backend=backend)


@pytest.mark.filterwarnings("ignore:coroutine")
def test_completion_of_another_loop_cannot_be_awaited() -> None:
    made: list[Completion] = []

    async def make() -> None:
        made.append(Completion())

    async def wait() -> None:
        await made[0]

    loop = asyncio.new_event_loop()
    loop.run_until_complete(make())
    with pytest.raises(RuntimeError, match="different loop"):
        asyncio.run(wait())
    loop.close()
    gc.collect()
    with pytest.raises(RuntimeError, match="its loop has ended"):
        asyncio.run(wait())


@pytest.mark.filterwarnings("ignore:coroutine", "ignore:unclosed")
def test_loop_that_is_dropped_without_a_close_leaves_its_completions_valid() -> None:
    async def make() -> tuple[Completion, NativeJob]:
        return Completion(), NativeJob(Completion())

    async def wait(made: Completion) -> None:
        await made

    loop = asyncio.new_event_loop()
    made, job = loop.run_until_complete(make())
    dropped = weakref.ref(loop)
    del loop
    gc.collect()
    assert dropped() is None
    assert len(completion.abandoned) == 1
    assert job.finish(1) == -errno.ESTALE
    with pytest.raises(RuntimeError, match="its loop has ended"):
        asyncio.run(wait(made))


def test_loops_in_turn_have_a_port_each() -> None:
    async def main(others: list[object]) -> None:
        first = Completion()
        await asyncio.sleep(0)
        second = Completion()
        assert first._core is second._core
        assert first._core not in others
        others.append(first._core)

    loops = [asyncio.new_event_loop() for _ in range(3)]
    cores: list[object] = []
    for loop in loops:
        loop.run_until_complete(main(cores))
    for loop in loops:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert len(cores) == 3


def test_wrong_and_repeated_addresses_are_ignored(run: Run) -> None:
    async def main() -> None:
        completion, last = Completion(), Completion()
        job, last_job = NativeJob(completion), NativeJob(last)
        address = completion.address
        job.finish(1)
        assert await completion == 1
        for wrong in (address, 0, 8, 1 << 40):
            assert last_job._api.queue_put(last_job._queue, wrong) == 0
        last_job.finish(2)
        assert await last == 2
        assert await completion == 1

    run(main)


def test_forked_child_has_no_loop_to_await_in() -> None:
    async def main() -> None:
        completion = Completion()
        child = os.fork()
        if child == 0:
            is_refused = False
            try:
                Completion()
            except RuntimeError:
                is_refused = True
            os._exit(0 if is_refused else 1)
        status = os.waitpid(child, 0)[1]  # noqa: ASYNC222 - the child exits at once
        assert os.waitstatus_to_exitcode(status) == 0
        NativeJob(completion).finish(3)
        assert await completion == 3

    asyncio.run(main())


def test_completion_in_a_cycle_is_collected() -> None:
    async def main() -> None:
        completion = Completion()
        alive = weakref.ref(completion)
        completion.set_result([completion])
        del completion
        gc.collect()
        assert alive() is None

    asyncio.run(main())


def test_task_cannot_wait_as_a_greenlet_does(run: Run) -> None:
    async def main() -> None:
        completion = Completion()
        with pytest.raises(TimeoutError, match="not done yet"):
            completion.result()
        with pytest.raises(RuntimeError, match="await it"):
            completion.wait()
        completion.discard()

    run(main)


def test_greenlet_waits(gevent: ModuleType) -> None:
    def main() -> object:
        completion = Completion()
        with pytest.raises(RuntimeError, match=r"call its wait\(\)"):
            completion.__await__().send(None)
        with pytest.raises(TimeoutError, match="not done yet"):
            completion.wait(0.001)
        thread = finish_in_thread(completion, 42)
        assert completion.wait(SOON) == 42
        thread.join()
        return completion.wait()

    assert gevent.spawn(main).get(timeout=SOON) == 42


def test_killed_greenlet_leaves_no_waiter(gevent: ModuleType) -> None:
    def main() -> object:
        completion = Completion()
        job = NativeJob(completion)
        waiting = gevent.spawn(completion.wait)
        gevent.sleep(0)
        waiting.kill()
        assert completion._get_event().linkcount() == 0  # type: ignore[attr-defined] # gevent's
        job.finish(7)
        return completion.wait(SOON)

    assert gevent.spawn(main).get(timeout=SOON) == 7


def test_completion_in_a_callback_loop_is_refused() -> None:
    errors: list[BaseException] = []

    def main() -> None:
        try:
            Completion()
        except RuntimeError as error:
            errors.append(error)
        loop.stop()

    with fdmux.SelectorEventLoop() as loop:
        loop.call_soon_threadsafe(main)
        loop.run()
    assert "nothing can be awaited in" in str(errors[0])


def test_completion_without_a_loop_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no loop"):
        Completion()


def test_convert_may_complete_it_itself() -> None:
    alive: list[bool] = []

    async def main() -> object:
        def settle(number: int) -> int:
            completion.set_result("first")  # which drops the reference to convert
            alive.append(reference() is not None)
            return number

        convert = functools.partial(settle)
        reference = weakref.ref(convert)
        completion = Completion(convert)
        del convert
        finish_in_thread(completion, 5).join()
        return await completion

    assert asyncio.run(main()) == "first"
    assert alive == [True]
