"""tornado."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fdmux.testing.host import Host

if TYPE_CHECKING:
    from fdmux.testing.host import Callback


class Tornado(Host):
    """tornado's IOLoop."""

    name = package = "tornado"
    module = "tornado.ioloop"

    def __init__(self) -> None:
        self.loop = import_module(self.module).IOLoop(make_current=False)

    def run(self, main: Callback) -> None:
        self.loop.add_callback(main)
        self.loop.start()

    def stop(self) -> None:
        self.loop.stop()

    def call_later(self, delay: float, callback: Callback) -> None:
        self.loop.call_later(delay, callback)

    def target(self) -> object:
        return self.loop

    def close(self) -> None:
        self.loop.close()


HOSTS = (Tornado,)
