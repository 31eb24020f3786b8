"""Random calls of streams and transports, also inside their callbacks.

    python -m tests.fuzz.fuzz_delivery --seconds 300
    python -m tests.fuzz.fuzz_delivery --seed 1234 --runs 1     # repeats one run

A seed chooses a loop and its backend, some connections, and a few hundred calls: writes
in every form, close, abort, shutdown, pause, resume, what the peers do, callbacks that
raise, receives and sends that are cut short. delivery_model.py has the rules. A run
that breaks one prints its seed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import random
import selectors
import socket
import sys
import time
from typing import TYPE_CHECKING

from tests.fuzz.delivery_model import (
    CALLS_OF_A_SIDE,
    SIZES,
    FuzzError,
    Side,
    must,
)

import fdmux
from fdmux._ffi import lib
from fdmux._native import backend_names
from fdmux.hosts.asyncio import EventLoop
from fdmux.hosts.asyncio.selector import StreamSelector

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS = 150
CONNECTIONS_MAX = 5
DEPTH_MAX = 3
PATIENCE = 10.0  # seconds, until all connections have ended
LIMITS = (
    fdmux.StreamLimits(),
    fdmux.StreamLimits(receive_max=1),
    fdmux.StreamLimits(receive_max=262_144, queue_max=1 << 22),
    fdmux.StreamLimits(receive_max=4096, queue_low=0, queue_high=1, queue_max=300_000),
)


# ---- streams -----------------------------------------------------------------------


class Handler(fdmux.StreamHandler[object]):
    """Passes the callbacks of streams to their sides, which are their ``data``."""

    def __init__(self, run: StreamRun) -> None:
        self._run = run

    def on_connect(self, stream: fdmux.Stream[object]) -> None:
        side = self._run.side_of_accepted(stream)
        if side is None:  # its peer has reset it meanwhile
            stream.abort()
            return
        must(side.got == 0 and not side.is_closed, "connected too late")
        if not side.is_closing:
            side.run.inside(side)

    def on_data(self, stream: fdmux.Stream[object], data: bytes) -> None:
        side_of(stream).on_data(data)

    def on_end(self, stream: fdmux.Stream[object]) -> None:
        side = side_of(stream)
        if not side.on_end():
            side.close()

    def on_writable(self, stream: fdmux.Stream[object]) -> None:
        side_of(stream).on_writable()

    def on_drain(self, stream: fdmux.Stream[object]) -> None:
        side_of(stream).on_writable()

    def on_close(self, stream: fdmux.Stream[object], error: Exception | None) -> None:
        if isinstance(stream.data, Side):
            stream.data.on_close(error)


def side_of(stream: fdmux.Stream[object]) -> Side:
    assert isinstance(stream.data, Side)
    return stream.data


# ---- transports of asyncio ---------------------------------------------------------


class Base(asyncio.BaseProtocol):
    """Passes the callbacks of a transport to its side."""

    def __init__(self, side: Side) -> None:
        self.side = side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.side.verbs = transport
        self.side.shut_down = transport.write_eof
        transport.set_write_buffer_limits(high=self.side.run.size())
        self.side.run.inside(self.side, may_raise=False)

    def swap(self) -> None:
        """Perhaps hand the transport to another protocol."""
        side = self.side
        if isinstance(side.verbs, asyncio.Transport) and side.run.choose(5) == 0:
            kind = (Receiver, BufferedReceiver)[side.run.choose(2)]
            side.verbs.set_protocol(kind(side))

    def eof_received(self) -> bool:
        stays = self.side.on_end()
        self.side.is_closing = self.side.is_closing or not stays
        return stays

    def resume_writing(self) -> None:
        if not self.side.is_closing:  # asyncio calls it after a close, too
            self.side.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self.side.on_close(exc)


class Receiver(Base, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.side.on_data(data)
        self.swap()


class BufferedReceiver(Base, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint: int) -> bytearray:
        del sizehint
        self.buffer = bytearray(max(1, self.side.run.size()))
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.side.on_data(bytes(self.buffer[:nbytes]))
        self.swap()


# ---- runs --------------------------------------------------------------------------


class Run:
    """One seed: a loop, its connections, and the calls that follow."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._depth = 0
        self._calls = CALLS
        self.is_ending = False
        self.sides: list[Side] = []
        self.problems: list[str] = []

    def choose(self, count: int) -> int:
        return self._random.randrange(count)

    def size(self) -> int:
        return self._random.choice(SIZES)

    def inside(self, side: Side, *, may_raise: bool = True) -> None:
        """Make calls inside a callback of ``side``; perhaps raise."""
        if self._depth >= DEPTH_MAX or self.is_ending:
            return
        self._depth += 1
        try:
            for _ in range(self.choose(3)):
                self.call(side if self.choose(3) else self._random.choice(self.sides))
        finally:
            self._depth -= 1
        fate = self.choose(40) if may_raise else 39
        if fate == 0:
            side.is_closing = side.is_dropped = True
            raise FuzzError
        if fate == 1:
            raise KeyboardInterrupt

    def call(self, side: Side) -> None:
        if side.verbs is None or self._calls <= 0:
            return
        self._calls -= 1
        self._random.choice(CALLS_OF_A_SIDE)(side)

    def add_side(self, peer: socket.socket) -> Side:
        peer.setblocking(False)
        side = Side(self, peer)
        self.sides.append(side)
        return side

    def socket_pair(self) -> tuple[socket.socket, socket.socket]:
        """Return our end of a new connection, and that of the peer."""
        if self.choose(2) == 0:
            ours, peer = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                ours = socket.create_connection(listener.getsockname())
                peer, _ = listener.accept()
        if self.choose(3) == 0:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return ours, peer

    def cut_short(self, size: int) -> None:
        """Let receives and sends move ``size`` bytes at most; 0: no limit.

        Only a test build can do that.
        """
        if hasattr(lib, "fdmux_testing_short"):
            lib.fdmux_testing_short(size)

    def go(self) -> None:
        """Run it all, and check what must hold at the end."""
        try:
            while self._calls > 0:
                what = self.choose(20)
                self._calls -= 1
                if what == 0:
                    self.cut_short((0, 0, 9, 500, 5000)[self.choose(5)])
                elif what < 3 and len(self.sides) < CONNECTIONS_MAX:
                    self.connect()
                elif what < 12 and self.sides:
                    self.call(self._random.choice(self.sides))
                else:
                    self.turn()
            self.end()
        finally:
            self.cut_short(0)
            self.close()
            for side in self.sides:
                side.peer.close()
        for side in self.sides:
            side.check_end()

    def end(self) -> None:
        """Let every connection end, while the peers read."""
        self.is_ending = True
        self.cut_short(0)  # else a long queue takes long
        deadline = time.monotonic() + PATIENCE
        while not all(side.is_closed or side.verbs is None for side in self.sides):
            must(time.monotonic() < deadline, "a connection does not end")
            for side in self.sides:
                side.peer_read()
                if side.verbs is not None and not side.is_closing:
                    (side.close, side.peer_end, side.resume)[self.choose(3)]()
            self.turn()
        for side in self.sides:
            while side.peer_read():
                pass

    # What each kind of loop does in its own way ---------------------------------

    def connect(self) -> None:
        """Make a connection."""
        raise NotImplementedError

    def turn(self) -> None:
        """Run one iteration; an interrupt of a callback comes out of it."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the loop."""
        raise NotImplementedError


