"""A program: a signal arrives while a loop is busy. How late does its handler run?

    python interrupted.py BUSY_LIBRARY LOAD WAY

LOAD names a function of this file. WAY is "main"; "thread": the loop runs in another
thread, and the main one, in which signal handlers run, waits for it; "asyncio": the
handler is one of ``add_signal_handler``. Prints the lateness in seconds of CPU time of
this process, which other programs of the machine do not lengthen. Its one rule: no
callback takes more than a millisecond.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.compiled import NativeLoad

import fdmux
from fdmux.hosts.asyncio import EventLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[], object]
    Take = Callable[[fdmux.Stream, bytes], bytes]

AFTER = 0.03
BURST = 40_000
CONNECTIONS = 400
WATCHERS = 10_000
MESSAGE = bytes(16 * 1024)
NUMBERS = [number * 7919 % 1009 for number in range(300)]  # 10 us to sort
BUSY = sys.argv[1]
kept: list[object] = []


def native_burst(kind: str) -> Run:
    """Functions in C that are due at once."""
    loop = fdmux.SelectorEventLoop()
    busy = NativeLoad(ctypes.CDLL(BUSY), loop)
    assert busy.call(kind, ctypes.c_int64(BURST)) == 0
    return functools.partial(loop.run, None)


def native_posts() -> Run:
    return native_burst("busy_posts")


def native_timers() -> Run:
    return native_burst("busy_timers")


def native_watchers() -> Run:
    """Descriptors that stay readable, with functions in C; and a stream beside them."""
    loop = fdmux.SelectorEventLoop()
    busy = NativeLoad(ctypes.CDLL(BUSY), loop)
    ours, theirs = socket.socketpair()
    theirs.send(b"x")
    for _ in range(WATCHERS):
        assert busy.call("busy_watch", os.dup(ours.fileno())) == 0
    fdmux.add_stream(loop, theirs, fdmux.StreamHandler())
    return functools.partial(loop.run, None)


def python_calls() -> Run:
    """SelectorEventLoop: a call that always posts itself, and timers that are due."""
    loop = fdmux.SelectorEventLoop()

    def again() -> None:
        loop.call_soon_threadsafe(again)

    again()
    for _ in range(BURST):
        loop.call_later(0, sorted, NUMBERS)
        loop.call_soon_threadsafe(sorted, NUMBERS)
    return functools.partial(loop.run, None)


class Echo(fdmux.StreamHandler):
    @staticmethod
    def on_data(_stream: fdmux.Stream, data: bytes) -> bytes:
        return data


class EchoInC(fdmux.StreamHandler):
    """Returns the data without a line of bytecode."""

    on_data = cast("Take", {}.get)  # type: ignore[assignment] # get(stream, data): data


def serve(handler: fdmux.StreamHandler) -> Run:
    """Clients and a server in one loop, all of which answer what they get."""
    loop = fdmux.SelectorEventLoop()
    server = fdmux.StreamServer("127.0.0.1", 0, handler, loop=loop)
    server.start()
    for _ in range(CONNECTIONS):
        fdmux.connect_stream(loop, server.address, handler).write(MESSAGE)
    return server.run


def streams() -> Run:
    return serve(Echo())


def streams_in_c() -> Run:
    return serve(EchoInC())


def asyncio_calls() -> Run:
    """EventLoop: a callback that always adds itself."""
    loop = EventLoop()

    def again() -> None:
        loop.call_soon(again)

    again()
    return loop.run_forever


def asyncio_calls_in_c() -> Run:
    """EventLoop: callbacks without bytecode, in one iteration."""
    loop = EventLoop()
    for _ in range(BURST):
        loop.call_soon(sorted, NUMBERS)
    return loop.run_forever


def asyncio_timers_in_c() -> Run:
    loop = EventLoop()
    for _ in range(BURST):
        loop.call_later(0, sorted, NUMBERS)
    return loop.run_forever


def asyncio_due_timers() -> Run:
    """Timers that are due: moving them is the work."""
    loop = EventLoop()
    for _ in range(25 * BURST):
        loop.call_later(0, int)
    return loop.run_forever


def asyncio_tasks() -> Run:
    loop = EventLoop()

    async def spin() -> None:
        while True:  # noqa: ASYNC110 - the load
            await asyncio.sleep(0)

    kept.extend(loop.create_task(spin()) for _ in range(CONNECTIONS))
    return loop.run_forever


class EchoProtocol(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.data_received = transport.write  # type: ignore[method-assign] # in C
        transport.write(MESSAGE)


def asyncio_protocols() -> Run:
    loop = EventLoop()

    async def serve_and_connect() -> None:
        server = await loop.create_server(EchoProtocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for _ in range(CONNECTIONS):
            await loop.create_connection(EchoProtocol, *address)

    loop.run_until_complete(serve_and_connect())
    return loop.run_forever


def run_in_thread(run: Run) -> None:
    # The kernel would deliver the timer's signal to the thread whose time it counts.
    # It delivers a Ctrl-C to the main thread.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})
    run()


class Signal:
    """The timer, which counts CPU time in ticks of the kernel of 1 to 10 ms."""

    def start(self) -> None:
        self._due = time.process_time() + AFTER
        signal.setitimer(signal.ITIMER_PROF, AFTER)

    def report(self) -> None:
        late = time.process_time() - self._due
        print(late, flush=True)  # noqa: T201 - the answer
        os._exit(0)  # what is left to do is no part of the question


def main() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _program, _library, load, way = sys.argv
    run: Run = globals()[load]()
    alarm = Signal()
    signal.signal(signal.SIGPROF, signal.default_int_handler)
    if way == "thread":
        thread = threading.Thread(target=run_in_thread, args=(run,))
        thread.start()
        run = thread.join
    elif way == "asyncio":
        running = cast("EventLoop", getattr(run, "__self__", None))
        running.add_signal_handler(signal.SIGPROF, alarm.report)
    try:
        alarm.start()  # here, as this thread may have to wait for the GIL behind it
        run()
    except KeyboardInterrupt:
        alarm.report()


if __name__ == "__main__":
    main()
