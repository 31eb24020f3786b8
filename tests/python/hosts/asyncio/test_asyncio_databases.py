"""Clients of databases, unchanged on our loop: asyncpg and redis-py, real servers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.python.hosts.asyncio import program_servers

from fdmux.hosts.asyncio import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.python.hosts.asyncio.program_servers import PostgreSQL

SOON = 20.0
BIG = 300_000
CLIENTS = 5

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    pytest.importorskip("asyncpg", reason="needs asyncpg")
    with program_servers.postgresql() as server:
        yield server


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    pytest.importorskip("redis.asyncio", reason="needs redis-py")
    with program_servers.redis() as port:
        yield port


@pytest.mark.parametrize("way", ["unix", "tcp", "tls"])
def test_asyncpg_asks_postgresql(postgresql: PostgreSQL, way: str) -> None:
    asyncpg = pytest.importorskip("asyncpg")
    ways: dict[str, dict[str, object]] = {
        "unix": {"host": str(postgresql.folder)},
        "tcp": {"host": "127.0.0.1", "ssl": False},
        "tls": {"host": "localhost", "ssl": postgresql.certificate.client_context()},
    }

    async def main() -> None:
        connection = await asyncpg.connect(
            **ways[way], port=postgresql.port, user="postgres", database="postgres"
        )
        has_tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert await connection.fetchval(has_tls) is (way == "tls")
        assert await connection.fetchval("SELECT repeat('x', $1)", BIG) == "x" * BIG
        rows = await connection.fetch("SELECT generate_series(1, 1000) AS number")
        assert [row["number"] for row in rows] == list(range(1, 1001))
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await connection.fetchval("SELECT FROM WHERE")
        with pytest.raises(
            asyncio.TimeoutError
        ):  # cancels over a connection of its own
            await connection.fetchval("SELECT pg_sleep(60)", timeout=0.05)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()

    run(asyncio.wait_for(main(), SOON))


def test_asyncpg_has_a_pool_and_notifications(postgresql: PostgreSQL) -> None:
    asyncpg = pytest.importorskip("asyncpg")

    async def main() -> None:
        heard: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def hear(*message: object) -> None:
            heard.set_result(message[-1])

        pool = await asyncpg.create_pool(
            host=str(postgresql.folder),
            port=postgresql.port,
            user="postgres",
            database="postgres",
            min_size=2,
            max_size=CLIENTS,
        )
        asked = [pool.fetchval("SELECT $1::int", number) for number in range(50)]
        assert await asyncio.gather(*asked) == list(range(50))
        async with pool.acquire() as connection:
            await connection.add_listener("channel", hear)
            await pool.execute("NOTIFY channel, 'hello'")
            assert await heard == "hello"
            await connection.remove_listener("channel", hear)
        await pool.close()

    run(asyncio.wait_for(main(), SOON))


def test_redis_stores_pipelines_and_publishes(redis_port: int) -> None:
    redis = pytest.importorskip("redis.asyncio")

    async def main() -> None:
        client = redis.Redis(host="127.0.0.1", port=redis_port)
        assert await client.set("big", b"x" * BIG)
        assert await client.get("big") == b"x" * BIG
        added = [client.incrby("sum", number) for number in range(50)]
        await asyncio.gather(*added)
        assert await client.get("sum") == str(sum(range(50))).encode()
        async with client.pipeline() as pipeline:
            for number in range(100):
                pipeline.rpush("list", number)
            assert await pipeline.execute() == list(range(1, 101))
        async with client.pubsub() as heard:
            await heard.subscribe("channel")
            assert (await heard.get_message(timeout=SOON))["type"] == "subscribe"
            await client.publish("channel", b"hello")
            assert (await heard.get_message(timeout=SOON))["data"] == b"hello"
        await client.aclose()

    run(asyncio.wait_for(main(), SOON))
