"""A small Redis-protocol server on batched streams: ``python server.py [--port 6379]``.

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

if TYPE_CHECKING:
    from collections.abc import Sequence

# What is written at once may pass REPLIES_MAX by one reply.
LIMITS = fdmux.ServerLimits(queue_max=4 * REPLIES_MAX, idle_timeout=600.0)


class RespHandler(fdmux.StreamHandler):
    """One session a connection, one store for all of them."""

    def __init__(self) -> None:
        self._store = Store()

    def on_connect(self, stream: fdmux.Stream) -> None:
        """Give the connection its session."""
        stream.data = Session(self._store)

    def on_data(self, stream: fdmux.Stream, view: memoryview) -> bytes | None:
        """Answer what is whole: what is returned is written."""
        session = session_of(stream)
        replies = session.receive(bytes(view))
        if not session.waiting and session.problem is None:
            return replies
        stream.write(replies)
        self.on_drain(stream)
        return None

    def on_drain(self, stream: fdmux.Stream) -> None:
        """Answer what was too much at once, as fast as the client reads."""
        session = session_of(stream)
        while session.waiting:
            if stream.buffered:
                stream.pause_reading()  # nor is its end noticed meanwhile
                return
            stream.write(session.go_on())
        stream.resume_reading()
        if session.problem is not None:
            stream.write(resp.error(f"Protocol error: {session.problem}"))
            stream.close()


def session_of(stream: fdmux.Stream) -> Session:
    """Return what `on_connect` has put there."""
    session = stream.data
    assert isinstance(session, Session)  # noqa: S101 - for the type checker
    return session


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    options = parser.parse_args(arguments)
    handler = RespHandler()
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
