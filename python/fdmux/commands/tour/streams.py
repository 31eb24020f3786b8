"""Tour: streams, whole messages on them, and an error that ends one stream only."""

from __future__ import annotations

from fdmux import (
    SelectorEventLoop,
    Stream,
    StreamHandler,
    StreamServer,
    connect_stream,
    connect_with_timeout,
    read_with_timeout,
)
from fdmux.commands.tour.expect import PATIENCE, UnexpectedError, expect
from fdmux.framing import Delimited, FrameHandler

HOST = "127.0.0.1"


class Shout(StreamHandler):
    """Answer in capitals."""

    def on_data(self, _stream: Stream, data: bytes) -> bytes:
        """Return the answer; the stream writes it."""
        return data.upper()


class Ask(StreamHandler):
    """Send one message, and collect the answer."""

    def __init__(self, loop: SelectorEventLoop) -> None:
        self._loop = loop
        self.received = b""
        self.errors: list[BaseException | None] = []

    def on_connect(self, stream: Stream) -> None:
        """Send everything, then end our side."""
        stream.write(b"hello")
        stream.shutdown()

    def on_data(self, _stream: Stream, data: bytes) -> None:
        """Keep what arrives."""
        self.received += data

    def on_close(self, _stream: Stream, error: BaseException | None) -> None:
        """Note how the stream ended; the server has answered by then."""
        self.errors.append(error)
        self._loop.stop()


def both_ends() -> str:
    """A server and a client of it, as streams of one loop."""
    with SelectorEventLoop() as loop:
        client = Ask(loop)
        with StreamServer(HOST, 0, Shout(), loop=loop) as server:
            connect_stream(loop, server.address, client)
            loop.run(timeout=PATIENCE)
            stats = server.stats
    expect(client.received == b"HELLO", f"received {client.received!r}")
    expect(client.errors == [None], f"the client's on_close got {client.errors}")
    expect((stats.accepted, stats.errors) == (1, 0), f"the server counted {stats}")
    return f"{client.received!r}, closed without an error on both ends"


class Lines(FrameHandler):
    """Answer each line with its length."""

    framing = Delimited(b"\n", frame_max=1000)

    def on_frame(self, _stream: Stream, frame: bytes) -> bytes:
        """Return the answer; it is sent as a line too."""
        return b"%d" % len(frame)


def framing() -> str:
    """Three lines that arrive in four pieces are three frames."""
    pieces = (b"one\nth", b"re", b"e\n", b"thirteen\n")
    with StreamServer(HOST, 0, Lines()) as server:
        server.run_in_thread()
        with connect_with_timeout(*server.address, timeout=PATIENCE) as sock:
            for piece in pieces:
                sock.sendall(piece)
            answer = read_with_timeout(sock, 6, timeout=PATIENCE)
    expect(answer == b"3\n5\n8\n", f"answered {answer!r}")
    return f"{len(pieces)} pieces cut into {answer.count(bytes([10]))} lines"


def from_another_thread() -> str:
    """Another thread writes through the server, and is refused if it does directly."""
    streams: list[Stream] = []

    class Welcome(StreamHandler):
        def on_connect(self, stream: Stream) -> None:
            streams.append(stream)
            stream.write(b"hi")

    with StreamServer(HOST, 0, Welcome()) as server:
        server.run_in_thread()
        with connect_with_timeout(*server.address, timeout=PATIENCE) as sock:
            expect(read_with_timeout(sock, 2, PATIENCE) == b"hi", "no welcome")
            check_refused(streams[0])
            server.call_soon_threadsafe(streams[0].write, b"news")
            news = read_with_timeout(sock, 4, timeout=PATIENCE)
    expect(news == b"news", f"received {news!r}")
    return "call_soon_threadsafe writes, a direct write raises"


def check_refused(stream: Stream) -> None:
    """Check that a write in this thread, which is the wrong one, raises."""
    try:
        stream.write(b"lost")
    except RuntimeError:
        return
    raise UnexpectedError("a write from another thread was not refused")
