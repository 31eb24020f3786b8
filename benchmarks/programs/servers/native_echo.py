"""``examples/native-echo`` as it stands, hosted in a ``SelectorEventLoop``.

Echo is C's; Python only keeps a timer of 10 ms in the same loop. For each line on
standard input the server prints by how many microseconds each tick of that timer was
late since the line before.

    python -m benchmarks.programs.servers.native_echo PATH_OF_THE_EXTENSION
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol, cast

from benchmarks.availability import load_fdmux
from benchmarks.extensions import load_module
from benchmarks.programs.servers.announce import announce

if TYPE_CHECKING:
    from collections.abc import Callable

TICK_SECONDS = 0.01


class _Loop(Protocol):
    def time(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], object]) -> object: ...
    def register_read(self, file: int, callback: Callable[[int], object]) -> None: ...
    def run(self, timeout: float | None) -> None: ...
    def stop(self) -> None: ...


class _Server(Protocol):
    def port(self) -> int: ...


class Clock:
    """Python's own timer, as a program beside the native service would have it."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._late: list[float] = []
        self._due = loop.time() + TICK_SECONDS
        loop.call_at(self._due, self._tick)

    def report(self, fd: int) -> None:
        """Answer a line of the runner's; end with it."""
        if not os.read(fd, 4096):
            self._loop.stop()
            return
        late, self._late = self._late, []
        print(*(f"{seconds * 1e6:.1f}" for seconds in late), flush=True)

    def _tick(self) -> None:
        now = self._loop.time()
        self._late.append(now - self._due)
        # A tick that was missed altogether is one late tick, not many.
        self._due = max(self._due + TICK_SECONDS, now)
        self._loop.call_at(self._due, self._tick)


def main() -> None:
    loop = cast("Callable[[], _Loop]", load_fdmux("SelectorEventLoop"))()
    server = cast("_Server", load_module("native_echo", sys.argv[1]).serve(loop))
    loop.register_read(sys.stdin.fileno(), Clock(loop).report)
    announce(server.port())
    loop.run(timeout=None)


if __name__ == "__main__":
    main()
