"""A server loses no byte and no end, in whatever way its clients use a connection.

Clients send bytes one by one and in bursts, close their windows, end or reset at every
point, and come in storms. What comes back is what was sent; every byte that a server
received is answered, or counted as dropped; every connection ends once. Our own clients
get `on_close` for each end as well.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.peers import deaf_address, receive, reset
from tests.reliability.network_shapes import (
    KIB,
    LONG,
    SHAPES,
    Network,
    burst,
    receive_all,
    storm_of_closes,
    storm_of_messages_without_a_reader,
    storm_of_resets,
)

from fdmux import (
    Selector,
    SelectorEventLoop,
    StreamHandler,
    StreamLimits,
    connect_stream,
    connect_with_timeout,
)
from fdmux._native import backend_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.reliability.conftest import Bars
    from tests.reliability.network_shapes import Shape

    from fdmux import Stream

    Peer = Callable[[socket.socket], None]

FAMILIES = {
    "IPv4": socket.AF_INET,
    "IPv6": socket.AF_INET6,
    "Unix": socket.AF_UNIX,
}
BACKENDS = backend_names()
# What a peer can do to a connection, by the kernel's name for it.
OF_THE_PEER = {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN}


def needs_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")


def unexpected(errors: list[Exception]) -> list[Exception]:
    return [one for one in errors if getattr(one, "errno", None) not in OF_THE_PEER]


def go_through(
    bars: Bars, title: str, net: Network, shapes: list[Shape], log: list[str]
) -> None:
    """Run each shape, then check the books."""
    with contextlib.closing(net):
        for shape in shapes:
            wrong = net.wrong
            shape(net)
            if net.wrong != wrong:
                print(shape)  # noqa: T201 - which one it was
        net.close()
        stats, books = net.server.stats, net.books
    print(stats, log, unexpected(books.errors))  # noqa: T201 - what is wrong
    bars.at_least(net.compared, f"{title}: bytes received", books.received)
    bars.at_most(0, f"{title}: answers with other bytes", net.wrong)
    untold = abs(stats.bytes_in - books.received)
    bars.at_most(0, f"{title}: bytes received, told to nobody", untold)
    lost = abs(books.answered - stats.bytes_out - stats.bytes_dropped)
    bars.at_most(0, f"{title}: bytes neither sent nor counted as dropped", lost)
    bars.at_least(net.connections, f"{title}: connections", stats.accepted)
    bars.at_most(0, f"{title}: without one end", abs(stats.accepted - books.ends))
    strange = len(unexpected(books.errors)) + len(log)
    bars.at_most(0, f"{title}: errors that no peer has made", strange)
    bars.at_most(0, f"{title}: left open", stats.open + stats.bytes_queued)


@pytest.mark.commit
@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_server_bears_every_shape(
    bars: Bars,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    family: str,
    backend: str,
) -> None:
    if family == "IPv6":
        needs_ipv6()
    caplog.set_level(logging.WARNING)
    with SelectorEventLoop(Selector(backend)) as loop:
        net = Network(loop, FAMILIES[family], str(tmp_path / "socket"))
        title = f"{len(SHAPES)} shapes, {family}, {backend}"
        go_through(bars, title, net, SHAPES, caplog.messages)


@pytest.mark.nightly
@pytest.mark.parametrize("family", FAMILIES)
def test_server_bears_bursts_and_storms(
    bars: Bars, tmp_path: Path, caplog: pytest.LogCaptureFixture, family: str
) -> None:
    if family == "IPv6":
        needs_ipv6()
    shapes: list[Shape] = [
        functools.partial(burst, size=64 * KIB * KIB),
        functools.partial(storm_of_closes, count=5000),
        functools.partial(storm_of_resets, count=5000),
        functools.partial(storm_of_messages_without_a_reader, count=5000),
    ]
    with SelectorEventLoop() as loop:
        net = Network(loop, FAMILIES[family], str(tmp_path / "socket"))
        title = f"64 MiB and 15,000 connections, {family}"
        go_through(bars, title, net, shapes, caplog.messages)


# ---- our own clients, and what peers do to them --------------------------------------

GREETING = b"hello"
MUCH = b"0123456789" * 30_000
PATIENCE = 0.5


class Client(StreamHandler):
    """Greets; records what arrives and each end."""

    def __init__(self) -> None:
        self.came = bytearray()
        self.errors: list[Exception | None] = []

    def on_connect(self, stream: Stream) -> None:
        stream.write(GREETING)

    def on_data(self, _stream: Stream, data: bytes) -> None:
        self.came += data

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        self.errors.append(error)


def ends(sock: socket.socket) -> None:
    assert receive(sock, len(GREETING)) == GREETING
    sock.close()


def ends_without_reading(sock: socket.socket) -> None:
    sock.close()


def answers_and_ends(sock: socket.socket) -> None:
    assert receive(sock, len(GREETING)) == GREETING
    sock.sendall(MUCH)
    sock.close()


def answers_byte_by_byte(sock: socket.socket) -> None:
    assert receive(sock, len(GREETING)) == GREETING
    for number in range(100):
        sock.send(bytes([number]))
    sock.close()


def ends_its_side(sock: socket.socket) -> None:
    """End this side; then the client sends the rest and ends its own."""
    sock.shutdown(socket.SHUT_WR)
    assert receive_all(sock) == GREETING
    sock.close()


def resets(sock: socket.socket) -> None:
    reset(sock)


def answers_and_resets(sock: socket.socket) -> None:
    assert receive(sock, len(GREETING)) == GREETING
    sock.sendall(b"x")
    reset(sock)


# For each peer: the most and the least that arrives, and how the stream may end. A Unix
# socket is reset only if something was left unread.
PEERS: list[tuple[Peer, bytes, bytes, set[type | None]]] = [
    (ends, b"", b"", {None}),
    (ends_without_reading, b"", b"", {None, ConnectionResetError, BrokenPipeError}),
    (answers_and_ends, MUCH, MUCH, {None}),
    (answers_byte_by_byte, bytes(range(100)), bytes(range(100)), {None}),
    (ends_its_side, b"", b"", {None}),
    (resets, b"", b"", {None, ConnectionResetError, BrokenPipeError}),
    (answers_and_resets, b"x", b"", {None, ConnectionResetError}),
]


def listen(family: str, path: str) -> socket.socket:
    if family == "Unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        sock.listen()
        return sock
    host = "127.0.0.1" if family == "IPv4" else "::1"
    return socket.create_server((host, 0), family=FAMILIES[family])


def meet(loop: SelectorEventLoop, listener: socket.socket, peer: Peer) -> Client:
    """Connect a client of ours to ``peer``, and wait for its `on_close`."""
    client = Client()
    name = listener.getsockname()
    connect_stream(loop, name if isinstance(name, str) else name[:2], client)

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(LONG)
            peer(sock)

    thread = threading.Thread(target=serve)
    thread.start()
    deadline = time.monotonic() + LONG
    while not client.errors and time.monotonic() < deadline:
        loop.run_once(1.0)
    thread.join()
    loop.run_once(0)  # whatever should not come any more
    return client


@pytest.mark.commit
@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_clients_are_told_how_it_ended(
    bars: Bars, tmp_path: Path, family: str, backend: str
) -> None:
    if family == "IPv6":
        needs_ipv6()
    wrong = strange = not_once = 0
    with (
        listen(family, str(tmp_path / "peer")) as listener,
        SelectorEventLoop(Selector(backend)) as loop,
    ):
        for peer, most, least, endings in PEERS:
            client = meet(loop, listener, peer)
            came = bytes(client.came)
            wrong += not (most.startswith(came) and came.startswith(least))
            not_once += len(client.errors) != 1
            kinds = {None if one is None else type(one) for one in client.errors}
            strange += not kinds <= endings
            print(peer.__name__, client.errors)  # noqa: T201 - which one it was
    title = f"clients and {len(PEERS)} peers, {family}, {backend}"
    bars.at_most(0, f"{title}: wrong bytes", wrong)
    bars.at_most(0, f"{title}: without one end", not_once)
    bars.at_most(0, f"{title}: another end", strange)


@pytest.fixture
def deaf() -> Iterator[tuple[str, int]]:
    with deaf_address() as address:
        yield address


@pytest.fixture
def closed() -> Iterator[tuple[str, int]]:
    """An address that refuses: the port is bound and nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


