"""Tour: our loop inside another loop, asyncio on our core, and Python as a guest."""

from __future__ import annotations

import asyncio
import select
import socket
from typing import TYPE_CHECKING

from fdmux import Guest, current, mount
from fdmux.commands.tour.c_source import CSource
from fdmux.commands.tour.expect import PATIENCE, expect, need_descriptor
from fdmux.commands.tour.native import asyncio_exchange
from fdmux.hosts.asyncio import EventLoop

if TYPE_CHECKING:
    from collections.abc import Callable


def mounted_on_asyncio() -> str:
    """A stock asyncio loop serves C code through one descriptor, or handle."""

    async def main(source: CSource) -> bytes:
        with mount() as mounted:
            expect(current() is mounted.native, "current() found another loop")
            return await asyncio_exchange(source)

    with CSource() as source:
        # Named, as the loop that the policy makes may be one of ours.
        kind = getattr(asyncio, "ProactorEventLoop", asyncio.SelectorEventLoop)
        with asyncio.Runner(loop_factory=kind) as runner:
            reply = runner.run(main(source))
        expect(reply == b"hello\n", f"asyncio echoed {reply!r}")
        return source.check_ended()


def asyncio_on_the_core() -> str:
    """`fdmux.hosts.asyncio`: C receives and sends for asyncio's protocols."""
    with CSource() as source:
        with asyncio.Runner(loop_factory=EventLoop) as runner:
            reply = runner.run(asyncio_exchange(source))
        expect(reply == b"hello\n", f"asyncio echoed {reply!r}")
        return source.check_ended()


def guest() -> str:
    """A host that is not Python's waits for a loop of Python: here it is poll(2)."""
    need_descriptor()
    left, right = socket.socketpair()
    seen: list[bytes] = []
    with left, right, CSource() as source:
        with Guest() as guest:
            guest.loop.register_read(left, lambda sock: seen.append(sock.recv(64)))
            guest.loop.call_later(0.005, right.sendall, b"tick")
            source.start(guest.loop.native)
            call_count = drive(guest, lambda: source.is_done() and seen != [])
        expect(seen == [b"tick"], f"the socket received {seen}")
        return f"{source.check_ended()}; {call_count} dispatches"


def drive(guest: Guest, is_done: Callable[[], bool]) -> int:
    """Be the host: wait for the one descriptor, dispatch; return how often."""
    poller = select.poll()
    poller.register(guest.fileno(), select.POLLIN)
    call_count = 0
    while not is_done():
        expect(poller.poll(PATIENCE * 1000) != [], "the descriptor stayed silent")
        guest.dispatch()
        call_count += 1
    return call_count
