"""Random calls of datagram endpoints and of asyncio's, also inside their callbacks.

    python -m tests.fuzz.fuzz_datagrams --seconds 300
    python -m tests.fuzz.fuzz_datagrams --seed 1234 --runs 1     # repeats one run

A seed chooses a loop and its backend, some endpoints of UDP and Unix, and some hundred
calls: sends in every form, to each other and to a plain socket, close, abort, callbacks
that raise and close, system calls that fail. A datagram names its own length, so what
arrives must be what was sent. A run that breaks a rule prints its seed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import functools
import gc
import random
import socket
import sys
import time
from typing import TYPE_CHECKING, Protocol

from tests.fuzz.delivery_model import FuzzError, must
from tests.fuzz.fuzz_delivery import descriptors, watched

import fdmux
from fdmux._ffi import lib
from fdmux._native import backend_names
from fdmux.hosts.asyncio import EventLoop
from fdmux.hosts.asyncio.datagrams import DatagramTransport
from fdmux.hosts.asyncio.selector import StreamSelector

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux.datagrams.address import Address

CALLS = 150
ENDPOINTS_MAX = 6
DEPTH_MAX = 3
HEAD = 4
SIZES = (0, HEAD, 64, 1200, 9000)
LIMITS = (
    fdmux.DatagramLimits(),
    fdmux.DatagramLimits(size_max=100),
    fdmux.DatagramLimits(queue_max=2000, queue_low=0),
)
ERRORS = (errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED, errno.EIO)
# Not what makes an endpoint: a seed must not end for want of one.
KINDS = ("RECVMMSG", "SENDMMSG", "SEND", "RECV", "MEMORY")


@functools.cache
def datagram(size: int) -> bytes:
    """Return a datagram that names its length, or an empty one."""
    body = bytes((place * 7 + size) & 0xFF for place in range(HEAD, size))
    return size.to_bytes(HEAD, "little") + body if size else b""


def check(data: bytes, *, may_be_cut: bool) -> None:
    """See that a datagram is as it was sent."""
    if len(data) < HEAD:
        must(not data, "a datagram without its head")
        return
    size = int.from_bytes(data[:HEAD], "little")
    whole = datagram(size)
    must(data == whole or (may_be_cut and whole.startswith(data)), "other bytes")


class End(Protocol):
    """What endpoints and asyncio's transports have in common here."""

    def close(self) -> None: ...
    def abort(self) -> None: ...


class Side:
    """One endpoint, and what must hold for it."""

    def __init__(self, run: Run, *, may_be_cut: bool = False) -> None:
        self.run = run
        self.may_be_cut = may_be_cut
        self.end: End | None = None
        self.is_closing = False
        self.is_closed = False

    def on_data(self, data: bytes) -> None:
        must(not self.is_closing, "data after a close")
        check(data, may_be_cut=self.may_be_cut)
        self.run.inside(self)

    def on_error(self, error: Exception) -> None:
        must(isinstance(error, OSError) and not self.is_closed, "an odd error")
        self.run.inside(self)

    def on_close(self) -> None:
        must(not self.is_closed, "closed twice")
        self.is_closed = self.is_closing = True

    def close(self) -> None:
        assert self.end is not None
        self.is_closing = True
        (self.end.close, self.end.abort)[self.run.choose(2)]()


# ---- endpoints -----------------------------------------------------------------------


class Each(fdmux.DatagramHandler):
    """Passes the callbacks of an endpoint to its side."""

    def __init__(self, side: Side) -> None:
        self.side = side

    def on_datagram(
        self, _endpoint: fdmux.DatagramEndpoint, data: bytes, _address: Address | None
    ) -> bytes | None:
        self.side.on_data(data)
        return datagram(self.side.run.size()) if self.side.run.choose(3) == 0 else None

    def on_error(
        self,
        _endpoint: fdmux.DatagramEndpoint,
        error: OSError,
        _address: Address | None,
    ) -> None:
        self.side.on_error(error)

    def on_writable(self, _endpoint: fdmux.DatagramEndpoint) -> None:
        self.side.run.inside(self.side)

    def on_close(
        self, _endpoint: fdmux.DatagramEndpoint, _error: OSError | None
    ) -> None:
        self.side.on_close()


