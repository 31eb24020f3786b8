"""GLib, by PyGObject."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fdmux.testing.host import Host

if TYPE_CHECKING:
    from fdmux.testing.host import Callback


class Glib(Host):
    """A main context of GLib."""

    name = "GLib (PyGObject)"
    module = "gi"
    package = "PyGObject"
    ends_mount = False

    def __init__(self) -> None:
        self.glib = import_module("gi.repository.GLib")
        self.context = self.glib.MainContext.new()
        self.loop = self.glib.MainLoop.new(self.context, False)

    def run(self, main: Callback) -> None:
        self.context.push_thread_default()
        try:
            self.call_later(0, main)
            self.loop.run()
        finally:
            self.context.pop_thread_default()

    def stop(self) -> None:
        self.loop.quit()

    def call_later(self, delay: float, callback: Callback) -> None:
        source = self.glib.timeout_source_new(int(delay * 1000))

        def once(*_data: object) -> bool:
            callback()
            return False

        source.set_callback(once)
        source.attach(self.context)

    def target(self) -> object:
        return self.loop


HOSTS = (Glib,)
