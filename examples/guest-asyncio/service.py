"""The asyncio program that the hosts of this folder run: an ordinary one.

A host sees it as a `Service`: a descriptor, a call each time that is readable, and the
results at the end. It needs nothing of its host.
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
    """Talk to a server in this loop, sleep, and use a thread."""
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
    """Block, as a thread may."""
    time.sleep(SLEEP)
    return "AND A THREAD"


async def fail() -> None:
    """End with an exception, which the host gets."""
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
        """Return the result of the first."""
        return self._result.result()

    def failure(self) -> None:
        """Raise the exception of the second."""
        self._failure.result()

    def report(self) -> bool:
        """Print the results; return whether they are right."""
        result = self.result()
        print("result:", result)
        try:
            self.failure()
        except ValueError:
            print("exception: ValueError")
            return result == EXPECTED
        return False

    def close(self) -> None:
        """End the guest; the host has stopped watching it."""
        self._guest.close()
