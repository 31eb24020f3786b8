"""Find factors in a native thread, and get them by callbacks in this thread.

Prints what happened; exits with 1 at the first wrong result. The thread
still runs when the program ends, which does no harm.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import TYPE_CHECKING

import factors

from fdmux import NativeQueue, SelectorEventLoop

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 10_000
HARD = 99_999_989  # a prime: thousands of divisions


def check(is_so: bool, text: str) -> None:
    """Print a result that is right; with a wrong one, end the program."""
    if not is_so:
        sys.exit(f"WRONG   {text}")
    print(f"ok      {text}")


def run_until(loop: SelectorEventLoop, is_done: Callable[[], bool]) -> None:
    """Run the loop until a condition holds, 30 s at most."""
    deadline = time.monotonic() + 30
    while not is_done():
        if time.monotonic() > deadline:
            sys.exit("WRONG   nothing happened for 30 s")
        loop.run_once(timeout=0.1)


def call_in_order(loop: SelectorEventLoop, batches: list[int]) -> None:
    """Every callback runs once, in this thread, in the order of the jobs."""
    found: list[tuple[int, int]] = []
    threads = set()

    def on_factor(number: int, factor: int) -> None:
        found.append((number, factor))
        threads.add(threading.get_ident())

    before = len(batches)
    for number in range(COUNT):
        factors.submit(number + 2, on_factor)
    run_until(loop, lambda: len(found) == COUNT)
    check([number for number, _ in found] == list(range(2, COUNT + 2)), "in order")
    check(all(number % factor == 0 for number, factor in found), "and right")
    check(threads == {threading.get_ident()}, "and in this thread")
    batch_count = len(batches) - before
    check(batch_count < COUNT, f"{COUNT:,} callbacks in {batch_count:,} batches")


def raise_in_one(loop: SelectorEventLoop, errors: list[Exception]) -> None:
    """The exception of one callback goes to the error hook; the others are called."""
    found: list[int] = []

    def on_factor(number: int, _factor: int) -> None:
        if number == 50:
            raise ValueError("the callback of 50")
        found.append(number)

    for number in range(2, 100):
        factors.submit(number, on_factor)
    run_until(loop, lambda: not factors.waiting())
    check([str(error) for error in errors] == ["the callback of 50"], "one exception")
    check(len(found) == 97, "97 other callbacks")


async def find_in_asyncio(queue: NativeQueue) -> None:
    """The same queue in asyncio: a callback completes a future."""
    loop = asyncio.get_running_loop()
    loop.add_reader(queue, factors.drain, queue)
    future = loop.create_future()
    factors.submit(91, lambda _number, factor: future.set_result(factor))
    check(await asyncio.wait_for(future, 30) == 7, "asyncio awaits a factor of 91")
    loop.remove_reader(queue)


def main() -> None:
    """Run every part."""
    errors: list[Exception] = []
    batches: list[int] = []

    def drain(queue: NativeQueue) -> None:
        batches.append(factors.waiting())
        factors.drain(queue)

    queue = NativeQueue()
    factors.start(queue)
    with SelectorEventLoop(error_hook=lambda error, _: errors.append(error)) as loop:
        loop.register_read(queue, drain)
        call_in_order(loop, batches)
        raise_in_one(loop, errors)
        loop.unregister(queue)
    asyncio.run(find_in_asyncio(queue))
    for _ in range(COUNT):
        factors.submit(HARD, print)
    check(factors.waiting() == COUNT, "the thread works on, and the program ends")


main()
