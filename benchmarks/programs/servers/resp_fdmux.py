"""The server of ``examples/resp`` as it stands, on ``fdmux.StreamServer``.

    python -m benchmarks.programs.servers.resp_fdmux [PATH_OF_THE_EXTENSION]

With the extension C cuts the requests, without it the parser in Python does.
"""

from __future__ import annotations

import importlib
import sys
from typing import Protocol, cast

from benchmarks.availability import load_fdmux
from benchmarks.extensions import load_module
from benchmarks.programs.servers.announce import BACKLOG, announce
from benchmarks.programs.servers.resp_session import EXAMPLE


class _Server(Protocol):
    address: tuple[str, int]

    def start(self) -> None: ...
    def run(self) -> None: ...


class _MakeServer(Protocol):
    def __call__(
        self, host: str, port: int, handler: object, *, limits: object, backlog: int
    ) -> _Server: ...


def main() -> None:
    sys.path.insert(0, str(EXAMPLE))
    is_native = len(sys.argv) > 1
    if is_native:
        sys.modules["resp_framer"] = load_module("resp_framer", sys.argv[1])
    example = importlib.import_module("server")
    make_server = cast("_MakeServer", load_fdmux("StreamServer"))
    handler: object = example.make_handler("native" if is_native else "python")
    limits: object = example.LIMITS
    server = make_server("127.0.0.1", 0, handler, limits=limits, backlog=BACKLOG)
    server.start()
    announce(server.address[1])
    server.run()


if __name__ == "__main__":
    main()
