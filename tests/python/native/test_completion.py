"""Completions: results of native threads, awaited in asyncio, trio and gevent."""

from __future__ import annotations

import asyncio
import errno
import gc
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
    async def main() -> int:
        completion = Completion()
        assert not completion.is_done
        thread = finish_in_thread(completion, 42)
        result = await completion
        thread.join()
        assert completion.is_done
        assert "result 42" in repr(completion)
        return result + await completion

    assert run(main) == 84


def test_negative_result_is_an_error(run: Run) -> None:
    async def main() -> None:
        completion = Completion()
        NativeJob(completion).finish(-errno.ECONNREFUSED)
        with pytest.raises(ConnectionRefusedError, match="native code failed"):
            await completion

    run(main)


def test_many_completions_share_one_descriptor(run: Run) -> None:
    async def main() -> list[int]:
        completions = [Completion() for _ in range(200)]
        jobs = [NativeJob(completion) for completion in completions]
        thread = threading.Thread(
            target=lambda: [job.finish(number) for number, job in enumerate(jobs)]
        )
        thread.start()
        results = [await completion for completion in completions]
        thread.join()
        queues = {id(completion._port) for completion in completions}
        assert len(queues) == 1
        assert not completions[0]._port._cells
        return results

    assert run(main) == list(range(200))


def test_cancelled_wait_in_asyncio_leaves_no_waiter() -> None:
    async def main() -> None:
        completion = Completion()
        job = NativeJob(completion)
        waiting = asyncio.ensure_future(completion._wait_in_task())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not completion._outcome.event._waiters  # type: ignore[attr-defined] # asyncio.Event
        job.finish(7)
        assert await completion == 7

    asyncio.run(main())


def test_cancelled_wait_in_trio_leaves_no_waiter(trio: ModuleType) -> None:
    async def main() -> None:
        completion = Completion()
        job = NativeJob(completion)
        with trio.move_on_after(0) as scope:
            await completion
        assert scope.cancelled_caught
        statistics = completion._outcome.event.statistics()  # type: ignore[attr-defined] # trio.Event
        assert statistics.tasks_waiting == 0
        job.finish(7)
        assert await completion == 7

    trio.run(main)


def test_place_of_a_dropped_completion_stays_valid(run: Run) -> None:
    async def main() -> None:
        dropped, last = Completion(), Completion()
        port, alive = last._port, weakref.ref(dropped)
        jobs = [NativeJob(dropped), NativeJob(last)]
        del dropped
        gc.collect()
        assert alive() is None
        assert len(port._cells) == 2  # a thread may still write there
        for number, job in enumerate(jobs):
            job.finish(number)
        assert await last == 1
        assert not port._cells

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
        assert not completion._port._cells
        with pytest.raises(OSError, match="native code failed") as caught:
            await completion
        assert caught.value.errno == errno.ECANCELED

    run(main)


def test_new_run_of_a_loop_gets_a_new_port(run: Run) -> None:
    async def main() -> completion.Port:
        completion = Completion()
        NativeJob(completion).finish(0)
        await completion
        return completion._port

    first, second = run(main), run(main)
    assert first is not second
    for port in (first, second):
        assert isinstance(port, completion.Port)
        assert not port.is_mounted


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
    def main() -> int:
        completion = Completion()
        with pytest.raises(RuntimeError, match=r"call its wait\(\)"):
            completion.__await__().send(None)
        with pytest.raises(TimeoutError, match="not done yet"):
            completion.wait(0.001)
        thread = finish_in_thread(completion, 42)
        result = completion.wait(SOON)
        thread.join()
        return result + completion.wait()

    assert gevent.spawn(main).get(timeout=SOON) == 84


def test_killed_greenlet_leaves_no_waiter(gevent: ModuleType) -> None:
    def main() -> int:
        completion = Completion()
        job = NativeJob(completion)
        waiting = gevent.spawn(completion.wait)
        gevent.sleep(0)
        waiting.kill()
        assert completion._outcome.event.linkcount() == 0  # type: ignore[attr-defined] # gevent's
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
