"""The same GETs by the clients that asyncio programs use, on asyncio's own loop.

    python -m benchmarks.programs.hosted.asyncio_gets WAY PORT COUNT

WAY is ``redis``: 100 tasks of redis-py, each with a connection; ``redis-pipeline``:
one, in pipelines of 100; ``aiohttp``: 100 tasks that share a session. Every answer is
compared. Prints for each line COUNT and the CPU nanoseconds of this process.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from benchmarks.processes import Failed

HOST = "127.0.0.1"
IN_FLIGHT = 100
KEY_COUNT = 1000

Ask = Callable[[int], Awaitable[None]]  # IN_FLIGHT requests after the given number
Open = Callable[[int, AsyncExitStack], Awaitable[Ask]]


def key_of(number: int) -> str:
    return f"key:{number % KEY_COUNT}"


def value_of(number: int) -> bytes:
    return b"the value of key %d" % (number % KEY_COUNT)


def check(found: object, expected: object) -> None:
    if found != expected:
        raise Failed(f"the answer was {found!r}, not {expected!r}")


async def in_tasks(ask: Callable[[int], Awaitable[None]], count: int) -> None:
    """Ask for ``count`` numbers in IN_FLIGHT tasks."""

    async def repeat(first: int) -> None:
        for number in range(first, count, IN_FLIGHT):
            await ask(number)

    await asyncio.gather(*(repeat(first) for first in range(IN_FLIGHT)))


async def open_redis(port: int, stack: AsyncExitStack) -> Ask:
    redis = importlib.import_module("redis.asyncio")
    client = await stack.enter_async_context(redis.Redis(host=HOST, port=port))
    await client.mset({key_of(n): value_of(n) for n in range(KEY_COUNT)})

    async def ask(number: int) -> None:
        check(await client.get(key_of(number)), value_of(number))

    return lambda count: in_tasks(ask, count)


async def open_pipeline(port: int, stack: AsyncExitStack) -> Ask:
    redis = importlib.import_module("redis.asyncio")
    client = await stack.enter_async_context(redis.Redis(host=HOST, port=port))
    await client.mset({key_of(n): value_of(n) for n in range(KEY_COUNT)})

    async def ask(count: int) -> None:
        for first in range(0, count, IN_FLIGHT):
            numbers = range(first, min(first + IN_FLIGHT, count))
            async with client.pipeline(transaction=False) as pipeline:
                for number in numbers:
                    pipeline.get(key_of(number))
                check(await pipeline.execute(), [value_of(n) for n in numbers])

    return ask


async def open_aiohttp(port: int, stack: AsyncExitStack) -> Ask:
    aiohttp = importlib.import_module("aiohttp")
    connector = aiohttp.TCPConnector(limit=0)
    session = aiohttp.ClientSession(connector=connector)
    await stack.enter_async_context(session)

    async def ask(number: int) -> None:
        async with session.get(f"http://{HOST}:{port}/n/{number}") as response:
            check(await response.read(), b"%d" % number)

    return lambda count: in_tasks(ask, count)


WAYS: dict[str, Open] = {
    "redis": open_redis,
    "redis-pipeline": open_pipeline,
    "aiohttp": open_aiohttp,
}


async def answer_lines(way: str, port: int, count: int) -> None:
    async with AsyncExitStack() as stack:
        ask = await WAYS[way](port, stack)
        await ask(IN_FLIGHT)
        print("ready", flush=True)
        for _ in sys.stdin:
            before = time.process_time_ns()
            await ask(count)
            print(count, time.process_time_ns() - before, flush=True)


def main() -> None:
    way, port, count = sys.argv[1:]
    asyncio.run(answer_lines(way, int(port), int(count)))


if __name__ == "__main__":
    main()
