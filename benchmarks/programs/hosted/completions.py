"""CPU time of awaiting one native result in asyncio; see native/completions.c.

    python -m benchmarks.programs.hosted.completions EXTENSION WAY LOOP TASKS RESULTS

WAY is ``future``: futures of asyncio that a callback of the loop resolves; ``queue`` or
``function``: completions. LOOP is ``asyncio``, ``uvloop`` or ``fdmux``. TASKS tasks
await RESULTS results each; whenever all of them wait, their results are delivered.
Prints for each line the nanoseconds of the thread's CPU time per result.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from typing import TYPE_CHECKING, Protocol, cast

from benchmarks.extensions import load_module
from benchmarks.processes import Failed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

NAME = "fdmux_benchmarks_completions"
VALUE = 5
FACTORIES = {
    "asyncio": "asyncio:SelectorEventLoop",
    "uvloop": "uvloop:new_event_loop",
    "fdmux": "fdmux.hosts.asyncio:EventLoop",
}


class Extension(Protocol):
    """The functions of native/completions.c."""

    def finish_through_queue(self, completions: list[object]) -> None: ...
    def finish_in_function(self, completions: list[object]) -> None: ...


def resolve(futures: list[object]) -> None:
    for future in futures:
        cast("asyncio.Future[int]", future).set_result(VALUE)


class Work:
    """Tasks that await, and what they wait for."""

    def __init__(
        self,
        make: Callable[[], Awaitable[object]],
        finish: Callable[[list[object]], None],
        tasks: int,
    ) -> None:
        self.make, self.finish, self.tasks = make, finish, tasks
        self.waiting: list[object] = []

    async def await_all(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            result = self.make()
            self.waiting.append(result)
            if len(self.waiting) == self.tasks:
                loop.call_soon(self.deliver)
            if await result != VALUE:
                raise Failed("a task got another result")

    def deliver(self) -> None:
        waiting, self.waiting = self.waiting, []
        self.finish(waiting)

    async def run(self, count: int) -> float:
        """Return the CPU nanoseconds per result."""
        before = time.thread_time_ns()
        await asyncio.gather(*(self.await_all(count) for _ in range(self.tasks)))
        return (time.thread_time_ns() - before) / (self.tasks * count)


def work_of(way: str, path: str, tasks: int, loop: asyncio.AbstractEventLoop) -> Work:
    if way == "future":
        return Work(loop.create_future, resolve, tasks)
    completion = importlib.import_module("fdmux.aio").Completion
    extension = cast("Extension", load_module(NAME, path))
    ways = {
        "queue": extension.finish_through_queue,
        "function": extension.finish_in_function,
    }
    return Work(completion, ways[way], tasks)


def main() -> None:
    path, way, loop_name, tasks, results = sys.argv[1:]
    module, _, factory = FACTORIES[loop_name].partition(":")
    loop = getattr(importlib.import_module(module), factory)()
    asyncio.set_event_loop(loop)
    work = work_of(way, path, int(tasks), loop)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(loop.run_until_complete(work.run(int(results))), flush=True)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


if __name__ == "__main__":
    main()
