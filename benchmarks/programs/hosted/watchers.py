"""What many idle watchers cost: memory of the process, and time to add and remove them.

    python -m benchmarks.programs.hosted.watchers EXTENSION HOST WAY COUNT

WAY is ``native`` or ``reader``, as in events.py. Prints for each line the bytes that
the resident set has grown by, CPU nanoseconds to add, and to remove, all per watcher.
One turn of the loop belongs to either time: uvloop tells the kernel only then.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks.native_loop import reference
from benchmarks.programs.hosted.extension import check, load_extension
from benchmarks.programs.hosted.hosts import mount, run
from benchmarks.ready_sockets import allow_descriptors

if TYPE_CHECKING:
    from benchmarks.programs.hosted.extension import Extension

SPARE_DESCRIPTORS = 64


class Watchers(Protocol):
    """One way to watch all descriptors."""

    def add(self) -> None: ...
    def remove(self) -> None: ...


class Native:
    """Watchers of fdmux, added by native code."""

    def __init__(self, extension: Extension, fds: list[int]) -> None:
        self._library = extension.lib
        self._loop = reference(mount())
        self._fds = extension.ffi.new("int[]", fds)
        self._tokens = extension.ffi.new("uint64_t[]", len(fds))

    def add(self) -> None:
        api, loop, fds = self._loop.api, self._loop.loop, self._fds
        watch = self._library.hosted_watch
        check(watch(api, loop, fds, len(fds), self._tokens))

    def remove(self) -> None:
        api, loop, tokens = self._loop.api, self._loop.loop, self._tokens
        check(self._library.hosted_unwatch(api, loop, tokens, len(tokens)))


class Readers:
    """``add_reader``, and a Python callback that calls C."""

    def __init__(self, extension: Extension, fds: list[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._fds = fds
        self._handle = extension.lib.hosted_handle

    def add(self) -> None:
        for fd in self._fds:
            self._loop.add_reader(fd, self._on_ready, fd)

    def remove(self) -> None:
        for fd in self._fds:
            self._loop.remove_reader(fd)

    def _on_ready(self, fd: int) -> None:
        self._handle(fd)


WAYS: dict[str, type[Native | Readers]] = {"native": Native, "reader": Readers}


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def measure(watchers: Watchers, count: int) -> tuple[float, float, float]:
    resident = resident_bytes()
    start = time.process_time_ns()
    watchers.add()
    await asyncio.sleep(0)
    added = time.process_time_ns()
    grown = resident_bytes() - resident
    between = time.process_time_ns()
    watchers.remove()
    await asyncio.sleep(0)
    removed = time.process_time_ns()
    return grown / count, (added - start) / count, (removed - between) / count


def main() -> None:
    path, host, way, count = sys.argv[1:]
    extension = load_extension(path)
    allow_descriptors(int(count) + SPARE_DESCRIPTORS)
    fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(int(count))]

    async def answer_lines() -> None:
        watchers = WAYS[way](extension, fds)
        print("ready", flush=True)
        for _ in sys.stdin:
            print(*await measure(watchers, len(fds)), flush=True)

    run(host, answer_lines)


if __name__ == "__main__":
    main()
