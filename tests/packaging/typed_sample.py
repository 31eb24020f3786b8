"""What users write, for type checkers: `tools/check_types.py` runs them on it.

Not run, and not collected: `assert_type` holds the types that an editor shows.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, assert_type

import fdmux
from fdmux.framing import Delimited, FrameHandler
from fdmux.hosts.asyncio import EventLoop, run

if TYPE_CHECKING:
    import ssl


@dataclasses.dataclass
class Session:
    """The state of one connection."""

    name: bytes


class Shout(fdmux.StreamHandler[Session]):
    """A handler of streams whose data is a `Session`."""

    def on_connect(self, stream: fdmux.Stream[Session]) -> None:
        stream.data = Session(b"new")

    def on_data(self, stream: fdmux.Stream[Session], data: bytes) -> bytes:
        assert_type(stream.data, Session)
        assert_type(stream.buffered, int)
        return stream.data.name + data.upper()

    def on_close(
        self, stream: fdmux.Stream[Session], error: BaseException | None
    ) -> None:
        stream.write(b"never sent")


class Lines(FrameHandler):
    """A handler of lines."""

    framing = Delimited(b"\n")

    def on_frame(self, stream: fdmux.Stream, frame: bytes) -> bytes:
        self.send(stream, b"one more")
        return frame


class Echo(fdmux.DatagramHandler):
    """A handler of datagrams."""

    def on_datagram(
        self, endpoint: fdmux.DatagramEndpoint, data: bytes, address: object
    ) -> bytes:
        return data


def serve(context: ssl.SSLContext) -> None:
    """Make one of everything."""
    limits = fdmux.ServerLimits(idle_timeout=5)
    with (
        fdmux.SelectorEventLoop() as loop,
        fdmux.StreamServer("127.0.0.1", 0, Shout(), limits=limits, loop=loop) as server,
        fdmux.EchoServer(port=0, ssl=context) as echo,
    ):
        assert_type(server.address, tuple[str, int])
        assert_type(echo.stats.accepted, int)
        stream = fdmux.connect_stream(loop, server.address, Shout())
        assert_type(stream, fdmux.Stream[Session])
        handle = loop.call_later(1, print, "later", end="")
        handle.cancel()
        fdmux.DatagramEndpoint(loop, Echo(), address=("127.0.0.1", 0))
        assert_type(loop.native.fileno(), int)
        assert_type(
            fdmux.wait_readable([stream], timeout=0), list[fdmux.Stream[Session]]
        )
    with fdmux.ClientPool("localhost", 80) as pool:
        assert_type(pool.exchange([b"x"], 1), list[bytes])


async def main() -> int:
    """Await a result of native code."""
    assert_type(fdmux.current(), fdmux.NativeLoop)
    return len(await asyncio.sleep(0, "text"))


assert_type(run(main()), int)
with asyncio.Runner(loop_factory=EventLoop) as runner:
    assert_type(runner.run(main()), int)
