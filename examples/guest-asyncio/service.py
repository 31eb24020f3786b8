"""What the hosts here carry: an asyncio program, as one would write it anyway.

`Service` is what a host sees of it: a descriptor, a call for each time that is
readable, and what has come out in the end. It needs nothing of its host.
"""

from __future__ import annotations

import asyncio
import time

import fdmux.hosts.asyncio

REQUESTS = ("streams", "in", "a foreign loop")
EXPECTED = "STREAMS IN A FOREIGN LOOP AND A THREAD"
SLEEP = 0.02


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each line in capitals."""
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()


async def converse() -> str:
    """Talk to a server of our own, sleep, and let a thread do something."""
    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        answers = []
        for request in REQUESTS:
            writer.write(request.encode() + b"\n")
            answers.append((await reader.readline()).decode().strip())
            await asyncio.sleep(SLEEP)
        writer.close()
        await writer.wait_closed()
    answers.append(await asyncio.to_thread(work))
    return " ".join(answers)


def work() -> str:
    """Block, which a thread may."""
    time.sleep(SLEEP)
    return "AND A THREAD"


async def fail() -> None:
    """End with an exception, which the host is told."""
    await asyncio.sleep(SLEEP)
    raise ValueError("the host wanted it")


class Service:
    """Two coroutines in a guest; see `fdmux.hosts.asyncio.Guest`."""

    def __init__(self) -> None:
        self._guest = fdmux.hosts.asyncio.Guest()
        self._result = self._guest.start(converse())
        self._failure = self._guest.start(fail())
        self.fileno = self._guest.fileno
        self.dispatch = self._guest.dispatch

    def is_done(self) -> bool:
        """Whether both have ended."""
        return self._result.done() and self._failure.done()

    def result(self) -> str:
        """Return what the one has returned."""
        return self._result.result()

    def failure(self) -> None:
        """Raise what the other has raised."""
        self._failure.result()

    def report(self) -> bool:
        """Print what came out; return whether that is as it should be."""
        result = self.result()
        print("result:", result)
        try:
            self.failure()
        except ValueError:
            print("exception: ValueError")
            return result == EXPECTED
        return False

    def close(self) -> None:
        """End the guest; the host watches it no more."""
        self._guest.close()
