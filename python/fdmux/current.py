"""current(): the native loop of whatever loop runs here.

Its one rule: it never makes a loop of Python's, so that native code cannot register in
one that nobody runs.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fdmux.hosts import mount

if TYPE_CHECKING:
    from typing import Protocol

    from fdmux._native import NativeLoop

    class Carrier(Protocol):
        """Something with a native loop: `Selector`, `SelectorEventLoop`."""

        @property
        def native(self) -> NativeLoop:
            """The core loop."""


class Running(threading.local):
    """The loop of ours that runs in this thread; its `run` sets it."""

    loop: Carrier | None = None


running = Running()


def current() -> NativeLoop:
    """Return the `NativeLoop` of the loop that runs in this thread.

    That is the `SelectorEventLoop` whose callback is running, or the native loop that
    serves the running asyncio, uvloop, tornado, trio or gevent loop: the first call
    mounts it, as `mount` does. It lives as long as that loop.

    Raises:
        RuntimeError: No loop runs here, or one that cannot watch descriptors.
    """
    loop = running.loop
    return loop.native if loop is not None else mount().native
