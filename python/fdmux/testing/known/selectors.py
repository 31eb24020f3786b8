"""A selector of the standard library, in a small loop."""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from typing import TYPE_CHECKING

from fdmux.testing.host import Host

if TYPE_CHECKING:
    from fdmux.testing.host import Callback


class PlainSelector(Host):
    """A loop of twenty lines on `selectors.DefaultSelector`."""

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


HOSTS = (PlainSelector,)
