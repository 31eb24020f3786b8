"""A small Redis-protocol server on streams: ``python server.py [--port 6379]``.

Try ``redis-cli -p PORT set name value`` or ``redis-benchmark -p PORT -t get,set``.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from typing import TYPE_CHECKING

import resp
from session import Session
from store import REPLIES_MAX, Store

import fdmux
from fdmux.framing import FrameHandler

try:
    import resp_framer
except ImportError:  # it is not built; see README.md
    resp_framer = None

if TYPE_CHECKING:
    from collections.abc import Sequence

# One write may exceed REPLIES_MAX by one reply.
LIMITS = fdmux.ServerLimits(queue_max=4 * REPLIES_MAX, idle_timeout=600.0)


class Answering(fdmux.StreamHandler):
    """One session for each connection, one store for all of them."""

    def __init__(self) -> None:
        self._store = Store()

    def on_connect(self, stream: fdmux.Stream) -> None:
        """Give the connection its session."""
        stream.data = Session(self._store)

    def answer(self, stream: fdmux.Stream, replies: bytes) -> bytes | None:
        """Return the replies for now; prepare for the rest."""
        session = session_of(stream)
        if not session.waiting and session.problem is None:
            return replies
        stream.write(replies)
        self.on_drain(stream)
        return None

    def on_drain(self, stream: fdmux.Stream) -> None:
        """Answer the waiting requests, as fast as the client reads."""
        session = session_of(stream)
        while session.waiting:
            if stream.buffered:
                stream.pause_reading()  # its end is not noticed meanwhile either
                return
            stream.write(session.go_on())
        stream.resume_reading()
        if session.problem is not None:
            stream.write(resp.error(f"Protocol error: {session.problem}"))
            stream.close()


class RespHandler(Answering):
    """Parses requests in Python."""

    def on_data(self, stream: fdmux.Stream, data: bytes) -> bytes | None:
        """Answer the complete requests; the stream writes what is returned."""
        return self.answer(stream, session_of(stream).receive(data))


class RespFraming:
    """A framing whose frames are requests, lists of bytes; C cuts them."""

    def __fdmux_framer__(self) -> object:
        """Return the framer in C."""
        return resp_framer.framer()


class NativeRespHandler(Answering, FrameHandler):
    """Gets the requests that C has cut; needs resp_framer."""

    framing = RespFraming()

    def on_frames(
        self, stream: fdmux.Stream, requests: list[list[bytes]]
    ) -> bytes | None:
        """Answer the requests; an empty line is not one."""
        if [] in requests:
            requests = [request for request in requests if request]
        return self.answer(stream, session_of(stream).take(requests))

    def frame_error(self, rest: bytes) -> resp.ProtocolError:
        """Let the parser in Python report what is wrong."""
        try:
            resp.Parser().feed(rest)
        except resp.ProtocolError as problem:
            return problem
        return resp.ProtocolError("no request")

    def on_frame_error(self, stream: fdmux.Stream, error: resp.ProtocolError) -> None:
        """Send the error after the replies before it, and close."""
        session_of(stream).problem = error
        self.on_drain(stream)


def make_handler(parser: str = "") -> Answering:
    """Make the handler with the parser "native" or "python", or the best one."""
    if parser == "native" and resp_framer is None:
        raise SystemExit("resp_framer is not built; see README.md")
    is_native = parser != "python" and resp_framer is not None
    return NativeRespHandler() if is_native else RespHandler()


def session_of(stream: fdmux.Stream) -> Session:
    """Return the object that `on_connect` stored."""
    session = stream.data
    assert isinstance(session, Session)  # noqa: S101 - for the type checker
    return session


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    parser.add_argument("--parser", choices=["native", "python"], default="")
    options = parser.parse_args(arguments)
    handler = make_handler(options.parser)
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
