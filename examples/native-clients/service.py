"""The service: it looks up numbers for those who ask over TCP, a line each.

The line ``17`` is answered with ``17 10.0.0.17 page-17 owner-17``: from DNS, from Redis
if that has the page or else over HTTP, and from PostgreSQL. The sockets of those who
ask are Python's; the four servers are asked by C libraries in the same loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Self

import native_clients

import fdmux
from fdmux.aio import Completion

if TYPE_CHECKING:
    from figures import Figures

PAGE_MILLISECONDS = 500  # so long Redis keeps a page
NUMBER_COUNT = 10_000
END_SECONDS = 5.0


class Client:
    """A client in C, whose answers are awaited."""

    def __init__(self, kind: str, address: str, figures: Figures) -> None:
        self._native = native_clients.Client(kind, address, fdmux.current())
        self._figure = figures.of(kind)

    async def ask(self, question: str) -> str | None:
        """Return the answer, None if there is none.

        Raises:
            ConnectionError: What the library said.
        """
        begun = time.perf_counter()
        completion = Completion()
        try:
            self._native.ask(question, completion)
            answer: str | None = await completion
        except OSError:
            self._figure.failed += 1
            raise
        self._figure.answered(time.perf_counter() - begun)
        return answer

    def close(self) -> None:
        """Close the connection; what was asked fails."""
        self._native.close()


class Service:
    """The server for lines. Use it in a running loop, as an async context."""

    def __init__(self, addresses: dict[str, str], figures: Figures) -> None:
        self._clients = {
            kind: Client(kind, address, figures) for kind, address in addresses.items()
        }
        self._figure = figures.of("lines")
        self._serving: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        ask = self._clients["postgresql"].ask
        await ask("CREATE TABLE owners (number int PRIMARY KEY, name text)")
        await ask(
            "INSERT INTO owners SELECT n, 'owner-' || n"  # noqa: S608 - a constant
            f" FROM generate_series(0, {NUMBER_COUNT - 1}) AS n"
        )
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """End when those who asked have gone."""
        self._server.close()
        if self._serving:
            await asyncio.wait(self._serving, timeout=END_SECONDS)
        await self._server.wait_closed()
        for client in self._clients.values():
            client.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is a coroutine
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            while line := await reader.readline():
                begun = time.perf_counter()
                writer.write(await self._answer(line.decode().strip()))
                await writer.drain()
                self._figure.answered(time.perf_counter() - begun)

    async def _answer(self, word: str) -> bytes:
        if not word.isdigit() or int(word) >= NUMBER_COUNT:
            return f"{word!r} is no number below {NUMBER_COUNT}\n".encode()
        number = int(word)
        try:
            address, page, owner = await asyncio.gather(
                self._clients["dns"].ask(f"n{number}.test"),
                self._page(number),
                self._clients["postgresql"].ask(
                    f"SELECT name FROM owners WHERE number = {number}"  # noqa: S608 - an int
                ),
            )
        except OSError as error:
            self._figure.failed += 1
            return f"{number} failed: {error}\n".encode()
        return f"{number} {address} {page} {owner}\n".encode()

    async def _page(self, number: int) -> str | None:
        """Return the page of a number, from Redis if that has it."""
        redis = self._clients["redis"]
        known = await redis.ask(f"GET page:{number}")
        if known is not None:
            return known
        page = f"page-{await self._clients['http'].ask(f'/n/{number}')}"
        await redis.ask(f"SET page:{number} {page} PX {PAGE_MILLISECONDS}")
        return page
