"""Echo over TLS by ``fdmux.EchoServer``, as shipped.

``fdmux_echo_tls CERTIFICATE KEY``
"""

from __future__ import annotations

import sys

import fdmux
from benchmarks.programs.servers.announce import BUFFER_SIZE, CONNECTION_MAX, announce
from benchmarks.programs.servers.asyncio_tls import make_context
from benchmarks.programs.servers.fdmux_echo import QUEUE_MAX


def main() -> None:
    limits = fdmux.ServerLimits(queue_max=QUEUE_MAX, connection_max=CONNECTION_MAX)
    context = make_context(*sys.argv[1:])
    server = fdmux.EchoServer(
        "127.0.0.1", 0, bufsize=BUFFER_SIZE, limits=limits, ssl=context
    )
    server.start()
    announce(server.address[1])
    server.run()


if __name__ == "__main__":
    main()
