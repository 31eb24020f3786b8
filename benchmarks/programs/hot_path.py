"""One hot path, driven by its own peers in the same thread: ``hot_path.py KIND COUNT``.

Each of 32 peers sends one message of 1 KiB, the loop runs until all are answered, and
so on, COUNT times. Nothing depends on time, so it takes the same instructions each
time.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from typing import cast

import fdmux
from fdmux.hosts.asyncio import EventLoop

MESSAGE = bytes(1024)
PEERS = 32


class StreamEcho(fdmux.StreamHandler):
    def on_data(self, _stream: fdmux.Stream, data: bytes) -> bytes:
        return data


class DatagramEcho(fdmux.DatagramHandler):
    def on_datagram(
        self, endpoint: fdmux.DatagramEndpoint, data: bytes, _address: object
    ) -> None:
        endpoint.send(data)


class ProtocolEcho(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def pairs(kind: int = socket.SOCK_STREAM) -> tuple[list[socket.socket], list[int]]:
    """Return sockets, and the descriptors of their peers."""
    made = [socket.socketpair(socket.AF_UNIX, kind) for _ in range(PEERS)]
    for sock in itertools.chain.from_iterable(made):
        sock.setblocking(False)
    return [ours for ours, _ in made], [theirs.detach() for _, theirs in made]


def ask(peers: list[int]) -> None:
    for peer in peers:
        os.write(peer, MESSAGE)


def run_on_selectors(kind: str, count: int) -> None:
    """Echoes on `fdmux.SelectorEventLoop`."""
    datagrams = kind == "datagram"
    socks, peers = pairs(socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
    with fdmux.SelectorEventLoop() as loop:
        for sock in socks:
            if datagrams:
                fdmux.DatagramEndpoint(loop, DatagramEcho(), sock=sock)
            else:
                fdmux.add_stream(loop, sock, StreamEcho())
        for _ in range(count):
            ask(peers)
            loop.run_once(0)
            for peer in peers:
                os.read(peer, len(MESSAGE))


def run_on_asyncio(kind: str, count: int) -> None:
    """Echoes on asyncio with our loop."""

    async def main() -> None:
        socks, peers = pairs()
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []
        for sock in socks:
            if kind == "protocol":
                await loop.connect_accepted_socket(ProtocolEcho, sock)
            else:
                reader, writer = await asyncio.open_connection(sock=sock)
                tasks.append(loop.create_task(echo_stream(reader, writer)))
        for _ in range(count):
            ask(peers)
            await answers(peers)
        for peer in peers:
            os.close(peer)
        if tasks:
            await asyncio.wait(tasks)

    loop = EventLoop()
    loop.run_until_complete(main())
    loop.close()


async def answers(peers: list[int]) -> None:
    """Receive the answers, when the loop has run often enough to send them."""
    for peer in peers:
        while True:
            try:
                os.read(peer, len(MESSAGE))
            except BlockingIOError:
                await asyncio.sleep(0)
            else:
                break


async def echo_stream(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while data := await reader.read(len(MESSAGE)):
        writer.write(data)
    writer.close()


KINDS = {
    "stream": run_on_selectors,
    "datagram": run_on_selectors,
    "protocol": run_on_asyncio,
    "streams": run_on_asyncio,
}


if __name__ == "__main__":
    KINDS[sys.argv[1]](sys.argv[1], int(sys.argv[2]))