class Many(Each):
    def on_datagrams(
        self,
        _endpoint: fdmux.DatagramEndpoint,
        datagrams: list[tuple[bytes, Address | None]],
    ) -> list[tuple[bytes, Address | None]] | None:
        must(len(datagrams) > 0 and not self.side.is_closing, "a batch")
        for data, _ in datagrams:
            check(data, may_be_cut=self.side.may_be_cut)
        self.side.run.inside(self.side)
        is_echo = self.side.run.choose(3) == 0 and not self.side.may_be_cut
        return datagrams if is_echo else None


class Receiver(asyncio.DatagramProtocol):
    """The same for a transport of asyncio."""

    def __init__(self, side: Side) -> None:
        self.side = side

    def datagram_received(self, data: bytes, _address: object) -> None:
        self.side.on_data(data)

    def error_received(self, exc: Exception) -> None:
        self.side.on_error(exc)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.side.on_close()


# ---- runs ----------------------------------------------------------------------------


class Run:
    """One seed: a loop, its endpoints, and the calls that follow."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._depth = 0
        self._calls = CALLS
        self.sides: list[Side] = []
        self.addresses: list[Address] = []
        self.problems: list[str] = []
        self.is_interrupted = False
        self.plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.plain.bind(("127.0.0.1", 0))
        self.plain.setblocking(False)
        self.addresses.append(self.plain.getsockname())
        self.backend = backend_names()[self.choose(len(backend_names()))]

    def choose(self, count: int) -> int:
        return self._random.randrange(count)

    def size(self) -> int:
        return self._random.choice(SIZES)

    def address(self) -> Address:
        return self._random.choice(self.addresses)

    def inside(self, side: Side) -> None:
        """Make calls inside a callback of ``side``; perhaps raise."""
        if self._depth >= DEPTH_MAX or self._calls <= 0:
            return
        self._depth += 1
        try:
            for _ in range(self.choose(3)):
                self.use(side if self.choose(3) else self._random.choice(self.sides))
        finally:
            self._depth -= 1
        fate = self.choose(40)
        if fate == 0:
            raise FuzzError
        if fate == 1 and not self.is_interrupted:  # one of a batch can be raised
            self.is_interrupted = True
            raise KeyboardInterrupt

    def use(self, side: Side) -> None:
        """Make one call of an endpoint."""
        self._calls -= 1
        if side.end is None or side.is_closed or self._calls <= 0:
            return
        if self.choose(12) == 0:
            side.close()
        else:
            self.send(side)

    def talk(self) -> None:
        """Send from the plain socket, and look what it has got."""
        for _ in range(self.choose(5)):
            with contextlib.suppress(OSError, TypeError):  # of another family
                self.plain.sendto(datagram(self.size()), self.address())
        with contextlib.suppress(OSError):
            while True:
                check(self.plain.recv(70_000), may_be_cut=False)

    def fail_soon(self) -> None:
        """Let a system call or an allocation fail. Only a test build can do that."""
        if hasattr(lib, "fdmux_testing_fail"):
            kind = getattr(lib, f"FDMUX_CALL_{self._random.choice(KINDS)}")
            error = self._random.choice(ERRORS)
            lib.fdmux_testing_fail(kind, 1 + self.choose(4), error, 0)

    def fail_no_more(self) -> None:
        if hasattr(lib, "fdmux_testing_fail"):
            lib.fdmux_testing_fail(0, 0, 0, 0)

    def go(self) -> None:
        """Run it all, and check what must hold at the end."""
        try:
            while self._calls > 0:
                self._calls -= 1
                self.step(self.choose(20))
        finally:
            self.fail_no_more()
            self.close()
            self.plain.close()
        for side in self.sides:
            must(side.is_closed or side.end is None, "no end")

    def step(self, what: int) -> None:
        if what < 2 and len(self.sides) < ENDPOINTS_MAX:
            self.fail_no_more()
            self.open()
        elif what < 4:
            self.talk()
        elif what < 5:
            self.fail_soon()
        elif what < 12 and self.sides:
            self.use(self._random.choice(self.sides))
        else:
            self.is_interrupted = False
            self.turn()

    # What each kind of loop does in its own way ---------------------------------

    def open(self) -> None:
        """Make an endpoint."""
        raise NotImplementedError

    def send(self, side: Side) -> None:
        """Send in one of the forms there are."""
        raise NotImplementedError

    def turn(self) -> None:
        """Run one iteration; an interrupt of a callback comes out of it."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the loop, and so the endpoints."""
        raise NotImplementedError


