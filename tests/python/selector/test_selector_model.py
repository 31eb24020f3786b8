"""200,000 random operations on a Selector and on the stdlib's EpollSelector, in step.

Both must report the same ``(fd, events)`` and raise the same exceptions at each step.
FDMUX_MODEL_SEED=N repeats a run; FDMUX_MODEL_STEPS=N makes it longer or shorter.

The files are such that the oracle is right: each has one descriptor, so that closing
it closes the file. (Of a file that lives on as a dup, EpollSelector reports events for
whatever was registered under that number since; ours does not: test_selector.py.)

The poll backend is told before a descriptor is closed. poll(2) takes numbers, not
files: a number that was closed and reused between two waits is the same registration to
the kernel, and so to us, whereas epoll has dropped it. No bookkeeping could tell.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import socket
import time
from typing import TYPE_CHECKING

import pytest

from fdmux import EVENT_READ, EVENT_WRITE, Selector
from fdmux._ffi import lib
from fdmux._native import backend_names

if TYPE_CHECKING:
    from collections.abc import Callable

    Outcome = object
    Call = Callable[[selectors.BaseSelector], object]

STEPS = int(os.environ.get("FDMUX_MODEL_STEPS", "200000"))
PAIR_COUNT = 40
VERIFY_EVERY = 500
EVENTS = (EVENT_READ, EVENT_WRITE, EVENT_READ | EVENT_WRITE)
BAD_EVENTS = (0, 4, -1)


class Pair:
    """A socket that is registered, and the far end that makes it ready."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.fd = self.near.fileno()

    def close(self) -> None:
        self.near.close()
        self.far.close()


def outcome_of(call: Call, selector: selectors.BaseSelector) -> Outcome:
    try:
        return call(selector)
    except OSError as error:
        return type(error), error.errno
    except (KeyError, ValueError) as error:
        return type(error)


def summary(key: tuple[object, int, int, object]) -> object:
    """What can be compared of a SelectorKey: all but the object."""
    return key[1:]


