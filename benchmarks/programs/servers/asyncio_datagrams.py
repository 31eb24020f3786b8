"""Echo of datagrams as an asyncio `DatagramProtocol`, on the loop that is named.

``asyncio_datagrams LOOP``, one of those of asyncio_protocol.py.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, cast

from benchmarks.programs.servers.announce import announce, bind_datagrams
from benchmarks.programs.servers.asyncio_protocol import LOOPS

if TYPE_CHECKING:
    Address = tuple[str, int]


class Echo(asyncio.DatagramProtocol):
    """Sends back what it gets."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.transport.sendto(data, addr)


async def serve() -> None:
    sock = bind_datagrams()
    port = sock.getsockname()[1]
    await asyncio.get_running_loop().create_datagram_endpoint(Echo, sock=sock)
    announce(port)
    await asyncio.get_running_loop().create_future()


def main() -> None:
    loop = LOOPS[sys.argv[1]]()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(serve())


if __name__ == "__main__":
    main()
