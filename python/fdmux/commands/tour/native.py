"""Tour: C code with a pipe, a timer and a thread, in loops that Python runs."""

from __future__ import annotations

import asyncio
import select
import selectors
import socket
import time
from typing import TYPE_CHECKING

from fdmux import NativeLoop, Selector, SelectorEventLoop, current
from fdmux.commands.tour.c_source import CSource
from fdmux.commands.tour.expect import (
    PATIENCE,
    UnexpectedError,
    expect,
    need_descriptor,
    run_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def beside_sockets() -> str:
    """A C-owned pipe, timer and thread beside Python's sockets, in one loop."""
    return share(SelectorEventLoop)


def on_stdlib_selector() -> str:
    """The same on a selector of the standard library, through one descriptor."""
    need_descriptor()
    return share(lambda: SelectorEventLoop(selectors.DefaultSelector()))


def share(make_loop: Callable[[], SelectorEventLoop]) -> str:
    """Let C code and two Python sockets run in one loop until both are done."""
    left, right = socket.socketpair()
    echoed: list[bytes] = []
    with left, right, CSource() as source:
        with make_loop() as loop:
            source.start(loop.native)
            loop.register_read(right, lambda sock: sock.sendall(sock.recv(64)))
            loop.register_read(left, lambda sock: echoed.append(sock.recv(64)))
            left.sendall(b"hello")
            run_until(loop, lambda: source.is_done() and bool(echoed))
        expect(echoed == [b"hello"], f"echoed {echoed}")
        return source.check_ended()


def behind_one_fd() -> str:
    """poll(2) hosts the loop: it watches one descriptor and calls dispatch."""
    need_descriptor()
    with CSource() as source:
        turn_count = 0
        with NativeLoop() as native:
            source.start(native)
            poller = select.poll()
            poller.register(native.fileno(), select.POLLIN)
            while not source.is_done():
                turn_count += 1
                expect(poller.poll(PATIENCE * 1000) != [], "the fd stayed silent")
                native.dispatch()
        return f"{source.check_ended()}; {turn_count} turns of select.poll"


def found_by_current() -> str:
    """Inside a callback `current` finds the running loop; outside it raises."""
    found: list[NativeLoop] = []
    with SelectorEventLoop() as loop:
        loop.call_later(0, lambda: found.append(current()))
        loop.run(timeout=PATIENCE, max_iterations=1)
        expect(found == [loop.native], f"found {found}, not {loop.native}")
    try:
        current()
    except RuntimeError:
        return "the loop in its callback, an error outside"
    raise UnexpectedError("found a loop where none runs")


def under_asyncio() -> str:
    """Asyncio runs on our selector, and C code in it, found through `current`."""
    with CSource() as source:
        loop = asyncio.SelectorEventLoop(Selector())
        try:
            reply = loop.run_until_complete(asyncio_exchange(source))
        finally:
            loop.close()
        expect(reply == b"hello\n", f"asyncio echoed {reply!r}")
        return source.check_ended()


async def asyncio_exchange(source: CSource) -> bytes:
    """Echo a line through asyncio's streams while the C code runs."""
    source.start(current())
    server = await asyncio.start_server(echo_line, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        reply = await reader.readline()
        writer.close()
        await writer.wait_closed()
    deadline = time.monotonic() + PATIENCE
    while (  # noqa: ASYNC110 - C code sets no asyncio.Event
        not source.is_done() and time.monotonic() < deadline
    ):
        await asyncio.sleep(0.001)
    return reply


async def echo_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection of asyncio."""
    writer.write(await reader.readline())
    writer.close()
    await writer.wait_closed()
