"""Measure in C what Python sends, on a loop of callbacks and on asyncio.

Exit code 1 if the meter has counted something else than was sent.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable

import meter

from fdmux import SelectorEventLoop

SIZE = 1_000_000
PERIOD = 0.05
TIMEOUT = 30.0  # seconds; a meter that counts too little fails

reader, writer = socket.socketpair()
reader.setblocking(False)
writer.setblocking(False)


def measure(loop: object, stop: Callable[[], object]) -> list[float]:
    """Start a meter; return the bytes of each period, and stop when all have come."""
    counts: list[float] = []

    def on_rate(rate: float) -> bool:
        counts.append(round(rate * PERIOD))
        if sum(counts) >= SIZE:
            stop()
        return sum(counts) < SIZE  # False ends the meter

    meter.start(loop, reader.fileno(), PERIOD, on_rate)
    return counts


def send(left: int = SIZE) -> None:
    """Send what fits, and the rest a little later."""
    with contextlib.suppress(BlockingIOError):
        left -= writer.send(bytes(min(left, 65536)))
    if left:
        loop.call_later(0.001, send, left)


with SelectorEventLoop() as loop:
    counts = measure(loop, loop.stop)
    send()
    loop.call_later(TIMEOUT, loop.stop)
    loop.run()
print(f"a loop of callbacks: {sum(counts):,} bytes")


async def main() -> list[float]:
    """Send and measure on the loop of asyncio."""
    done = asyncio.Event()
    counts = measure(None, done.set)  # None: the loop that runs here
    await asyncio.get_running_loop().sock_sendall(writer, bytes(SIZE))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), TIMEOUT)
    return counts


on_asyncio = asyncio.run(main())
print(f"asyncio:             {sum(on_asyncio):,} bytes")
reader.close()
writer.close()
sys.exit(not sum(counts) == sum(on_asyncio) == SIZE)
