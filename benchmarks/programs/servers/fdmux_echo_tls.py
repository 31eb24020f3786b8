"""Echo over TLS by ``fdmux.EchoServer``, as shipped.

``fdmux_echo_tls CERTIFICATE KEY``
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, cast

import fdmux
from benchmarks.programs.servers.announce import BUFFER_SIZE, announce
from benchmarks.programs.servers.asyncio_tls import make_context
from benchmarks.programs.servers.fdmux_echo import QUEUE_MAX

if TYPE_CHECKING:
    from ssl import SSLContext


class _MakeServer(Protocol):
    """What is called here; the row asks whether this fdmux has it."""

    def __call__(
        self,
        host: str,
        port: int,
        *,
        bufsize: int,
        limits: fdmux.ServerLimits,
        ssl: SSLContext,
    ) -> fdmux.EchoServer: ...


def main() -> None:
    limits = fdmux.ServerLimits(queue_max=QUEUE_MAX)
    context = make_context(*sys.argv[1:])
    make = cast("_MakeServer", fdmux.EchoServer)
    server = make("127.0.0.1", 0, bufsize=BUFFER_SIZE, limits=limits, ssl=context)
    server.start()
    announce(server.address[1])
    server.run()


if __name__ == "__main__":
    main()
