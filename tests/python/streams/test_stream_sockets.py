"""The socket of a stream, and the address of its peer."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from tests.peers import reset
from tests.python.streams.recorder import LONG, Recorder, run_until

from fdmux import _delivery
from fdmux.streams.client import add_stream, connect_stream
from fdmux.streams.server import StreamServer
from fdmux.streams.stream import Stream, StreamHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fdmux.loop.event_loop import SelectorEventLoop

# ---- what is refused -----------------------------------------------------------------


def make_listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def make_closed() -> socket.socket:
    sock = socket.socket()
    sock.close()
    return sock


WRONG: dict[str, Callable[[], socket.socket]] = {
    "it is a <SocketKind.SOCK_DGRAM": lambda: socket.socket(type=socket.SOCK_DGRAM),
    "it is listening": make_listening,
    "it is not connected": socket.socket,
    "it is not connected, of ": lambda: socket.socket(socket.AF_UNIX),
    "the socket is closed": make_closed,
}


@pytest.mark.parametrize("reason", WRONG)
def test_socket_that_is_no_connection_is_refused(
    loop: SelectorEventLoop, reason: str
) -> None:
    with (
        WRONG[reason]() as sock,
        pytest.raises(ValueError, match=reason.partition(",")[0]),
    ):
        add_stream(loop, sock, StreamHandler())


def test_both_ends_of_a_datagram_pair_are_refused(loop: SelectorEventLoop) -> None:
    for sock in socket.socketpair(type=socket.SOCK_DGRAM):
        with sock, pytest.raises(ValueError, match="SOCK_DGRAM"):
            add_stream(loop, sock, StreamHandler())


def test_socket_that_carries_tls_is_refused(
    loop: SelectorEventLoop, our_end: socket.socket
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with (
        context.wrap_socket(our_end, do_handshake_on_connect=False) as secure,
        pytest.raises(TypeError, match="carries TLS"),
    ):
        add_stream(loop, secure, StreamHandler())


@pytest.mark.parametrize("thing", [5, None, "socket"])
def test_what_is_no_socket_is_refused(loop: SelectorEventLoop, thing: object) -> None:
    with pytest.raises(TypeError, match=r"must be a socket\.socket"):
        add_stream(loop, thing, StreamHandler())  # type: ignore[arg-type] # on purpose


def test_refused_socket_is_left_as_it_was(
    loop: SelectorEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    with make_listening() as listener:
        listener.settimeout(LONG)
        with pytest.raises(ValueError, match="listening"):
            add_stream(loop, listener, StreamHandler())
        assert listener.gettimeout() == LONG
        with socket.create_connection(listener.getsockname()):
            listener.accept()[0].close()
    add_stream(loop, pair[0], StreamHandler()).abort()  # the loop is as it was, too
    loop.run_once(0)


def test_connection_that_was_reset_is_taken_and_told(
    loop: SelectorEventLoop,
    ends: tuple[socket.socket, socket.socket],
    handler: Recorder,
) -> None:
    reset(ends[0])
    add_stream(loop, ends[1], handler)
    run_until(loop, lambda: handler.errors)
    assert handler.calls == ["close"]
    assert isinstance(handler.errors[0], ConnectionResetError)


# ---- who it is -----------------------------------------------------------------------


class Asks(Recorder):
    """Asks for the peer's address in `on_close`."""

    def __init__(self) -> None:
        super().__init__()
        self.peers: list[object] = []

    def on_close(self, stream: Stream, error: Exception | None) -> None:
        super().on_close(stream, error)
        self.peers.append(stream.peername)
        assert repr(stream) == f"<fdmux.Stream fd=-1 peer={stream.peername!r}>"


@pytest.fixture
def handler() -> Asks:
    return Asks()


ENDS: dict[str, Callable[[Stream, socket.socket], None]] = {
    "closed by the peer": lambda _, peer: peer.close(),
    "reset by the peer": lambda _, peer: reset(peer),
    "closed": lambda stream, _: stream.close(),
    "aborted": lambda stream, _: stream.abort(),
}


@pytest.mark.parametrize("way", ENDS)
def test_on_close_can_ask_who_it_was(
    loop: SelectorEventLoop,
    peer: socket.socket,
    stream: Stream,
    handler: Asks,
    way: str,
) -> None:
    name = peer.getsockname()
    assert repr(stream) == f"<fdmux.Stream fd={stream.fileno()} peer={name!r}>"
    ENDS[way](stream, peer)
    run_until(loop, lambda: handler.errors)
    assert handler.peers == [name]


@pytest.mark.parametrize("way", ENDS)
def test_on_close_can_ask_who_it_was_over_a_unix_socket(
    loop: SelectorEventLoop, handler: Asks, tmp_path: Path, way: str
) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        stream = connect_stream(loop, path, handler)
        accepted, _ = listener.accept()
        with accepted:
            run_until(loop, lambda: handler.calls == ["connect"])
            assert stream.peername == path
            ENDS[way](stream, accepted)
            run_until(loop, lambda: handler.errors)
    assert handler.peers == [path]


def test_on_close_can_ask_who_it_was_when_the_loop_closes(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream, handler: Asks
) -> None:
    assert not stream.is_closing
    loop.close()
    assert handler.peers == [peer.getsockname()]


@pytest.fixture(params=["127.0.0.1", "::1", "unix"])
def client(
    request: pytest.FixtureRequest, handler: Asks, tmp_path: Path
) -> Iterator[tuple[StreamServer, socket.socket]]:
    """A server, and a client with a name of its own that has just connected."""
    if request.param != "unix":
        server = StreamServer(request.param, 0, handler)
        with server, socket.create_connection(server.address, timeout=LONG) as sock:
            yield server, sock
        return
    server = StreamServer(str(tmp_path / "server"), None, handler)
    with server, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "client"))
        sock.connect(server.address[0])
        yield server, sock


@pytest.mark.parametrize("way", ["closed", "reset", "stopped"])
def test_on_close_can_ask_who_a_client_was(
    client: tuple[StreamServer, socket.socket], handler: Asks, way: str
) -> None:
    server, sock = client
    name = sock.getsockname()
    server.run(max_iterations=1)
    assert handler.calls == ["connect"]
    if way == "closed":
        sock.close()
    elif way == "reset":
        reset(sock)
    else:
        server.stop()
    while not handler.errors:
        server.run(max_iterations=1)
    assert handler.peers == [name]


def test_stream_that_was_never_bound_is_refused_not_followed() -> None:
    unbound = _delivery.Stream()
    with pytest.raises(RuntimeError, match="adopt a stream: it is not bound"):
        unbound._adopt(1)
    with pytest.raises(RuntimeError, match="set a framer: the stream is not bound"):
        unbound._framer = _delivery.delimited(b"\n", 10)
    unbound.write(b"ignored")
    unbound.abort()
    assert unbound.fileno() == -1
