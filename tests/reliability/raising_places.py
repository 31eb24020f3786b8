"""Every kind of callback in which a program may raise.

The words used here:

* a place: a kind of callback, and a function that makes `COUNT` of them ready at once.
* the trap: every callback calls it. It counts the calls, and raises once, in callback
  number `VICTIM`.

Each ready callback must be called in spite of the exception; a place says how often the
one that raised is called in all.
"""

from __future__ import annotations

import functools
import socket
from typing import TYPE_CHECKING, NamedTuple

from fdmux import StreamHandler, StreamLimits, StreamServer, add_stream, connect_stream

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from fdmux import SelectorEventLoop, Stream

    Prepare = Callable[["SelectorEventLoop", "Trap", contextlib.ExitStack], None]

COUNT = 5
VICTIM = 2
KIB = 1024


class Trap:
    """Counts the calls of each callback; raises in the victim's first call."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.counts = [0] * COUNT
        self.is_armed = True

    def pass_through(self, number: int) -> None:
        self.counts[number] += 1
        if number == VICTIM and self.is_armed:
            self.is_armed = False
            raise self.error


class Place(NamedTuple):
    """How to make its callbacks ready, and how often the victim is called."""

    prepare: Prepare
    victim_calls: int = 1


def pairs(stack: contextlib.ExitStack) -> list[tuple[socket.socket, socket.socket]]:
    made = [socket.socketpair() for _ in range(COUNT)]
    for pair in made:
        for sock in pair:
            stack.callback(sock.close)
    return made


# ---- callbacks of the loop -----------------------------------------------------------


def readers(loop: SelectorEventLoop, trap: Trap, stack: contextlib.ExitStack) -> None:
    def read(number: int, sock: socket.socket) -> None:
        trap.pass_through(number)
        sock.recv(1)

    for number, (here, there) in enumerate(pairs(stack)):
        there.send(b"x")
        loop.register_read(here, functools.partial(read, number))


def writers(loop: SelectorEventLoop, trap: Trap, stack: contextlib.ExitStack) -> None:
    def write(number: int, sock: socket.socket) -> None:
        trap.pass_through(number)
        loop.unregister_write(sock)

    for number, (here, _there) in enumerate(pairs(stack)):
        loop.register_write(here, functools.partial(write, number))


def timers(loop: SelectorEventLoop, trap: Trap, _stack: contextlib.ExitStack) -> None:
    for number in range(COUNT):
        loop.call_later(0, trap.pass_through, number)


def posted_calls(
    loop: SelectorEventLoop, trap: Trap, _stack: contextlib.ExitStack
) -> None:
    for number in range(COUNT):
        loop.call_soon_threadsafe(trap.pass_through, number)


# ---- callbacks of streams ------------------------------------------------------------


class Walker(StreamHandler):
    """Calls the trap in one of its methods; ``stream.data`` is its number."""

    def __init__(self, method: str, trap: Trap) -> None:
        self._method = method
        self._trap = trap
        self._connected = 0

    def _at(self, method: str, stream: Stream) -> None:
        if method == self._method and isinstance(stream.data, int):
            self._trap.pass_through(stream.data)

    def on_connect(self, stream: Stream) -> None:
        if stream.data is None:  # accepted by a server: numbered in that order
            stream.data = self._connected
            self._connected += 1
        self._at("on_connect", stream)

    def on_data(self, stream: Stream, data: bytes) -> bytes:
        self._at("on_data", stream)
        return data

    def on_end(self, stream: Stream) -> None:
        self._at("on_end", stream)
        stream.close()

    def on_writable(self, stream: Stream) -> None:
        self._at("on_writable", stream)

    def on_drain(self, stream: Stream) -> None:
        self._at("on_drain", stream)

    def on_close(self, stream: Stream, error: Exception | None) -> None:
        del error
        self._at("on_close", stream)


LIMITS = StreamLimits(queue_max=1024 * KIB)


def streams(
    method: str, loop: SelectorEventLoop, trap: Trap, stack: contextlib.ExitStack
) -> list[tuple[Stream, socket.socket]]:
    handler = Walker(method, trap)
    made = []
    for number, (here, there) in enumerate(pairs(stack)):
        stream = add_stream(loop, here, handler, limits=LIMITS)
        stream.data = number
        made.append((stream, there))
    return made


def on_data(loop: SelectorEventLoop, trap: Trap, stack: contextlib.ExitStack) -> None:
    for _stream, peer in streams("on_data", loop, trap, stack):
        peer.send(b"x")


def on_end(loop: SelectorEventLoop, trap: Trap, stack: contextlib.ExitStack) -> None:
    for _stream, peer in streams("on_end", loop, trap, stack):
        peer.shutdown(socket.SHUT_WR)


def with_full_queues(
    method: str, loop: SelectorEventLoop, trap: Trap, stack: contextlib.ExitStack
) -> None:
    """Fill the queue of each, then let the peers take everything at once."""
    made = streams(method, loop, trap, stack)
    for stream, _peer in made:
        stream.write(b"x" * LIMITS.queue_max)
    while loop.run_once(0):
        pass

    def take(peer: socket.socket) -> None:
        peer.recv(LIMITS.queue_max)

    for stream, peer in made:
        assert stream.buffered > LIMITS.queue_high
        loop.register_read(peer, take)
        stack.callback(loop.unregister, peer)


def on_writable(
    loop: SelectorEventLoop, trap: Trap, stack: contextlib.ExitStack
) -> None:
    with_full_queues("on_writable", loop, trap, stack)


def on_drain(loop: SelectorEventLoop, trap: Trap, stack: contextlib.ExitStack) -> None:
    with_full_queues("on_drain", loop, trap, stack)


def on_close(loop: SelectorEventLoop, trap: Trap, stack: contextlib.ExitStack) -> None:
    for stream, _peer in streams("on_close", loop, trap, stack):
        stream.close()


def on_close_after_abort(
    loop: SelectorEventLoop, trap: Trap, stack: contextlib.ExitStack
) -> None:
    for stream, _peer in streams("on_close", loop, trap, stack):
        stream.abort(ConnectionError("on purpose"))


def on_close_after_a_reset(
    loop: SelectorEventLoop, trap: Trap, stack: contextlib.ExitStack
) -> None:
    for _stream, peer in streams("on_close", loop, trap, stack):
        peer.close()


def on_connect_of_a_client(
    loop: SelectorEventLoop, trap: Trap, stack: contextlib.ExitStack
) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    handler = Walker("on_connect", trap)
    for number in range(COUNT):
        stream = connect_stream(loop, listener.getsockname(), handler)
        stream.data = number


def at_a_server(
    method: str, loop: SelectorEventLoop, trap: Trap, stack: contextlib.ExitStack
) -> None:
    """Do the same with accepted streams, whose peers send a byte and shut down."""
    handler = Walker(method, trap)
    server = stack.enter_context(StreamServer("127.0.0.1", 0, handler, loop=loop))
    for _ in range(COUNT):
        sock = stack.enter_context(socket.create_connection(server.address))
        sock.send(b"x")
        sock.shutdown(socket.SHUT_WR)


PLACES = {
    "a callback for reading": Place(readers, victim_calls=2),
    "a callback for writing": Place(writers, victim_calls=2),
    "a timer": Place(timers),
    "a posted call": Place(posted_calls),
    "on_connect of a client": Place(on_connect_of_a_client),
    "on_connect of a server": Place(functools.partial(at_a_server, "on_connect")),
    "on_data": Place(on_data),
    "on_data of a server": Place(functools.partial(at_a_server, "on_data")),
    "on_end": Place(on_end),
    "on_end of a server": Place(functools.partial(at_a_server, "on_end")),
    "on_writable": Place(on_writable),
    "on_drain": Place(on_drain),
    "on_close": Place(on_close),
    "on_close after abort": Place(on_close_after_abort),
    "on_close after a reset": Place(on_close_after_a_reset),
    "on_close of a server": Place(functools.partial(at_a_server, "on_close")),
}
