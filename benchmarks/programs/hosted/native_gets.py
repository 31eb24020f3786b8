"""GETs of an extension in the host that is named; see native/gets_extension.h.

    python -m benchmarks.programs.hosted.native_gets EXTENSION HOST WAY PORT COUNT

HOST is one of ``fdmux.testing.HOSTS``. WAY is ``verified``, which is done in C, or
``given``: Python gets the values too, once per batch, and compares them. Prints for
each line COUNT and the CPU nanoseconds of this process.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol, cast

import fdmux
from benchmarks.extensions import load_module
from benchmarks.processes import Failed
from fdmux.testing import HOSTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux.testing import Host

NAME = "fdmux_benchmarks_gets"
VALUES = [b"the value of key %d" % number for number in range(1000)] * 2


class Extension(Protocol):
    """The functions of the extension."""

    def start(self, loop: object, port: int) -> None: ...
    def begin(self, count: int, ended: Callable[[], None]) -> None: ...
    def error(self) -> int: ...
    def give_to(self, function: Callable[[list[bytes]], None]) -> None: ...


class Client:
    """Rounds inside of one run of the host; the wait for the next line blocks it."""

    def __init__(self, extension: Extension, host: Host, count: int) -> None:
        self._extension = extension
        self._host = host
        self._count = count
        self._begun = 0
        self._received = 0
        self._is_given = False
        self.failed = ""

    def start(self, port: int, way: str) -> None:
        self._mounted = fdmux.mount(self._host.target())
        self._is_given = way == "given"
        if self._is_given:
            self._extension.give_to(self._on_values)
        self._extension.start(self._mounted, port)
        print("ready", flush=True)
        self._next_round()

    def _next_round(self) -> None:
        if not sys.stdin.readline():
            self._host.stop()
            return
        self._received = 0
        self._begun = time.process_time_ns()
        self._extension.begin(self._count, self._ended)

    def _on_values(self, values: list[bytes]) -> None:
        at = self._received % 1000
        self._received += len(values)
        if values != VALUES[at : at + len(values)]:
            self._fail("Python got another value")

    def _ended(self) -> None:
        used = time.process_time_ns() - self._begun
        error = self._extension.error()
        if error or (self._is_given and self._received != self._count):
            self._fail(f"error {error}, {self._received} values")
            return
        print(self._count, used, flush=True)
        self._next_round()

    def _fail(self, text: str) -> None:
        self.failed = text
        self._host.stop()


def main() -> None:
    path, host_name, way, port, count = sys.argv[1:]
    host = HOSTS[host_name]()
    client = Client(cast("Extension", load_module(NAME, path)), host, int(count))
    host.run(lambda: client.start(int(port), way))
    host.close()
    if client.failed:
        raise Failed(client.failed)


if __name__ == "__main__":
    main()
