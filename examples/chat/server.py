"""A chat server: a client says a name, and then lines that everybody gets.

    python server.py --port 9300
    nc localhost 9300

docs/tutorials/chat.md writes it step by step.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import ssl
import sys
from typing import TYPE_CHECKING

import fdmux

if TYPE_CHECKING:
    from collections.abc import Sequence


class Room(fdmux.FrameHandler[bytes | None]):
    """Everybody in the room gets every line; ``stream.data`` is the name."""

    framing = fdmux.Delimited(b"\n", frame_max=1000)

    def __init__(self) -> None:
        self.members: dict[bytes, fdmux.Stream[bytes | None]] = {}

    def on_connect(self, stream: fdmux.Stream[bytes | None]) -> None:
        """Ask who it is."""
        self.send(stream, b"your name?")

    def on_frame(self, stream: fdmux.Stream[bytes | None], frame: bytes) -> None:
        """Take a line: the name at first, then something to say."""
        text = frame.rstrip(b"\r")  # telnet ends its lines with both
        if stream.data is None:
            self.enter(stream, text)
        else:
            self.tell(b"%b: %b" % (stream.data, text))

    def enter(self, stream: fdmux.Stream[bytes | None], name: bytes) -> None:
        """Let a client in by its name, if it is free."""
        if not name or name in self.members:
            self.send(stream, b"not that one; your name?")
            return
        stream.data = name
        self.members[name] = stream
        self.tell(b"* %b is here" % name)

    def tell(self, text: bytes) -> None:
        """Send a line to everybody in the room."""
        for member in self.members.values():
            self.send(member, text)

    def on_close(
        self, stream: fdmux.Stream[bytes | None], _error: BaseException | None
    ) -> None:
        """Say who has left; not those who never came in."""
        if stream.data is not None:
            del self.members[stream.data]
            self.tell(b"* %b has left" % stream.data)

    def on_stopping(self, stream: fdmux.Stream[bytes | None]) -> None:
        """Say goodbye, and let the client leave."""
        self.send(stream, b"* the server is closing")
        stream.shutdown()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; at SIGTERM, let the clients leave first."""
    parser = argparse.ArgumentParser(description="A chat server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9300, help="0: the kernel chooses")
    parser.add_argument("--tls-cert", metavar="FILE", help="a certificate and its key")
    options = parser.parse_args(arguments)
    context = None
    if options.tls_cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.tls_cert)
    limits = fdmux.ServerLimits(idle_timeout=600.0)
    with fdmux.StreamServer(
        options.host, options.port, Room(), limits=limits, ssl=context
    ) as server:
        signal.signal(signal.SIGTERM, lambda *_: server.drain(timeout=5.0))
        print("chatting at {}:{}".format(*server.address), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
