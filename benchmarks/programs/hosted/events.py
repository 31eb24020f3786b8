"""CPU time of a ready descriptor whose handler is in C, in a loop of Python's.

    python -m benchmarks.programs.hosted.events EXTENSION HOST WAY READY EVENTS

WAY is ``native`` (watchers of fdmux), ``reader`` (``add_reader``, and a Python callback
that calls the same handler through cffi) or ``epoll`` (no Python at all). Prints for
each line the nanoseconds per event, of at least EVENTS.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.native_loop import reference
from benchmarks.programs.hosted.extension import check, load_extension
from benchmarks.programs.hosted.hosts import Done, mount, run
from benchmarks.ready_sockets import ready_sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from benchmarks.programs.hosted.extension import Extension, Library

    Serve = Callable[[Extension, list[int]], None]
    Wait = Callable[[], Coroutine[object, object, None]]


def watch_natively(extension: Extension, fds: list[int]) -> None:
    """Have native watchers call the handler."""
    found = reference(mount())
    tokens = extension.ffi.new("uint64_t[]", len(fds))
    array = extension.ffi.new("int[]", fds)
    watch = extension.lib.hosted_watch
    check(watch(found.api, found.loop, array, len(fds), tokens))


def add_readers(extension: Extension, fds: list[int]) -> None:
    """Have Python callbacks call the handler, one for each descriptor."""
    handle = extension.lib.hosted_handle

    def on_ready(fd: int) -> None:
        handle(fd)

    loop = asyncio.get_running_loop()
    for fd in fds:
        loop.add_reader(fd, on_ready, fd)


WAYS: dict[str, Serve] = {"native": watch_natively, "reader": add_readers}


async def answer_lines(library: Library, count: int, wait: Wait, done: Done) -> None:
    """Measure for each line of standard input, until its end."""
    print("ready", flush=True)
    for _ in sys.stdin:
        handled = library.hosted_handled()
        start = time.process_time_ns()
        library.hosted_expect(count, done.fd)
        await wait()
        cpu = time.process_time_ns() - start
        print(cpu / (library.hosted_handled() - handled), flush=True)


def main() -> None:
    path, host, way, ready, count = sys.argv[1:]
    extension = load_extension(path)
    library = extension.lib
    done = Done()
    with contextlib.ExitStack() as stack:
        sockets = stack.enter_context(ready_sockets(int(ready)))
        fds = [sock.fileno() for sock in sockets]
        array = extension.ffi.new("int[]", fds)

        async def wait_in_c() -> None:
            check(library.hosted_epoll(array, len(fds)))
            await done.wait()

        async def serve() -> None:
            if way in WAYS:
                WAYS[way](extension, fds)
            wait = done.wait if way in WAYS else wait_in_c
            await answer_lines(library, int(count), wait, done)

        run(host, serve)


if __name__ == "__main__":
    main()
