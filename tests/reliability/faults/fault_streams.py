"""Scenarios of streams, servers and pools, each for a failing call.

As fault_scenarios.py. A stream may end with the error of the failed call, which
`on_close` gets, once; if it does not end, no byte is lost.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import uuid
from typing import TYPE_CHECKING

from tests.reliability.faults.fault_plans import explain, scenario
from tests.reliability.faults.fault_scenarios import check_loop, open_loop, open_pair

from fdmux import (
    ClientPool,
    EchoServer,
    SelectorEventLoop,
    Stream,
    StreamHandler,
    StreamServer,
    add_stream,
    connect_stream,
)
from fdmux._ffi import lib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.reliability.faults.fault_plans import Attempt

SOME = b"some bytes"
MUCH = bytes(range(256)) * 800  # 200 KiB: more than the kernel takes from one
SHORT = 0.003
ROUNDS = 200


class Witness(StreamHandler):
    """Records its callbacks."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.connected = 0
        self.ended = 0
        self.closed = 0

    def on_connect(self, _stream: Stream) -> None:
        self.connected += 1

    def on_data(self, _stream: Stream, data: bytes) -> None:
        self.data += data

    def on_end(self, _stream: Stream) -> None:
        self.ended += 1

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        self.closed += 1
        explain(error)


def iterate(loop: SelectorEventLoop, count: int = 4) -> None:
    for _ in range(count):
        loop.run_once(0)


def run_until(loop: SelectorEventLoop, is_done: Callable[[], object]) -> None:
    """Iterate past a deferred error, and past a back-off of seconds."""
    for round_number in range(ROUNDS):
        if is_done():
            return
        with contextlib.suppress(OSError, MemoryError):
            loop.run_once(SHORT if round_number else 0)
        if round_number % 8 == 7:
            lib.fdmux_py_stream_tick(loop.native._c_loop, 1)
    raise AssertionError("it did not happen")


def receive_all(sock: socket.socket, into: bytearray) -> bool:
    """Receive what has arrived; return whether the other side ended."""
    with contextlib.suppress(BlockingIOError):
        try:
            while chunk := sock.recv(65536):
                into += chunk
        except ConnectionError:
            pass
        return True
    return False


def check_end(loop: SelectorEventLoop, stream: Stream, witness: Witness) -> None:
    """Check that the stream ends when closed, and calls `on_close` once."""
    stream.abort()
    run_until(loop, lambda: witness.closed)
    iterate(loop)
    assert witness.closed == 1
    assert stream.fileno() == -1


@contextlib.contextmanager
def open_stream(
    backend: str,
) -> Iterator[tuple[SelectorEventLoop, Stream, Witness, socket.socket]]:
    """A stream that works, and its peer; afterwards the loop still works."""
    with open_loop(backend) as loop, open_pair() as (left, right):
        witness = Witness()
        stream = add_stream(loop, left, witness)
        iterate(loop, 1)
        yield loop, stream, witness, right
        check_end(loop, stream, witness)
        check_loop(loop)


# ---- streams -------------------------------------------------------------------------


@scenario
def adding_a_stream(backend: str) -> Iterator[Attempt]:
    with open_loop(backend) as loop, open_pair() as (left, right):
        witness = Witness()
        made: list[Stream] = []
        yield lambda: made.append(add_stream(loop, left, witness))
        if not made:
            assert left.fileno() >= 0, "it is still the caller's"
            made.append(add_stream(loop, left, witness))
        right.send(SOME)
        run_until(loop, lambda: witness.closed or witness.data == SOME)
        check_end(loop, made[0], witness)
        check_loop(loop)


@scenario
def connecting_a_stream(backend: str) -> Iterator[Attempt]:
    with open_loop(backend) as loop, socket.create_server(("127.0.0.1", 0)) as listener:
        witness = Witness()
        made: list[Stream] = []

        def attempt() -> None:
            made.append(connect_stream(loop, listener.getsockname(), witness))
            iterate(loop)

        yield attempt
        if made:
            run_until(loop, lambda: witness.closed or witness.connected)
            check_end(loop, made[0], witness)
        check_loop(loop)


@scenario
def receiving(backend: str) -> Iterator[Attempt]:
    with open_stream(backend) as (loop, _stream, witness, peer):
        peer.send(SOME)
        yield lambda: iterate(loop)
        run_until(loop, lambda: witness.closed or witness.data == SOME)


