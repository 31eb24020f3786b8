"""Unreferenced objects are freed with their descriptors, and never called.

Objects are dropped while they are registered, wait or are called; finalizers and
callbacks of weak references use the loop; the collector runs at any moment.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import os
import socket
import threading
import warnings
import weakref
from typing import TYPE_CHECKING

import pytest

from fdmux import (
    EVENT_READ,
    EchoServer,
    LoopClosed,
    NativeQueue,
    Selector,
    SelectorEventLoop,
    StreamHandler,
    add_stream,
)
from fdmux.hosts.asyncio import EventLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.reliability.conftest import Bars

    from fdmux import Stream

    Drop = Callable[["Graveyard"], None]

LONG = 30.0

# Python warns once of an object that is dropped without being closed.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@contextlib.contextmanager
def collecting_all_the_time() -> Iterator[None]:
    threshold = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        yield
    finally:
        gc.set_threshold(*threshold)


class Graveyard:
    """The dropped objects: which of them are alive, and which were called again."""

    def __init__(self) -> None:
        self._buried: list[weakref.ref[object]] = []
        self.called_dead = 0
        self.called = 0

    def bury(self, *dead: object) -> None:
        """Remember objects of which nobody else keeps a reference from now on."""
        self._buried += [weakref.ref(one) for one in dead]

    def alive(self) -> int:
        gc.collect()
        return sum(1 for one in self._buried if one() is not None)


class Listener:
    """Has a socket and a callback, and holds its loop: a cycle through the loop."""

    def __init__(self, loop: SelectorEventLoop, graveyard: Graveyard) -> None:
        self.loop = loop
        self.graveyard = graveyard
        self.sock, self.peer = socket.socketpair()
        self.is_dead = False
        loop.register_read(self.sock, self.on_readable)
        loop.call_later(0, self.on_call)
        loop.call_later(LONG, self.on_call)
        loop.call_soon_threadsafe(self.on_call)

    def on_readable(self, sock: socket.socket) -> None:
        sock.recv(1)
        self.on_call()

    def on_call(self) -> None:
        self.graveyard.called += 1
        self.graveyard.called_dead += self.is_dead


# ---- ways to go: each buries what nobody holds when it returns -----------------------


def dropped_while_registered(graveyard: Graveyard) -> None:
    loop = SelectorEventLoop()
    listener = Listener(loop, graveyard)
    listener.peer.send(b"x")
    graveyard.bury(loop, loop.native, listener)


def dropped_after_a_run(graveyard: Graveyard) -> None:
    with SelectorEventLoop() as loop:
        listener = Listener(loop, graveyard)
        listener.peer.send(b"x")
        assert loop.run_once(LONG) > 0
        graveyard.bury(loop, loop.native, listener)


def sockets_closed_by_the_collector(graveyard: Graveyard) -> None:
    """Drop a socket that the loop watches by number; the loop goes on."""
    with SelectorEventLoop() as loop:
        here, there = socket.socketpair()
        loop.register_read(here.fileno(), lambda _: None)
        there.send(b"x")
        graveyard.bury(here, there)
        del here, there
        loop.run_once(0)
        listener = Listener(loop, graveyard)  # perhaps under the same number
        listener.peer.send(b"x")
        while loop.run_once(0):
            pass


def dropped_by_its_own_callback(graveyard: Graveyard) -> None:
    """Drop the last reference to the loop inside its callback."""
    held = {"loop": SelectorEventLoop()}
    here, there = socket.socketpair()

    def drop(sock: socket.socket) -> None:
        held["loop"].unregister(sock)
        graveyard.bury(held["loop"], held["loop"].native)
        held.clear()
        gc.collect()

    with here, there:
        held["loop"].register_read(here, drop)
        there.send(b"x")
        held["loop"].run_once(LONG)


class TakesOutOthers:
    """The first callback unregisters and drops all others."""

    def __init__(self, loop: SelectorEventLoop, graveyard: Graveyard) -> None:
        self.loop = loop
        self.graveyard = graveyard
        self.sock, self.peer = socket.socketpair()
        self.others: list[TakesOutOthers] = []
        self.is_dead = False
        loop.register_read(self.sock, self.on_readable)

    def on_readable(self, sock: socket.socket) -> None:
        self.graveyard.called += 1
        self.graveyard.called_dead += self.is_dead
        sock.recv(1)
        for other in self.others:
            other.is_dead = True
            self.loop.unregister(other.sock)
            other.others.clear()
        self.others.clear()
        gc.collect()


def callback_dropped_in_the_same_batch(graveyard: Graveyard) -> None:
    """All are ready at once; only the first still exists and is called."""
    with SelectorEventLoop() as loop:
        crowd = [TakesOutOthers(loop, graveyard) for _ in range(5)]
        for one in crowd:
            one.others = [other for other in crowd if other is not one]
            one.peer.send(b"x")
        graveyard.bury(*crowd)
        del one
        crowd.clear()
        assert loop.run_once(LONG) == 1
        assert loop.run_once(0) == 0


class Unregisters:
    """A finalizer unregisters from a loop that may be freed already."""

    def __init__(self, loop: SelectorEventLoop, selector: Selector) -> None:
        self._loop = loop
        self._selector = selector
        self._sock, self._peer = socket.socketpair()
        loop.register_read(self._sock, self.on_readable)
        selector.register(self._peer, EVENT_READ, self)

    def on_readable(self, sock: socket.socket) -> None:
        del sock

    def __del__(self) -> None:
        self._loop.unregister(self._sock)
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._peer)
        for _ in range(2):
            self._loop.close()
            self._selector.close()
        self._sock.close()
        self._peer.close()


def finalizer_that_unregisters_and_closes(graveyard: Graveyard) -> None:
    loop, selector = SelectorEventLoop(), Selector()
    owner = Unregisters(loop, selector)
    graveyard.bury(owner, loop, selector)


class Owner:
    """The owner of a loop."""


def weak_reference_that_closes(graveyard: Graveyard) -> None:
    """The loop is closed when its owner is freed, at any moment."""
    loop = SelectorEventLoop()
    listener = Listener(loop, graveyard)
    for end in (weakref.ref, weakref.finalize):
        owner = Owner()
        reference = end(owner, lambda *_: loop.close())
        graveyard.bury(owner)
        del owner
        assert reference() is None
    with pytest.raises(LoopClosed):
        loop.run_once(0)
    graveyard.bury(loop, listener)


class Keeper(StreamHandler):
    """In a cycle with its stream; keeps the data it received."""

    def __init__(self, graveyard: Graveyard) -> None:
        self.graveyard = graveyard
        self.kept: list[object] = []

    def on_data(self, stream: Stream, data: bytes) -> None:
        self.graveyard.called += 1
        self.kept += [stream, data]


def serve_one_byte(loop: SelectorEventLoop, graveyard: Graveyard) -> None:
    """Leave a stream open that has been used, and a write on its way."""
    here, there = socket.socketpair()
    handler = Keeper(graveyard)
    stream = add_stream(loop, here, handler)
    with there:
        there.send(b"x")
        loop.run_once(LONG)
        assert handler.kept
        stream.write(b"y")
    graveyard.bury(loop, loop.native, handler)


def streams_in_cycles(graveyard: Graveyard) -> None:
    with SelectorEventLoop() as loop:
        serve_one_byte(loop, graveyard)


def streams_of_a_loop_that_nobody_closed(graveyard: Graveyard) -> None:
    serve_one_byte(SelectorEventLoop(), graveyard)


class Dropped(asyncio.Protocol):
    """In a cycle with its transport."""

    def __init__(self, graveyard: Graveyard) -> None:
        self.graveyard = graveyard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, _data: bytes) -> None:
        self.graveyard.called += 1
        asyncio.get_running_loop().stop()


def transports_of_a_loop_that_nobody_closed(graveyard: Graveyard) -> None:
    loop = EventLoop()
    here, there = socket.socketpair()
    protocol = Dropped(graveyard)
    with there:
        loop.run_until_complete(loop.create_connection(lambda: protocol, sock=here))
        there.send(b"x")
        loop.run_forever()
    graveyard.bury(loop, here, protocol, protocol.transport)


def server_that_nobody_stopped(graveyard: Graveyard) -> None:
    server = EchoServer(port=0)
    server.start()
    with socket.create_connection(server.address) as client:
        client.sendall(b"x")
        server.run(max_iterations=2)
        assert client.recv(1) == b"x"
    graveyard.bury(server)


def queue_and_capsules(graveyard: Graveyard) -> None:
    """A capsule keeps its memory alive; here the capsule is dropped last."""
    queue, selector = NativeQueue(), Selector()
    capsules = [queue.__fdmux_queue__(), selector.__fdmux_loop__()]
    graveyard.bury(queue, selector, selector.native)
    del queue, selector
    gc.collect()
    capsules.clear()


def in_a_thread(graveyard: Graveyard) -> None:
    def live() -> None:
        for way in (dropped_while_registered, dropped_after_a_run, streams_in_cycles):
            way(graveyard)

    threads = [threading.Thread(target=live) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)


def frozen_meanwhile(graveyard: Graveyard) -> None:
    """Frozen objects work and are not collected until unfrozen."""
    loop = SelectorEventLoop()
    listener = Listener(loop, graveyard)
    gc.freeze()
    listener.peer.send(b"x")
    assert loop.run_once(LONG) > 0
    graveyard.bury(loop, listener)
    del loop, listener
    gc.unfreeze()


WAYS: list[Drop] = [
    dropped_while_registered,
    dropped_after_a_run,
    sockets_closed_by_the_collector,
    dropped_by_its_own_callback,
    callback_dropped_in_the_same_batch,
    finalizer_that_unregisters_and_closes,
    weak_reference_that_closes,
    streams_in_cycles,
    streams_of_a_loop_that_nobody_closed,
    transports_of_a_loop_that_nobody_closed,
    server_that_nobody_stopped,
    queue_and_capsules,
    in_a_thread,
    frozen_meanwhile,
]


def check_gone(bars: Bars, title: str, rounds: int) -> None:
    """Drop objects in each way ``rounds`` times; all are freed after each."""
    before = len(os.listdir("/proc/self/fd"))
    alive: collections.Counter[str] = collections.Counter()
    called_dead = 0
    for _ in range(rounds):
        for way in WAYS:
            graveyard = Graveyard()
            way(graveyard)
            alive[way.__name__] += graveyard.alive()
            called_dead += graveyard.called_dead
    print(alive)  # noqa: T201 - which one it was
    left = len(os.listdir("/proc/self/fd")) - before
    bars.at_least(12, f"{title}: ways to be dropped", len(WAYS))
    bars.at_most(0, f"{title}: objects still alive", sum(alive.values()))
    bars.at_most(0, f"{title}: descriptors still open", left)
    bars.at_most(0, f"{title}: calls into dead objects", called_dead)


@pytest.mark.commit
@pytest.mark.slow
def test_what_nobody_holds_goes_with_its_descriptors(bars: Bars) -> None:
    check_gone(bars, "garbage", rounds=10)


@pytest.mark.nightly
def test_what_nobody_holds_goes_hundreds_of_times(bars: Bars) -> None:
    check_gone(bars, "garbage, 300 times", rounds=300)


@pytest.mark.commit
@pytest.mark.slow
def test_collector_may_run_at_any_time(bars: Bars) -> None:
    """The collector runs at every other allocation; each way still works."""
    before = len(os.listdir("/proc/self/fd"))
    graveyard = Graveyard()
    with collecting_all_the_time():
        for way in WAYS:
            if way is not frozen_meanwhile:  # all objects of the process, each time
                way(graveyard)
    title = "garbage, collecting all the time"
    bars.at_most(0, f"{title}: objects still alive", graveyard.alive())
    left = len(os.listdir("/proc/self/fd"))
    bars.at_most(0, f"{title}: descriptors still open", left - before)
    bars.at_least(len(WAYS), f"{title}: callbacks that ran", graveyard.called)
    bars.at_most(0, f"{title}: calls into dead objects", graveyard.called_dead)


@pytest.mark.commit
def test_unclosed_socket_of_a_loop_warns_once(bars: Bars) -> None:
    """Warn as the standard library's sockets do, and no more."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = SelectorEventLoop()
        loop.run_once(0)
        del loop
        gc.collect()
    others = [one for one in caught if one.category is not ResourceWarning]
    assert not others
    texts = [str(one.message) for one in caught]
    bars.at_most(0, "garbage: warnings twice", len(texts) - len(set(texts)))
    bars.at_least(1, "garbage: warnings of a loop left open", len(texts))
