"""anyio, on both of its backends."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fdmux.testing.host import Host
from fdmux.testing.known.trio import Trio

if TYPE_CHECKING:
    from fdmux.testing.host import Callback


class AnyioOnAsyncio(Host):
    """A task group of anyio on asyncio."""

    name = "anyio (asyncio)"
    module = package = "anyio"
    backend = "asyncio"

    def __init__(self) -> None:
        self.anyio = import_module("anyio")

    def run(self, main: Callback) -> None:
        self.anyio.run(self._run, main, backend=self.backend)

    async def _run(self, main: Callback) -> None:
        async with self.anyio.create_task_group() as self.group:
            main()
            await self.anyio.sleep_forever()

    async def _call_later(self, delay: float, callback: Callback) -> None:
        await self.anyio.sleep(delay)
        callback()

    def stop(self) -> None:
        self.group.cancel_scope.cancel()

    def call_later(self, delay: float, callback: Callback) -> None:
        self.group.start_soon(self._call_later, delay, callback)

    def target(self) -> object:
        return self.group


class AnyioOnTrio(AnyioOnAsyncio):
    """A task group of anyio on trio."""

    name = "anyio (trio)"
    backend = "trio"

    @classmethod
    def missing(cls) -> str:
        return super().missing() or Trio.missing()


HOSTS = (AnyioOnAsyncio, AnyioOnTrio)