class StreamRun(Run):
    """Streams, on each backend and on a selector of the standard library."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        names = backend_names()
        name = (*names, None)[self.choose(len(names) + 1)]
        self._loop = fdmux.SelectorEventLoop(
            selectors.DefaultSelector() if name is None else fdmux.Selector(name)
        )
        self._handler = Handler(self)
        limits = dataclasses.asdict(LIMITS[self.choose(len(LIMITS))])
        self._server = fdmux.StreamServer(
            "127.0.0.1",
            0,
            self._handler,
            limits=fdmux.ServerLimits(**limits),
            loop=self._loop,
        )
        self._server.start()
        self._accepting: dict[object, Side] = {}

    def connect(self) -> None:
        (self._add, self._accept, self._connect)[self.choose(3)]()

    def _attach(self, side: Side, stream: fdmux.Stream[object]) -> None:
        stream.data = side
        side.verbs, side.shut_down = stream, stream.shutdown

    def _add(self) -> None:
        ours, peer = self.socket_pair()
        limits = LIMITS[self.choose(len(LIMITS))]
        side = self.add_side(peer)
        stream = fdmux.add_stream(self._loop, ours, self._handler, limits=limits)
        self._attach(side, stream)

    def _accept(self) -> None:
        peer = socket.create_connection(self._server.address)
        self._accepting[peer.getsockname()] = self.add_side(peer)

    def _connect(self) -> None:
        limits = LIMITS[self.choose(len(LIMITS))]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            stream = fdmux.connect_stream(
                self._loop, address, self._handler, limits=limits
            )
            peer, _ = listener.accept()
        self._attach(self.add_side(peer), stream)

    def side_of_accepted(self, stream: fdmux.Stream[object]) -> Side | None:
        if stream.data is None:
            side = self._accepting.pop(stream.peername, None)
            if side is None:
                return None
            self._attach(side, stream)
        return side_of(stream)

    def turn(self) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            self._loop.run_once(0)

    def end(self) -> None:
        if self.choose(4) == 0:  # the end of the loop ends them
            self.is_ending = True
            for side in self.sides:
                side.is_closing = side.is_dropped = True
        else:
            super().end()

    def close(self) -> None:
        self._server.stop()
        self._loop.close()


class TransportRun(Run):
    """Transports of asyncio on our loop, on each backend."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        names = backend_names()
        self._loop = EventLoop(StreamSelector(names[self.choose(len(names))]))
        self._loop.set_exception_handler(self._note_problem)
        self._loop.set_debug(self.choose(8) == 0)

    def _note_problem(self, _loop: object, context: dict[str, object]) -> None:
        if not isinstance(context.get("exception"), FuzzError):
            self.problems.append(repr(context))

    def connect(self) -> None:
        ours, peer = self.socket_pair()
        side = self.add_side(peer)
        kind = (Receiver, BufferedReceiver)[self.choose(2)]
        task = self._loop.create_task(
            self._loop.connect_accepted_socket(lambda: kind(side), ours)
        )
        while not task.done():
            self.turn()
        ours.close()

    def turn(self) -> None:
        self._loop.call_soon(self._loop.stop)
        with contextlib.suppress(KeyboardInterrupt):
            self._loop.run_forever()

    def close(self) -> None:
        self._loop.close()


