"""Get calls from C functions of the loop: on our loop, and on two of asyncio.

Prints what happened; exits with 1 at the first wrong result.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from typing import TYPE_CHECKING

import calling

import fdmux
import fdmux.hosts.asyncio

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = 10
PATIENCE = 30.0


def check(is_so: bool, text: str) -> None:
    """Print a result that is right; with a wrong one, end the program."""
    if not is_so:
        sys.exit(f"WRONG   {text}")
    print(f"ok      {text}")


def scenario(loop: object) -> Iterator[None]:
    """Use the extension; at each ``yield`` the loop has a turn."""
    pairs = [socket.socketpair() for _ in range(COUNT)]
    yield from call_with_what_arrives(loop, pairs)
    yield from call_every_millisecond(loop)
    yield from raise_in_one(pairs)
    for _, there in pairs:
        there.close()
    yield  # the end of each: C watches it no longer
    for here, _ in pairs:
        here.close()


def call_with_what_arrives(
    loop: object, pairs: list[tuple[socket.socket, socket.socket]]
) -> Iterator[None]:
    """Ten descriptors are ready at once."""
    found: list[bytes] = []

    def on_bytes(data: bytes) -> None:
        if data == b"bad":
            raise ValueError("what came is bad")
        found.append(data)

    for here, there in pairs:
        here.setblocking(False)
        calling.watch(loop, here.fileno(), on_bytes)
        there.send(b"hello")
    calls, batches = calling.counts()
    while len(found) < COUNT:
        yield
    check(found == [b"hello"] * COUNT, f"{COUNT} functions called with what came")
    after = calling.counts()
    check(
        (after[0] - calls, after[1] - batches) == (COUNT, 1),
        f"the GIL taken once for these {COUNT}",
    )


def call_every_millisecond(loop: object) -> Iterator[None]:
    """A timer in C."""
    ticks: list[float] = []

    def on_tick() -> bool:
        ticks.append(time.monotonic())
        return len(ticks) < 3

    begun = time.monotonic()
    calling.every(loop, 1, on_tick)
    while len(ticks) < 3:
        yield
    yield
    check(len(ticks) == 3, "a timer called until its function returned False")
    check(ticks[0] >= begun + 0.001, "and not early")


def raise_in_one(pairs: list[tuple[socket.socket, socket.socket]]) -> Iterator[None]:
    """An exception cannot leave C: the extension keeps it, and raises it later."""
    calling.check()
    for number, (_, there) in enumerate(pairs):
        there.send(b"bad" if number == 3 else b"good")
    calls, _ = calling.counts()
    while calling.counts()[0] - calls < COUNT:
        yield
    try:
        calling.check()
    except ValueError as error:
        check(str(error) == "what came is bad", "an exception kept, and raised later")
    else:
        check(False, "no exception")


def run_on_our_loop() -> None:
    """Functions of the loop run inside `run_once`."""
    deadline = time.monotonic() + PATIENCE
    with fdmux.SelectorEventLoop() as loop:
        for _ in scenario(loop):
            loop.run_once(timeout=0.1)
            check_time(deadline)


async def run_in_asyncio() -> None:
    """The same in a running asyncio loop: `current` finds or mounts a native loop."""
    deadline = time.monotonic() + PATIENCE
    for _ in scenario(fdmux.current()):
        await asyncio.sleep(0.001)
        check_time(deadline)


def check_time(deadline: float) -> None:
    """End the program if nothing happens."""
    if time.monotonic() > deadline:
        sys.exit(f"WRONG   nothing happened for {PATIENCE:.0f} s")


def main() -> None:
    """Run every part in three loops."""
    print("on fdmux.SelectorEventLoop")
    run_on_our_loop()
    print("on fdmux.hosts.asyncio.EventLoop")
    with asyncio.Runner(loop_factory=fdmux.hosts.asyncio.EventLoop) as runner:
        runner.run(run_in_asyncio())
    print("mounted on the loop of asyncio")
    asyncio.run(run_in_asyncio())


main()
