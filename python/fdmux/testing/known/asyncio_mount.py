"""asyncio: its own loop, loops on our selector, and uvloop."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING

import fdmux
from fdmux.testing.host import Host

if TYPE_CHECKING:
    from fdmux.testing.host import Callback


class Asyncio(Host):
    """asyncio on its default selector."""

    name = "asyncio"

    def __init__(self) -> None:
        self.loop = self.make()
        self.loop.set_exception_handler(lambda _loop, _context: None)

    def make(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop()

    def run(self, main: Callback) -> None:
        self.loop.call_soon(main)
        self.loop.run_forever()

    def stop(self) -> None:
        self.loop.stop()

    def call_later(self, delay: float, callback: Callback) -> None:
        self.loop.call_later(delay, callback)

    def close(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class AsyncioOnOurs(Asyncio):
    """asyncio on a `fdmux.Selector`."""

    name = "asyncio on fdmux.Selector"

    def make(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(fdmux.Selector())


class AsyncioOurs(Asyncio):
    """`fdmux.hosts.asyncio.EventLoop`, which has transports of its own."""

    name = "fdmux.hosts.asyncio"
    module = "fdmux.hosts.asyncio"

    def make(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = import_module(self.module).EventLoop()
        return loop

    @classmethod
    def version(cls) -> str:
        return fdmux.__version__


class Uvloop(Asyncio):
    """uvloop."""

    name = module = package = "uvloop"

    def make(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = import_module("uvloop").new_event_loop()
        return loop


HOSTS = (Asyncio, AsyncioOnOurs, AsyncioOurs, Uvloop)