class EndpointRun(Run):
    """`DatagramEndpoint`, on each backend."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._loop = fdmux.SelectorEventLoop(fdmux.Selector(self.backend))

    def open(self) -> None:
        limits = LIMITS[self.choose(len(LIMITS))]
        side = Side(self, may_be_cut=limits.size_max < max(SIZES))
        path = f"\0fdmux-fuzz-{id(side)}"
        plain: Address = self.plain.getsockname()
        places: list[tuple[Address | None, Address | None]] = [
            (("127.0.0.1", 0), None),
            (("::1", 0), None),
            (path.encode(), None),
            (None, plain),
        ]
        own, peer = self._random.choice(places)
        end = fdmux.DatagramEndpoint(
            self._loop,
            (Each, Many)[self.choose(2)](side),
            address=own,
            peer=peer,
            limits=limits,
            local_address=self.choose(2) == 0,
            ecn=self.choose(2) == 0,
            gro=self.choose(2) == 0,
        )
        side.end = end
        self.sides.append(side)
        self.addresses.append(end.sockname)

    def send(self, side: Side) -> None:
        end = side.end
        assert isinstance(end, fdmux.DatagramEndpoint)
        address = None if end.connected else self.address()
        sends: list[Callable[[], object]] = [
            lambda: end.send(datagram(self.size()), address),
            lambda: end.send_many([(datagram(self.size()), address)] * self.choose(70)),
            lambda: end.send_segments(datagram(200) * self.choose(100), 200, address),
            lambda: must(end.stats.queued >= 0, "stats"),
        ]
        # The families may not go together.
        with contextlib.suppress(ValueError, TypeError):
            sends[self.choose(len(sends))]()

    def turn(self) -> None:
        with contextlib.suppress(KeyboardInterrupt, MemoryError):  # of the wait, too
            self._loop.run_once(0)

    def close(self) -> None:
        self._loop.close()


class TransportRun(Run):
    """Transports of asyncio's datagrams on our loop, on each backend."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._loop = EventLoop(StreamSelector(self.backend))
        self._loop.set_exception_handler(self._note_problem)

    def _note_problem(self, _loop: object, context: dict[str, object]) -> None:
        if not isinstance(context.get("exception"), FuzzError):
            self.problems.append(repr(context))

    def open(self) -> None:
        side = Side(self)
        own, peer = ("127.0.0.1", 0), self.plain.getsockname()
        is_connected = self.choose(2) == 0
        task = self._loop.create_task(
            self._loop.create_datagram_endpoint(
                lambda: Receiver(side),
                None if is_connected else own,
                peer if is_connected else None,
            )
        )
        while not task.done():
            self.turn()
        side.end = task.result()[0]
        self.sides.append(side)
        self.addresses.append(task.result()[0].get_extra_info("sockname"))

    def send(self, side: Side) -> None:
        end = side.end
        assert isinstance(end, DatagramTransport)
        peer = end.get_extra_info("peername")
        if not side.is_closing:
            end.sendto(datagram(self.size()), None if peer else self.address())
        must(end.get_write_buffer_size() >= 0, "the buffer's size")

    def turn(self) -> None:
        self._loop.call_soon(self._loop.stop)
        with contextlib.suppress(KeyboardInterrupt, MemoryError):  # of the wait, too
            self._loop.run_forever()

    def close(self) -> None:
        for side in self.sides:
            if side.end is not None and not side.is_closed:
                side.is_closing = True
                side.end.abort()
        self._calls = 0  # callbacks do nothing more
        while not all(side.is_closed for side in self.sides):
            self.turn()
        self._loop.close()


def run_one(seed: int) -> None:
    """Run a seed.

    Raises:
        BrokenRuleError: A rule does not hold.
    """
    before = descriptors()
    with watched() as watch:
        run = (EndpointRun, TransportRun)[seed % 2](seed)
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
