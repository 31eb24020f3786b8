"""Which `SelectorEventLoop` runs in this thread; its `run` says so."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fdmux.loop.event_loop import SelectorEventLoop


class Running(threading.local):
    """The loop whose callback runs in this thread, or None."""

    loop: SelectorEventLoop | None = None


running = Running()