class Watch(logging.Handler):
    """Collects what is logged, but for the errors that callbacks raise on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info and record.exc_info[1]
        if error is not None and not isinstance(error, FuzzError):
            self.problems.append(logging.Formatter().format(record))

    def on_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        self.problems.append(f"unraisable: {unraisable.exc_value!r}")


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    """Collect what is logged, or cannot be raised, meanwhile."""
    watch = Watch()
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, [watch]
    hook, sys.unraisablehook = sys.unraisablehook, watch.on_unraisable
    try:
        yield watch
    finally:
        root.handlers = handlers
        sys.unraisablehook = hook


def run_one(seed: int) -> None:
    """Run a seed.

    Raises:
        BrokenRuleError: A rule does not hold.
    """
    before = descriptors()
    with watched() as watch:
        run = (StreamRun, TransportRun)[seed % 2](seed)
        run.go()
        problems = run.problems
        del run
        gc.collect()
    must(not problems and not watch.problems, "\n".join(problems + watch.problems))
    must(descriptors() == before, "descriptors are left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    seed = options.seed
    while time.monotonic() < end and seed - options.seed != options.runs:
        try:
            run_one(seed)
        except BaseException:
            print(f"seed {seed}", file=sys.stderr)  # noqa: T201 - to repeat it
            raise
        seed += 1
    print(f"{seed - options.seed} runs without a fault")  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