@pytest.mark.commit
@pytest.mark.slow
def test_connects_that_nobody_answers_end_in_time(
    bars: Bars, deaf: tuple[str, int]
) -> None:
    with SelectorEventLoop() as loop:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            connect_with_timeout(*deaf, PATIENCE)
        late = [time.monotonic() - start - PATIENCE]
        client = Client()
        limits = StreamLimits(idle_timeout=PATIENCE)
        start = time.monotonic()
        connect_stream(loop, deaf, client, limits=limits)
        while not client.errors:
            loop.run_once(LONG)
        late.append(time.monotonic() - start - PATIENCE)
        assert isinstance(client.errors[0], TimeoutError)
    title = "connects without an answer, after their timeout"
    bars.at_least(0, f"{title}: the earliest end", min(late), "s")
    # Streams keep their timeouts to half a second; the machine may be busy.
    bars.at_most(0.5, f"{title}: of connect_with_timeout", late[0], "s")
    bars.at_most(1.5, f"{title}: of connect_stream", late[1], "s")


@pytest.mark.commit
def test_connects_that_are_refused_say_so_at_once(
    bars: Bars, closed: tuple[str, int]
) -> None:
    with SelectorEventLoop() as loop:
        start = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            connect_with_timeout(*closed, LONG)
        client = Client()
        connect_stream(loop, closed, client)
        while not client.errors:
            loop.run_once(LONG)
        assert isinstance(client.errors[0], ConnectionRefusedError)
        with pytest.raises(FileNotFoundError):
            connect_stream(loop, "/nowhere/at/all", client)
        took = time.monotonic() - start
    bars.at_most(1, "connects that are refused: until they said so", took, "s")
