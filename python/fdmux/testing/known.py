"""The hosts that fdmux knows, as the kit drives them."""
# ruff: noqa: D102 - the methods are those of Host, and explained there

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING

import fdmux
from fdmux.testing.host import Host

if TYPE_CHECKING:
    from types import ModuleType

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


class Asyncio(Host):
    """asyncio on the selector it takes by itself."""

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
    """The asyncio loop of fdmux, which has its own transports."""

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


class Trio(Host):
    """trio, by its system task."""

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
    """trio, by a task in a nursery."""

    name = "trio nursery"

    def target(self) -> object:
        return self.nursery


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


class Gevent(Host):
    """gevent's hub, with nothing patched."""

    name = module = package = "gevent"
    ends_mount = False  # a hub tells nobody that it is destroyed

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
        self.gevent.sleep(0)  # lets a hub that was interrupted end its callback
        self.gevent.get_hub().destroy(destroy_loop=True)


class Qt(Host):
    """Qt's event loop without a window."""

    name = "Qt (PySide6)"
    module = "PySide6.QtCore"
    package = "PySide6-Essentials"
    raises_interrupt = False  # PySide prints it, and goes on
    ends_mount = False

    def __init__(self) -> None:
        self.core: ModuleType = import_module(self.module)
        # There is one in a process, and it must outlive everything.
        self.app = self.core.QCoreApplication.instance()
        if self.app is None:
            type(self).the_app = self.app = self.core.QCoreApplication([])
        self.loop = self.core.QEventLoop()

    the_app: object = None

    def run(self, main: Callback) -> None:
        self.core.QTimer.singleShot(0, main)
        self.loop.exec()

    def stop(self) -> None:
        self.loop.quit()

    def call_later(self, delay: float, callback: Callback) -> None:
        self.core.QTimer.singleShot(int(delay * 1000), callback)

    def target(self) -> object:
        return self.loop


class PyQt(Qt):
    """The same by PyQt6, where an exception in a slot aborts unless there is a hook."""

    name = "Qt (PyQt6)"
    module = "PyQt6.QtCore"
    package = "PyQt6"

    def run(self, main: Callback) -> None:
        before, sys.excepthook = sys.excepthook, lambda *_error: None
        try:
            super().run(main)
        finally:
            sys.excepthook = before


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


class PlainSelector(Host):
    """A loop of twenty lines on `selectors`."""

    name = "selectors.DefaultSelector"

    def __init__(self) -> None:
        self.selector: selectors.BaseSelector = selectors.DefaultSelector()
        self.timers: list[tuple[float, int, Callback]] = []
        self.numbers = itertools.count()
        self.is_running = False

    def run(self, main: Callback) -> None:
        self.call_later(0, main)
        self.is_running = True
        while self.is_running:
            timeout = self.timers[0][0] - time.monotonic() if self.timers else None
            for key, _events in self.selector.select(timeout):
                key.data()
            for _ in range(len(self.timers)):
                if self.timers[0][0] > time.monotonic():
                    break
                heapq.heappop(self.timers)[2]()

    def stop(self) -> None:
        self.is_running = False

    def call_later(self, delay: float, callback: Callback) -> None:
        when = time.monotonic() + delay
        heapq.heappush(self.timers, (when, next(self.numbers), callback))

    def target(self) -> object:
        return self.selector

    def close(self) -> None:
        self.selector.close()


HOSTS: dict[str, type[Host]] = {
    host.name: host
    for host in (
        OurLoop,
        OurLoopElsewhere,
        Asyncio,
        AsyncioOnOurs,
        AsyncioOurs,
        Uvloop,
        Tornado,
        Trio,
        TrioNursery,
        AnyioOnAsyncio,
        AnyioOnTrio,
        Gevent,
        Qt,
        PyQt,
        Glib,
        PlainSelector,
    )
}
