"""Run it all: the four servers, the service, and those who ask it.

    python run.py [--seconds N] [--askers N] [--loop asyncio|fdmux|uvloop]

Shows live figures. Without --seconds it runs until Ctrl-C. Exits with 1 if an answer
was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import random
import sys

from figures import Figures, shown
from servers import Servers
from service import NUMBER_COUNT, Service

LOOPS = {
    "asyncio": "asyncio:SelectorEventLoop",
    "fdmux": "fdmux.hosts.asyncio:EventLoop",
    "uvloop": "uvloop:new_event_loop",
}


def expected(number: int) -> str:
    """Return what the service must say."""
    address = f"10.0.{number // 256}.{number % 256}"
    return f"{number} {address} page-{number} owner-{number}\n"


async def ask_forever(port: int, seed: int) -> None:
    """Ask one number after another over a connection of Python's; raise if wrong."""
    numbers = random.Random(seed)  # noqa: S311 - no secret
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            number = numbers.randrange(NUMBER_COUNT // 10)  # Redis knows some of them
            writer.write(f"{number}\n".encode())
            answer = (await reader.readline()).decode()
            if answer != expected(number):
                raise ValueError(f"WRONG: {number} was answered with {answer!r}")
    finally:
        writer.close()


async def show_each_second(figures: Figures) -> None:
    """Show what happens, from a timer in the same loop."""
    with shown() as show:
        while True:
            await asyncio.sleep(1)
            show(figures)


async def run(
    addresses: dict[str, str], figures: Figures, seconds: float | None, askers: int
) -> None:
    """Serve and ask, for some seconds or until this is cancelled."""
    async with Service(addresses, figures) as service:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                group.create_task(show_each_second(figures))
                for seed in range(askers):
                    group.create_task(ask_forever(service.port, seed))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="until Ctrl-C without it")
    parser.add_argument("--askers", type=int, default=50, metavar="N")
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    return parser.parse_args()


def main() -> int:
    """Run, and say how it went."""
    arguments = parse()
    module, _, name = LOOPS[arguments.loop].partition(":")
    factory = getattr(importlib.import_module(module), name)
    figures = Figures()
    wrong: list[Exception] = []
    with (
        contextlib.suppress(KeyboardInterrupt),  # the usual end
        Servers() as servers,
        asyncio.Runner(loop_factory=factory) as runner,
    ):
        job = run(servers.addresses, figures, arguments.seconds, arguments.askers)
        try:
            runner.run(job)
        except ExceptionGroup as group:
            wrong += group.exceptions
    for figure in figures:
        print(f"{figure.name}: {figure.count} answers, {figure.failed} failed")
    for error in wrong:
        print(error, file=sys.stderr)
    return 1 if wrong or any(figure.failed for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
