"""gevent."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fdmux.testing.host import Host

if TYPE_CHECKING:
    from fdmux.testing.host import Callback


class Gevent(Host):
    """gevent's hub, in a program that patches nothing."""

    name = module = package = "gevent"
    ends_mount = False  # a hub does not report that it is destroyed

    def __init__(self) -> None:
        self.gevent = import_module("gevent")
        self.is_over = import_module("gevent.event").Event()

    def run(self, main: Callback) -> None:
        self.is_over.clear()
        self.gevent.spawn(main)
        self.is_over.wait()

    def stop(self) -> None:
        self.is_over.set()

    def call_later(self, delay: float, callback: Callback) -> None:
        self.gevent.spawn_later(delay, callback)

    def close(self) -> None:
        self.gevent.sleep(0)  # lets an interrupted hub end its callback
        self.gevent.get_hub().destroy(destroy_loop=True)


HOSTS = (Gevent,)
