"""Clients that others have written, on the loop that is named, against a real server.

    python -m benchmarks.programs.hosted.asyncio_clients \\
        LOOP asyncpg|redis PORT CLIENTS COUNT

Each client of CLIENTS has a connection and asks again once it has its answer: asyncpg
``SELECT 1``, redis-py ``GET``. Every answer is checked. Prints for each line the CPU
microseconds of this process per operation, and the p99 of an operation's latency in
microseconds, of COUNT operations in all.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Awaitable, Callable

from benchmarks.programs.hosted.hosts import run

Ask = Callable[[], Awaitable[object]]
Connect = Callable[[int], Awaitable[Ask]]

HOST = "127.0.0.1"
WARMUP = 20
EXPECTED: dict[str, object] = {"asyncpg": 1, "redis": b"x" * 100}


async def connect_asyncpg(port: int) -> Ask:
    asyncpg = importlib.import_module("asyncpg")
    connection = await asyncpg.connect(
        host=HOST, port=port, user="postgres", database="postgres", ssl=False
    )
    return lambda: connection.fetchval("SELECT 1")


async def connect_redis(port: int) -> Ask:
    redis = importlib.import_module("redis.asyncio")
    client = redis.Redis(host=HOST, port=port, single_connection_client=True)
    await client.set("key", EXPECTED["redis"])
    return lambda: client.get("key")


CLIENTS: dict[str, Connect] = {"asyncpg": connect_asyncpg, "redis": connect_redis}


async def ask_all(asks: list[Ask], each: int, expected: object) -> list[int]:
    """Let all clients ask ``each`` times; return the latency of every answer."""
    latencies: list[int] = []

    async def repeat(ask: Ask) -> None:
        for _ in range(each):
            start = time.perf_counter_ns()
            answer = await ask()
            latencies.append(time.perf_counter_ns() - start)
            if answer != expected:
                raise ValueError(f"the answer was {answer!r}")

    await asyncio.gather(*(repeat(ask) for ask in asks))
    return latencies


async def answer_lines(name: str, port: int, clients: int, count: int) -> None:
    """Measure for each line of standard input, until its end."""
    asks = [await CLIENTS[name](port) for _ in range(clients)]
    each = max(1, count // clients)
    await ask_all(asks, WARMUP, EXPECTED[name])
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.process_time_ns()
        latencies = sorted(await ask_all(asks, each, EXPECTED[name]))
        used = time.process_time_ns() - start
        p99 = latencies[len(latencies) * 99 // 100]
        print(used / len(latencies) / 1000, p99 / 1000, flush=True)


def main() -> None:
    loop, name, port, clients, count = sys.argv[1:]
    run(loop, lambda: answer_lines(name, int(port), int(clients), int(count)))


if __name__ == "__main__":
    main()
