"""current(): the native loop of whatever loop runs here.

Its one rule: it never makes a loop of its own, so that native code cannot register in
one that nobody runs.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from fdmux.selector import Selector

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

    That is the `SelectorEventLoop` whose callback is running, or the asyncio loop whose
    selector is a `fdmux.Selector`.

    Raises:
        RuntimeError: No loop runs here, or one that has no native loop.
    """
    if running.loop is not None:
        return running.loop.native
    selector = _asyncio_selector()
    if isinstance(selector, Selector):
        return selector.native
    if selector is not None:
        raise RuntimeError(
            "the running asyncio loop is not on a fdmux.Selector: run it with "
            "asyncio.SelectorEventLoop(fdmux.Selector())"
        )
    raise RuntimeError(
        "no loop with a native loop is running in this thread: call this from a "
        "callback of a fdmux.SelectorEventLoop, or pass the loop itself"
    )


def _asyncio_selector() -> object:
    """Return the selector of the running asyncio loop, or the loop if it has none."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    loop = asyncio._get_running_loop()  # noqa: SLF001 - documented for such checks
    return None if loop is None else getattr(loop, "_selector", loop)
