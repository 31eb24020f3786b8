"""trio, with the loop mounted on the run and on a nursery."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fdmux.testing.host import Host

if TYPE_CHECKING:
    from fdmux.testing.host import Callback


class Trio(Host):
    """trio, mounted on the run: a system task dispatches."""

    name = module = package = "trio"

    def __init__(self) -> None:
        self.trio = import_module("trio")

    def run(self, main: Callback) -> None:
        self.trio.run(self._run, main)

    async def _run(self, main: Callback) -> None:
        async with self.trio.open_nursery() as self.nursery:
            main()
            await self.trio.sleep_forever()

    async def _call_later(self, delay: float, callback: Callback) -> None:
        await self.trio.sleep(delay)
        callback()

    def stop(self) -> None:
        self.nursery.cancel_scope.cancel()

    def call_later(self, delay: float, callback: Callback) -> None:
        self.nursery.start_soon(self._call_later, delay, callback)


class TrioNursery(Trio):
    """trio, mounted on a nursery: a task in it dispatches."""

    name = "trio nursery"

    def target(self) -> object:
        return self.nursery


HOSTS = (Trio, TrioNursery)
