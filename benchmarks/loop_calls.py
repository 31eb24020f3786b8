"""Operations of asyncio's loop, each repeated as often as it is told.

An operation is a function of a loop and a count. It runs the loop until all of it is
done, and raises `Failed` if a call was lost. Where nothing needs Python code of its
own, the callback is `next` of a counter in C, so that what is measured is the loop.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable

from benchmarks.processes import Failed

Operation = Callable[[asyncio.AbstractEventLoop, int], None]

AT_A_TIME = 100
FAR_SECONDS = 10.0


class _Calls:
    """A callback in C that counts how often it was called."""

    def __init__(self) -> None:
        self._counter = itertools.count()
        self.note = self._counter.__next__

    def insist_on(self, count: int) -> None:
        found = next(self._counter)
        if found != count:
            raise Failed(f"{found} calls were made instead of {count}")


def chain(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """Each callback schedules the next, so every iteration has one."""
    left = count

    def step() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(step)
        else:
            loop.stop()

    loop.call_soon(step)
    loop.run_forever()


def batches(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """A callback schedules 100 and itself; the next iteration runs them all."""
    calls = _Calls()
    turns = count // AT_A_TIME

    def fill() -> None:
        nonlocal turns
        if not turns:
            loop.stop()
            return
        turns -= 1
        for _ in range(AT_A_TIME):
            loop.call_soon(calls.note)
        loop.call_soon(fill)

    loop.call_soon(fill)
    loop.run_forever()
    calls.insist_on(count)


def timers(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """Arm and cancel, 100 in an iteration, since some loops tidy up only there."""
    calls = _Calls()

    async def main() -> None:
        for _ in range(count // AT_A_TIME):
            for _ in range(AT_A_TIME):
                loop.call_later(FAR_SECONDS, calls.note).cancel()
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    calls.insist_on(0)


def sleeps(loop: asyncio.AbstractEventLoop, count: int) -> None:
    async def main() -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    loop.run_until_complete(main())


def tasks(loop: asyncio.AbstractEventLoop, count: int) -> None:
    calls = _Calls()

    async def once() -> None:
        calls.note()

    async def main() -> None:
        for _ in range(count):
            await loop.create_task(once())

    loop.run_until_complete(main())
    calls.insist_on(count)


def futures(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """A callback of the loop sets the future that a task awaits."""

    async def main() -> None:
        for _ in range(count):
            future: asyncio.Future[None] = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future

    loop.run_until_complete(main())


def threadsafe(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """Another thread calls as fast as it can while the loop runs."""
    calls = _Calls()

    def post() -> None:
        for _ in range(count):
            loop.call_soon_threadsafe(calls.note)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=post)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    calls.insist_on(count)


OPERATIONS: dict[str, Operation] = {
    "call_soon, one an iteration": chain,
    f"call_soon, {AT_A_TIME} an iteration": batches,
    "call_later and cancel": timers,
    "await asyncio.sleep(0)": sleeps,
    "create a task and await it": tasks,
    "call_soon sets a future that is awaited": futures,
    "call_soon_threadsafe from another thread": threadsafe,
}