@scenario
def receiving_the_end(backend: str) -> Iterator[Attempt]:
    with open_stream(backend) as (loop, _stream, witness, peer):
        peer.send(SOME)
        peer.shutdown(socket.SHUT_WR)
        yield lambda: iterate(loop)
        run_until(loop, lambda: witness.closed or witness.ended)
        assert witness.closed or witness.data == SOME


@scenario
def writing(backend: str) -> Iterator[Attempt]:
    with open_stream(backend) as (loop, stream, witness, peer):
        got = bytearray()

        def attempt() -> None:
            stream.write(SOME)
            iterate(loop)

        yield attempt
        run_until(loop, lambda: receive_all(peer, got) or witness.closed or got == SOME)
        assert SOME.startswith(got)


@scenario
def writing_more_than_is_taken(backend: str) -> Iterator[Attempt]:
    with open_stream(backend) as (loop, stream, witness, peer):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        got = bytearray()

        def attempt() -> None:
            stream.write(MUCH)
            iterate(loop)

        yield attempt
        run_until(
            loop,
            lambda: receive_all(peer, got) or witness.closed or len(got) == len(MUCH),
        )
        assert MUCH.startswith(got)


@scenario
def pausing(backend: str) -> Iterator[Attempt]:
    with open_stream(backend) as (loop, stream, witness, peer):
        peer.send(SOME)

        def attempt() -> None:
            stream.pause_reading()
            iterate(loop)
            stream.resume_reading()
            iterate(loop)

        yield attempt
        stream.resume_reading()
        run_until(loop, lambda: witness.closed or witness.data == SOME)


@scenario
def shutting_down(backend: str) -> Iterator[Attempt]:
    with open_stream(backend) as (loop, stream, witness, peer):
        got = bytearray()

        def attempt() -> None:
            stream.write(SOME)
            stream.shutdown()
            iterate(loop)

        yield attempt
        run_until(loop, lambda: receive_all(peer, got) or witness.closed)
        assert SOME.startswith(got)


@scenario
def closing_after_writing(backend: str) -> Iterator[Attempt]:
    with open_stream(backend) as (loop, stream, witness, peer):
        got = bytearray()

        def attempt() -> None:
            stream.write(SOME)
            stream.close()
            iterate(loop)

        yield attempt
        run_until(loop, lambda: receive_all(peer, got))
        run_until(loop, lambda: witness.closed)
        assert SOME.startswith(got)


@scenario
def aborting(backend: str) -> Iterator[Attempt]:
    with open_stream(backend) as (loop, stream, witness, _peer):

        def attempt() -> None:
            stream.write(SOME)
            stream.abort()
            iterate(loop)

        yield attempt
        run_until(loop, lambda: witness.closed)


@scenario
def streams_on_a_stdlib_selector(_backend: str) -> Iterator[Attempt]:
    import selectors  # noqa: PLC0415 - a namesake of ours is the subject here

    with (
        open_pair() as (left, right),
        SelectorEventLoop(selectors.SelectSelector()) as loop,
    ):
        witness = Witness()
        made: list[Stream] = []

        def attempt() -> None:
            made.append(add_stream(loop, left, witness))
            right.send(SOME)
            iterate(loop)

        yield attempt
        if made:
            run_until(loop, lambda: witness.closed or witness.data == SOME)
            check_end(loop, made[0], witness)
        check_loop(loop)


# ---- servers -------------------------------------------------------------------------


def check_server(loop: SelectorEventLoop, server: EchoServer) -> None:
    """Check that the server serves a new client.

    If the listener itself has failed (the kernel does not watch it any more), the
    server can be started again.
    """
    if server._listener is not None and server._listener.is_spent:
        explain(server._listener.failure)
        server.stop()
        server.start()
    got = bytearray()
    with socket.create_connection(server.address) as client:
        client.setblocking(False)
        client.send(SOME)
        run_until(loop, lambda: receive_all(client, got) or got == SOME)
    assert got == SOME
    iterate(loop)


@scenario
def starting_a_server(backend: str) -> Iterator[Attempt]:
    with open_loop(backend) as loop:
        server = EchoServer(port=0, loop=loop)
        yield server.start
        with server:
            check_server(loop, server)
        check_loop(loop)


