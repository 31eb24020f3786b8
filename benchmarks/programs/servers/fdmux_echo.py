"""Echo by ``fdmux.EchoServer``, as shipped, with the buffer size of the others."""

from __future__ import annotations

import fdmux
from benchmarks.programs.servers.announce import BUFFER_SIZE, CONNECTION_MAX, announce

QUEUE_MAX = 1 << 20


def main() -> None:
    limits = fdmux.ServerLimits(queue_max=QUEUE_MAX, connection_max=CONNECTION_MAX)
    server = fdmux.EchoServer("127.0.0.1", 0, bufsize=BUFFER_SIZE, limits=limits)
    server.start()
    announce(server.address[1])
    server.run()


if __name__ == "__main__":
    main()
