"""The echo server as its clients see it."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.peers import receive, reset

from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.echo import EchoServer
from fdmux.streams.limits import ServerLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.python.conftest import SelectorFactory

    Serve = Callable[[ServerLimits], EchoServer]

LONG = 30.0
DEFAULTS = ServerLimits()


@pytest.fixture
def serve(
    selector_factory: SelectorFactory,
) -> Iterator[Serve]:
    """Start a server with these limits in a thread, on every selector."""
    running: list[tuple[EchoServer, SelectorEventLoop]] = []

    def start(limits: ServerLimits) -> EchoServer:
        loop = SelectorEventLoop(selector_factory())
        server = EchoServer(port=0, limits=limits, loop=loop)
        running.append((server, loop))
        server.run_in_thread()
        return server

    yield start
    for server, loop in running:
        server.__exit__(None, None, None)
        loop.close()


def connect(server: EchoServer) -> socket.socket:
    return socket.create_connection(server.address, timeout=LONG)


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_message_comes_back(serve: Serve) -> None:
    with connect(serve(DEFAULTS)) as sock:
        for size in (1, 4096, 4097, 100_000):
            message = random.Random(size).randbytes(size)
            sock.sendall(message)
            assert receive(sock, size) == message


def test_hundred_clients_get_their_own_bytes(serve: Serve) -> None:
    server = serve(DEFAULTS)
    socks = [connect(server) for _ in range(100)]
    for turn in range(3):
        for i, sock in enumerate(socks):
            sock.sendall(b"%d:%d" % (turn, i))
        for i, sock in enumerate(socks):
            expected = b"%d:%d" % (turn, i)
            assert receive(sock, len(expected)) == expected
    assert server.stats.open == 100
    for sock in socks:
        sock.close()


def test_client_that_reads_late_gets_every_byte_and_others_are_unharmed(
    serve: Serve,
) -> None:
    """A server that calls sendall on a non-blocking socket would die here."""
    server = serve(DEFAULTS)
    size = 32 * 1024 * 1024
    block = random.Random(1).randbytes(1024 * 1024)
    sent, received = hashlib.sha256(), hashlib.sha256()

    def send_all(sock: socket.socket) -> None:
        for i in range(size // len(block)):
            data = bytes([i]) + block[1:]
            sock.sendall(data)
            sent.update(data)
        sock.shutdown(socket.SHUT_WR)

    with connect(server) as slow, connect(server) as other:
        sender = threading.Thread(target=send_all, args=(slow,))
        sender.start()
        limits = DEFAULTS
        while server.stats.bytes_queued < limits.queue_high:  # until it is clogged
            other.sendall(b"ping")
            assert receive(other, 4) == b"ping"
        for _ in range(100):
            other.sendall(b"ping")
            assert receive(other, 4) == b"ping"
        assert server.stats.bytes_queued <= limits.queue_max
        count = 0
        while chunk := slow.recv(1 << 20):
            received.update(chunk)
            count += len(chunk)
        sender.join()
    assert count == size
    assert received.digest() == sent.digest()


def test_end_of_stream_flushes_then_closes(serve: Serve) -> None:
    with connect(serve(DEFAULTS)) as sock:
        sock.sendall(b"x" * 300_000)
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock, 300_000) == b"x" * 300_000
        assert sock.recv(1) == b""


def test_reset_while_much_is_queued_ends_that_connection_alone(
    serve: Serve,
) -> None:
    server = serve(DEFAULTS)
    with connect(server) as other:
        rude = connect(server)
        rude.setblocking(False)
        while server.stats.bytes_queued < 65536:
            with contextlib.suppress(BlockingIOError):
                rude.send(b"x" * 65536)
            other.sendall(b"tick")
            receive(other, 4)
        reset(rude)
        while server.stats.open > 1:
            other.sendall(b"ping")
            assert receive(other, 4) == b"ping"
        stats = server.stats
    assert stats.errors == 1
    assert stats.bytes_queued == 0
    assert stats.bytes_dropped > 0


def test_client_beyond_the_maximum_is_closed_at_once(
    serve: Serve,
) -> None:
    server = serve(ServerLimits(connection_max=3))
    socks = []
    for _ in range(3):
        socks.append(connect(server))
        socks[-1].sendall(b"x")
        receive(socks[-1], 1)
    with connect(server) as refused:
        assert refused.recv(1) == b""
    assert server.stats.refused == 1
    for sock in socks:
        sock.sendall(b"y")
        assert receive(sock, 1) == b"y"
        sock.close()


def test_total_bound_closes_the_longest_queues_and_no_other(
    serve: Serve,
) -> None:
    server = serve(
        ServerLimits(
            total_max=16_000,
            queue_high=8_000,
            queue_low=1_000,
            queue_max=16_000,
        )
    )
    with connect(server) as other:
        greedy = [connect(server) for _ in range(30)]
        while server.stats.overrun == 0:
            for sock in greedy:
                sock.setblocking(False)
                with contextlib.suppress(OSError):  # blocked, or closed by now
                    sock.send(b"x" * 65536)
            other.sendall(b"ping")
            assert receive(other, 4) == b"ping"
        assert server.stats.bytes_queued <= 16_000
        for sock in greedy:
            sock.close()


def test_stats_add_up(serve: Serve) -> None:
    server = serve(DEFAULTS)
    with connect(server) as sock:
        sock.sendall(b"x" * 1000)
        receive(sock, 1000)
        assert server.stats.open == 1
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    with connect(server) as sock:  # answered after the first client was closed
        sock.sendall(b"x")
        receive(sock, 1)
        stats = server.stats
    assert (stats.accepted, stats.open, stats.refused, stats.errors) == (2, 1, 0, 0)
    assert (stats.bytes_in, stats.bytes_out, stats.bytes_queued) == (1001, 1001, 0)


def test_dribbling_and_bursting_clients_keep_their_order(
    serve: Serve,
) -> None:
    """Seeded sizes of sends and reads on both sides of every mark."""
    server = serve(ServerLimits(queue_high=5000, queue_low=1000, queue_max=10_000))
    order = random.Random(3)
    data = order.randbytes(1_000_000)
    with connect(server) as sock:
        sock.setblocking(False)
        sent, back = 0, bytearray()
        while len(back) < len(data):
            with contextlib.suppress(BlockingIOError):
                sent += sock.send(data[sent : sent + order.randrange(1, 60_000)])
            with contextlib.suppress(BlockingIOError):
                back += sock.recv(order.randrange(1, 60_000))
    assert bytes(back) == data


def test_descriptors_return_to_what_they_were(
    serve: Serve,
) -> None:
    server = serve(DEFAULTS)
    with connect(server) as sock:
        sock.sendall(b"x")
        receive(sock, 1)
        before = count_descriptors()
        for i in range(50):
            with connect(server) as passer_by:
                passer_by.sendall(b"x")
                receive(passer_by, 1)
                if i % 2:
                    reset(passer_by)
        while server.stats.open > 1:
            sock.sendall(b"x")
            receive(sock, 1)
        # The loop may have opened its timer by now.
        assert count_descriptors() - before in (0, 1)
