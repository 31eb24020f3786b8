"""Echo by a handler in Python on ``fdmux.StreamServer``.

``fdmux_stream [busy|observed]``: one that is busy computes before it answers; one that
is observed has an observer.
"""

from __future__ import annotations

import sys

import fdmux
from benchmarks.programs.servers.announce import (
    BACKLOG,
    BUFFER_SIZE,
    CONNECTION_MAX,
    announce,
)
from benchmarks.programs.servers.busy import stay_busy
from benchmarks.programs.servers.observer import Reader

LIMITS = fdmux.ServerLimits(
    receive_max=BUFFER_SIZE,
    queue_max=4 * BUFFER_SIZE,
    connection_max=CONNECTION_MAX,
)


class Echo(fdmux.StreamHandler):
    """Writes what it gets: what is returned is written."""

    def on_data(self, _stream: fdmux.Stream, data: bytes) -> bytes:
        return data


class BusyEcho(Echo):
    """The same with work to do: of the latency row."""

    def on_data(self, _stream: fdmux.Stream, data: bytes) -> bytes:
        stay_busy()
        return data


def main() -> None:
    handler = BusyEcho() if sys.argv[1:] == ["busy"] else Echo()
    loop = fdmux.SelectorEventLoop()
    server = fdmux.StreamServer(
        "127.0.0.1", 0, handler, limits=LIMITS, backlog=BACKLOG, loop=loop
    )
    server.start()
    if sys.argv[1:] == ["observed"]:
        loop.observe(Reader())
    announce(server.address[1])
    server.run()


if __name__ == "__main__":
    main()
