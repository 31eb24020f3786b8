"""Measure in C what a Python thread sends; on a loop of callbacks, and on asyncio."""

import asyncio
import contextlib
import socket
import sys

import meter

from fdmux import SelectorEventLoop

SIZE = 1_000_000
PERIOD = 0.05

reader, writer = socket.socketpair()
reader.setblocking(False)
writer.setblocking(False)


def count_all(loop: object, stop: object) -> list[float]:
    """Start a meter that calls ``stop`` when it has measured something."""
    rates: list[float] = []

    def on_rate(rate: float) -> bool:
        rates.append(rate * PERIOD)
        if sum(rates) >= SIZE - 1:
            stop()
        return sum(rates) < SIZE - 1

    meter.start(loop, reader.fileno(), PERIOD, on_rate)
    return rates


def send(left: int = SIZE) -> None:
    """Send what fits, and the rest a little later."""
    with contextlib.suppress(BlockingIOError):
        left -= writer.send(bytes(min(left, 65536)))
    if left:
        loop.call_later(0.001, send, left)


with SelectorEventLoop() as loop:
    rates = count_all(loop, loop.stop)
    send()
    loop.run()
print(f"a loop of callbacks: {sum(rates):,.0f} bytes")


async def main() -> float:
    """Send and measure on the loop of asyncio."""
    done = asyncio.Event()
    rates = count_all(None, done.set)  # None: the loop that runs here
    await asyncio.get_running_loop().sock_sendall(writer, bytes(SIZE))
    await done.wait()
    return sum(rates)


print(f"asyncio:             {asyncio.run(main()):,.0f} bytes")
reader.close()
writer.close()
sys.exit(0)
