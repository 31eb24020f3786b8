"""HTTP/1.1 hello on streams: ``python server.py [--port 8000]``.

Try ``curl http://127.0.0.1:PORT/`` or ``wrk -c 50 -d 5 http://127.0.0.1:PORT/``.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from typing import TYPE_CHECKING

from hello import Hello

import fdmux

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMITS = fdmux.ServerLimits(idle_timeout=30.0, stall_timeout=30.0)


class HelloHandler(fdmux.StreamHandler):
    """One `Hello` for each connection."""

    def on_connect(self, stream: fdmux.Stream) -> None:
        """Give the connection its protocol."""
        stream.data = Hello()

    def on_data(self, stream: fdmux.Stream, data: bytes) -> None:
        """Answer the complete requests."""
        self.send(stream, hello_of(stream).receive(data))

    def on_end(self, stream: fdmux.Stream) -> None:
        """Answer an incomplete request with an error; then close."""
        hello = hello_of(stream)
        if not hello.is_over:
            stream.write(hello.receive(b""))
        stream.close()

    def on_drain(self, stream: fdmux.Stream) -> None:
        """Answer the waiting requests, as fast as the client reads."""
        hello = hello_of(stream)
        if hello.is_waiting:
            self.send(stream, hello.go_on())

    def send(self, stream: fdmux.Stream, replies: bytes) -> None:
        """Send replies, then more of them until the client is slow."""
        hello = hello_of(stream)
        if replies:
            stream.write(replies)
        while hello.is_waiting:
            if stream.buffered:
                stream.pause_reading()  # its end is not noticed meanwhile either
                return
            stream.write(hello.go_on())
        stream.resume_reading()
        if hello.is_flooded:
            stream.abort()
        elif hello.is_over:
            stream.shutdown()


def hello_of(stream: fdmux.Stream) -> Hello:
    """Return the object that `on_connect` stored."""
    hello = stream.data
    assert isinstance(hello, Hello)  # noqa: S101 - for the type checker
    return hello


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    options = parser.parse_args(arguments)
    handler = HelloHandler()
    with fdmux.StreamServer(
        options.host, options.port, handler, limits=LIMITS
    ) as server:
        signal.signal(signal.SIGTERM, lambda *_: server.stop())
        print(f"serving on {server.address[0]}:{server.address[1]}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
