"""`fdmux.SelectorEventLoop`, on its own selector and on one of the standard library."""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING

import fdmux
from fdmux.testing.host import Host

if TYPE_CHECKING:
    from fdmux.testing.host import Callback


class OurLoop(Host):
    """`fdmux.SelectorEventLoop` on a `fdmux.Selector`."""

    name = "SelectorEventLoop"

    def __init__(self) -> None:
        self.loop = self.make()

    def make(self) -> fdmux.SelectorEventLoop:
        return fdmux.SelectorEventLoop()

    def run(self, main: Callback) -> None:
        self.loop.call_soon_threadsafe(main)
        self.loop.run(None)

    def stop(self) -> None:
        self.loop.stop()

    def call_later(self, delay: float, callback: Callback) -> None:
        self.loop.call_later(delay, callback)

    def close(self) -> None:
        self.loop.close()

    @classmethod
    def version(cls) -> str:
        return fdmux.__version__


class OurLoopElsewhere(OurLoop):
    """`fdmux.SelectorEventLoop` on a selector of the standard library."""

    name = "SelectorEventLoop on selectors"

    def make(self) -> fdmux.SelectorEventLoop:
        return fdmux.SelectorEventLoop(selectors.DefaultSelector())


HOSTS = (OurLoop, OurLoopElsewhere)
