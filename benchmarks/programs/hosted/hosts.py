"""The hosts by name, and what a program's coroutine needs of the one that it runs in.

A name has the loop and, after a ``+``, how native code gets into it: ``asyncio+mount``,
``selector`` (asyncio on a `fdmux.Selector`, which has a native loop anyway), ``trio``.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from typing import TYPE_CHECKING, cast

from benchmarks.availability import load_fdmux
from benchmarks.programs.servers.asyncio_protocol import LOOPS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from benchmarks.native_loop import HasNativeLoop

    Main = Callable[[], Coroutine[object, object, None]]


def run(name: str, main: Main) -> None:
    """Run a coroutine function in the loop of that name."""
    if name == "trio":
        importlib.import_module("trio").run(main)
        return
    loop = LOOPS[name]()
    try:
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def mount() -> HasNativeLoop:
    """Return what native code is given in the loop that runs here."""
    return cast("Callable[[], HasNativeLoop]", load_fdmux("mount"))()


async def sleep(seconds: float) -> None:
    """Sleep as the host does."""
    if "trio" in sys.modules:
        await sys.modules["trio"].sleep(seconds)
    else:
        await asyncio.sleep(seconds)


class Done:
    """An eventfd that native code writes to, and a coroutine waits for."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    async def wait(self) -> None:
        if "trio" in sys.modules:
            await sys.modules["trio"].lowlevel.wait_readable(self.fd)
        else:
            await self._wait_in_asyncio()
        os.eventfd_read(self.fd)

    async def _wait_in_asyncio(self) -> None:
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        loop.add_reader(self.fd, event.set)
        try:
            await event.wait()
        finally:
            loop.remove_reader(self.fd)
