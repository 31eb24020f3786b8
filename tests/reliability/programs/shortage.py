"""A program: an echo server that runs out of descriptors, and reports how it copes.

    python shortage.py

Prints its port. Then, for each line on standard input, it does what it says and
answers: ``spare N`` leaves N descriptors to be opened, ``facts`` answers with facts as
JSON. Ends with standard input. Its one rule: a timer ticks all the while, and how late
it was is one of the facts. Needs nothing but fdmux.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import sys
import threading
import time

from fdmux import EchoServer, SelectorEventLoop
from fdmux._ffi import lib

TICK = 0.05


class Records(logging.Handler):
    """Counts what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        del record
        self.count += 1


class Service:
    """The server, its loop, and a timer of the loop."""

    def __init__(self, loop: SelectorEventLoop, records: Records) -> None:
        self._loop = loop
        self._records = records
        self._latest = 0.0
        self._due = time.monotonic()
        self.server = EchoServer(port=0, loop=loop)
        self.server.start()
        self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        self._latest = max(self._latest, now - self._due)
        self._due = now + TICK
        self._loop.call_later(TICK, self._tick)

    def facts(self) -> dict[str, float]:
        latest, self._latest = self._latest, 0.0
        return {
            **vars(self.server.stats),
            "latest": latest,
            "records": self._records.count,
            "iterations": self._loop.native.stats().iteration_count,
            "cpu": time.process_time(),
            "now": time.monotonic(),
        }

    def answer(self, words: list[str]) -> None:
        if words[0] == "spare":
            spare(int(words[1]))
        print(json.dumps(self.facts()), flush=True)  # noqa: T201 - the answer


def spare(count: int) -> None:
    """Leave ``count`` descriptors to be opened."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + count, hard))


def keep_timer_closed() -> None:
    """Make timerfd_create(2) fail in a test build, so that the loop uses timeouts.

    Otherwise the loop opens a timer at some moment, and then one connection fewer fits.
    """
    if hasattr(lib, "fdmux_testing_fail"):
        lib.fdmux_testing_fail(lib.FDMUX_CALL_TIMERFD, 1, errno.ENFILE, 1)


def main() -> None:
    keep_timer_closed()
    records = Records()
    logging.getLogger("fdmux").addHandler(records)
    with SelectorEventLoop() as loop:
        service = Service(loop, records)
        print(service.server.address[1], flush=True)  # noqa: T201 - the answer

        def read() -> None:
            for line in sys.stdin:
                loop.call_soon_threadsafe(service.answer, line.split())
            loop.call_soon_threadsafe(loop.stop)

        threading.Thread(target=read, daemon=True).start()
        loop.run(None)
        service.server.stop()


if __name__ == "__main__":
    main()