class World:
    """Both selectors and their files. Each method named in OPERATIONS is one step."""

    def __init__(
        self, backend: str, seed: int, make: Callable[[str], Selector] = Selector
    ) -> None:
        self.random = random.Random(seed)
        self.ours = make(backend)
        self.oracle = selectors.EpollSelector()
        self.pairs = [Pair() for _ in range(PAIR_COUNT)]
        self.tells_before_close = backend == "poll"
        self.reported = 0

    def close(self) -> None:
        self.ours.close()
        self.oracle.close()
        for pair in self.pairs:
            pair.close()

    def both(self, call: Call) -> Outcome:
        expected = outcome_of(call, self.oracle)
        found = outcome_of(call, self.ours)
        assert found == expected
        return found

    def pick(self) -> tuple[Pair, int | socket.socket]:
        """A pair, and one of the names under which its socket may be known."""
        pair = self.random.choice(self.pairs)
        return pair, self.random.choice((pair.near, pair.fd))

    def pick_events(self) -> int:
        if self.random.random() < 0.02:
            return self.random.choice(BAD_EVENTS)
        return self.random.choice(EVENTS)

    def register(self) -> None:
        _, fileobj = self.pick()
        events, data = self.pick_events(), self.random.randrange(3)
        self.both(lambda selector: summary(selector.register(fileobj, events, data)))

    def unregister(self) -> None:
        _, fileobj = self.pick()
        self.both(lambda selector: summary(selector.unregister(fileobj)))

    def modify(self) -> None:
        """Only for events that register would take: EpollSelector checks none here.

        When the number stands for another file by now, EpollSelector drops the
        registration and raises; ours registers the new file, since it is current.
        """
        pair, fileobj = self.pick()
        events, data = self.random.choice(EVENTS), self.random.randrange(3)

        def call(selector: selectors.BaseSelector) -> object:
            return summary(selector.modify(fileobj, events, data))

        expected = outcome_of(call, self.oracle)
        found = outcome_of(call, self.ours)
        if isinstance(expected, tuple) and expected[0] is FileNotFoundError:
            assert found == (pair.fd, events, data)
            self.ours.unregister(fileobj)
        else:
            assert found == expected

    def get_key(self) -> None:
        _, fileobj = self.pick()
        self.both(lambda selector: summary(selector.get_key(fileobj)))
        self.both(lambda selector: sorted(selector.get_map(), key=str))

    def select(self) -> None:
        def call(selector: selectors.BaseSelector) -> object:
            ready = [(summary(key), events) for key, events in selector.select(0)]
            self.reported += len(ready)
            return sorted(ready, key=str)

        self.both(call)

    def close_file(self) -> None:
        """Close one, registered or not; the next socket may reuse its number."""
        pair = self.random.choice(self.pairs)
        for sock in (pair.near, pair.far):
            self.close_socket(sock)

    def open_file(self) -> None:
        """Replace a closed pair by a new one."""
        for index, pair in enumerate(self.pairs):
            if pair.near.fileno() < 0:
                with contextlib.suppress(KeyError, ValueError):
                    self.oracle.unregister(pair.near)
                    self.ours.unregister(pair.near)
                self.pairs[index] = Pair()
                return

    def reuse_number(self) -> None:
        """dup2(2) another file onto a registered number, which closes the old one."""
        pair = self.random.choice(self.pairs)
        if pair.near.fileno() < 0:
            return
        self.before_close(pair.fd)
        fresh = Pair()
        os.dup2(fresh.near.fileno(), pair.fd, inheritable=False)
        fresh.near.close()
        self.close_socket(pair.far)
        pair.far = fresh.far

    def close_socket(self, sock: socket.socket) -> None:
        """Close either end: far ones may be registered too, under an old number."""
        if sock.fileno() >= 0:
            self.before_close(sock.fileno())
        sock.close()

    def before_close(self, fd: int) -> None:
        if self.tells_before_close:
            self.both(lambda selector: summary(selector.unregister(fd)))

    def write(self) -> None:
        with contextlib.suppress(OSError):
            self.random.choice(self.pairs).far.send(b"x")

    def drain(self) -> None:
        with contextlib.suppress(OSError):
            self.random.choice(self.pairs).near.recv(4096)

    def fill(self) -> None:
        """Fill one until it is not writable."""
        near = self.random.choice(self.pairs).near
        with contextlib.suppress(OSError):
            while near.send(bytes(4096)):
                pass

    def take_all(self) -> None:
        """Drain one until it is writable again."""
        far = self.random.choice(self.pairs).far
        with contextlib.suppress(OSError):
            while far.recv(65536):
                pass

    def half_close(self) -> None:
        pair = self.random.choice(self.pairs)
        with contextlib.suppress(OSError):
            self.random.choice((pair.near, pair.far)).shutdown(socket.SHUT_WR)

    def lose_peer(self) -> None:
        self.close_socket(self.random.choice(self.pairs).far)


OPERATIONS: dict[Callable[[World], None], int] = {
    World.register: 20,
    World.unregister: 12,
    World.modify: 14,
    World.get_key: 3,
    World.select: 14,
    World.close_file: 3,
    World.open_file: 3,
    World.reuse_number: 3,
    World.write: 10,
    World.drain: 10,
    World.fill: 2,
    World.take_all: 3,
    World.half_close: 1,
    World.lose_peer: 1,
}


def pick_seed() -> int:
    given = os.environ.get("FDMUX_MODEL_SEED")
    return time.time_ns() % 1_000_000_007 if given is None else int(given)


def run_model(world: World, steps: int) -> None:
    """Make ``steps`` random steps on both, and close both selectors."""
    verify = getattr(lib, "fdmux_testing_verify", None)
    operations = world.random.choices(
        list(OPERATIONS), list(OPERATIONS.values()), k=steps
    )
    try:
        for step, operation in enumerate(operations):
            operation(world)
            if verify is not None and step % VERIFY_EVERY == 0:
                assert verify(world.ours._c_loop) == 0, "the line of verify.c"
        assert world.reported > steps // 10  # it was not idle
    finally:
        world.close()


@pytest.mark.slow
@pytest.mark.parametrize("backend", backend_names())
def test_selector_behaves_as_the_stdlib_s(backend: str) -> None:
    seed = pick_seed()
    print(f"FDMUX_MODEL_SEED={seed}")  # noqa: T201 - shown when the test fails
    run_model(World(backend, seed), STEPS)
