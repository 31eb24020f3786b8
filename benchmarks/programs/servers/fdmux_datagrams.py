"""Echo of datagrams by a handler in Python on ``fdmux.DatagramEndpoint``.

``fdmux_datagrams many|one``: called once for a batch, or once for each datagram.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import fdmux
from benchmarks.programs.servers.announce import announce, bind_datagrams

if TYPE_CHECKING:
    from fdmux.datagrams.address import Address

    Batch = list[tuple[bytes, Address | None]]


class EchoMany(fdmux.DatagramHandler):
    """Sends back each batch: what is returned is sent."""

    def on_datagrams(
        self, _endpoint: fdmux.DatagramEndpoint, datagrams: Batch
    ) -> Batch:
        return datagrams


class EchoOne(fdmux.DatagramHandler):
    """Answers each datagram with itself."""

    def on_datagram(
        self, _endpoint: fdmux.DatagramEndpoint, data: bytes, _address: Address | None
    ) -> bytes:
        return data


def main() -> None:
    handler = EchoMany() if sys.argv[1:] == ["many"] else EchoOne()
    loop = fdmux.SelectorEventLoop()
    sock = bind_datagrams()
    announce(sock.getsockname()[1])
    fdmux.DatagramEndpoint(loop, handler, sock=sock)
    loop.run()


if __name__ == "__main__":
    main()