@scenario
def starting_a_server_with_a_loop_of_its_own(_backend: str) -> Iterator[Attempt]:
    server = EchoServer(port=0)
    yield server.start
    with server:
        assert server.address[1] > 0


@scenario
def starting_a_server_at_a_path(backend: str) -> Iterator[Attempt]:
    path = f"/tmp/fdmux-{uuid.uuid4().hex}"  # noqa: S108 - no guessable name
    with open_loop(backend) as loop:
        server = StreamServer(path, None, Witness(), loop=loop)
        yield server.start
        with server, socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            iterate(loop)
        iterate(loop)
        check_loop(loop)


@scenario
def serving(backend: str) -> Iterator[Attempt]:
    with open_loop(backend) as loop, EchoServer(port=0, loop=loop) as server:
        with socket.create_connection(server.address) as client:
            client.setblocking(False)
            client.send(SOME)
            got = bytearray()
            yield lambda: iterate(loop)
            run_until(loop, lambda: receive_all(client, got) or got == SOME)
            assert SOME.startswith(got)
        check_server(loop, server)


@scenario
def serving_many(backend: str) -> Iterator[Attempt]:
    with (
        open_loop(backend) as loop,
        EchoServer(port=0, loop=loop) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = [
            stack.enter_context(socket.create_connection(server.address))
            for _ in range(5)
        ]
        for client in clients:
            client.send(SOME)
            client.shutdown(socket.SHUT_WR)
        yield lambda: iterate(loop)
        run_until(loop, lambda: all_have_ended(clients))
        check_server(loop, server)


def all_have_ended(clients: list[socket.socket]) -> bool:
    """Return whether each client got its bytes, or the end of its stream."""
    for client in list(clients):
        client.setblocking(False)
        if receive_all(client, bytearray()):
            clients.remove(client)
    return not clients


@scenario
def stopping_a_server(backend: str) -> Iterator[Attempt]:
    with open_loop(backend) as loop:
        server = EchoServer(port=0, loop=loop)
        server.start()
        with socket.create_connection(server.address) as client:
            client.setblocking(False)
            iterate(loop)
            yield server.stop
            server.stop()
            run_until(loop, lambda: receive_all(client, bytearray()))
        check_loop(loop)


# ---- clients -------------------------------------------------------------------------


def echo_plainly(listener: socket.socket) -> None:
    """Serve one client after the other without fdmux, until the listener is closed."""
    with contextlib.suppress(OSError):
        while True:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):
                while chunk := sock.recv(4096):
                    sock.sendall(chunk)


@contextlib.contextmanager
def open_plain_server() -> Iterator[tuple[str, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=echo_plainly, args=(listener,))
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


@scenario
def making_a_pool(_backend: str) -> Iterator[Attempt]:
    made: list[ClientPool] = []
    yield lambda: made.append(ClientPool("127.0.0.1", 9))
    for pool in made:
        pool.close()


@scenario
def exchanging(backend: str) -> Iterator[Attempt]:
    """A failure in between becomes the outcome of the message."""
    with (
        open_plain_server() as address,
        open_loop(backend) as loop,
        ClientPool(*address, size=1, timeout=0.1, loop=loop) as pool,
    ):
        yield lambda: pool.exchange([SOME, SOME], reply=len(SOME), return_errors=True)
        with contextlib.suppress(OSError, MemoryError):
            loop.run_once(0)
        pool.exchange([SOME], reply=len(SOME), return_errors=True)  # of a broken one
        assert pool.exchange([SOME], reply=len(SOME)) == [SOME]


@scenario
def connecting_to_nobody(backend: str) -> Iterator[Attempt]:
    with open_loop(backend) as loop, socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # and does not listen
        errors: list[Exception | None] = []

        class Refused(Witness):
            def on_close(self, _stream: Stream, error: Exception | None) -> None:
                self.closed += 1
                errors.append(error)

        witness = Refused()

        def attempt() -> None:
            connect_stream(loop, unheard.getsockname(), witness)
            iterate(loop)

        yield attempt
        for _ in range(3):
            with contextlib.suppress(OSError, MemoryError):
                loop.run_once(0)
        assert len(errors) <= 1
        check_loop(loop)
