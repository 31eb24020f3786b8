"""Echo by ``fdmux.EchoServer``, as shipped, with the buffer size of the others."""

from __future__ import annotations

from typing import Protocol, cast

from benchmarks.availability import load_fdmux
from benchmarks.servers.announce import BUFFER_SIZE, announce


class _Server(Protocol):
    def start(self) -> object: ...
    def run(self) -> object: ...
    @property
    def address(self) -> tuple[str, int]: ...


class _MakeServer(Protocol):
    def __call__(self, host: str, port: int, bufsize: int) -> _Server: ...


def main() -> None:
    make_server = cast("_MakeServer", load_fdmux("EchoServer"))
    server = make_server("127.0.0.1", 0, BUFFER_SIZE)
    server.start()
    announce(server.address[1])
    server.run()


if __name__ == "__main__":
    main()
