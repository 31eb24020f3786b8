"""Tour: waiting for readiness, with a selector and without."""

from __future__ import annotations

import socket
import time

from fdmux import EVENT_READ, EVENT_WRITE, Selector, wait_readable, wait_writable
from fdmux.commands.tour.expect import expect, milliseconds_since

BOTH = EVENT_READ | EVENT_WRITE


def selector() -> str:
    """Two sockets, one with data: the selector tells them apart."""
    left, right = socket.socketpair()
    with left, right, Selector() as selector:
        selector.register(left, BOTH, data="left")
        selector.register(right, EVENT_READ, data="right")
        left.sendall(b"x")
        ready = {key.data: events for key, events in selector.select(timeout=1)}
        expect(ready == {"left": EVENT_WRITE, "right": EVENT_READ}, f"ready: {ready}")
        selector.modify(left, EVENT_READ)
        selector.unregister(right)
        expect(selector.select(timeout=0) == [], "ready: something without data")
        return f"{selector.native.backend}: one readable, one writable, told apart"


def readable() -> str:
    """Of three sockets two have data: these two are returned, in the order given."""
    pairs = [socket.socketpair() for _ in range(3)]
    readers = [reader for reader, _ in pairs]
    try:
        began = time.monotonic()
        expect(wait_readable(readers, timeout=0.02) == [], "ready without data")
        waited = milliseconds_since(began)
        pairs[2][1].sendall(b"x")
        pairs[0][1].sendall(b"x")
        found = wait_readable(readers, timeout=1)
        expect(found == [readers[0], readers[2]], f"ready: {found}")
    finally:
        for sock in (sock for pair in pairs for sock in pair):
            sock.close()
    return f"none after {waited:.1f} ms, then 2 of 3, in order"


def writable() -> str:
    """A socket is writable until the kernel's buffer is full."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        expect(wait_writable([left], timeout=1) == [left], "not writable when empty")
        sent = 0
        while wait_writable([left], timeout=0):
            sent += left.send(bytes(65536))
        return f"until {sent:,} bytes filled the buffer"
