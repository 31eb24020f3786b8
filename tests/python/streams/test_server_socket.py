"""`StreamServer(sock=...)`: a server on a socket that listens already."""

from __future__ import annotations

import re
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from tests.python.streams.recorder import LONG, Recorder

from fdmux.streams.listener import Listener
from fdmux.streams.server import StreamServer

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

    from tests.certificates import Certificates

    from fdmux.streams.stream import Stream

ANY = "127.0.0.1"


class Echo(Recorder):
    def on_data(self, _stream: Stream, data: bytes) -> bytes:
        return data


def echo_once(address: object, family: int = socket.AF_INET) -> None:
    with socket.socket(family) as sock:
        sock.settimeout(LONG)
        sock.connect(address)  # type: ignore[arg-type] # of either family
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


def test_server_takes_the_socket_over_and_closes_it() -> None:
    sock = socket.create_server((ANY, 0))
    where = sock.getsockname()
    with StreamServer(sock=sock, handler=Echo()) as server:
        server.run_in_thread()
        assert server.address == where
        assert sock.fileno() < 0
        echo_once(where)
    with pytest.raises(ConnectionRefusedError):
        echo_once(where)
    with pytest.raises(ValueError, match="the socket is closed"):
        server.start()


def test_duplicate_keeps_the_port_open() -> None:
    """What connects between two servers waits in the kernel."""
    with socket.create_server((ANY, 0)) as kept:
        for _ in range(2):
            with socket.socket() as early:
                early.settimeout(LONG)
                early.connect(kept.getsockname())
                early.sendall(b"x")
                with StreamServer(sock=kept.dup(), handler=Echo()) as server:
                    server.run_in_thread()
                    assert early.recv(1) == b"x"


def test_inherited_socket_with_tls(certificates: Certificates) -> None:
    sock = socket.create_server((ANY, 0))
    context = certificates.server_context()
    with StreamServer(sock=sock, handler=Echo(), ssl=context) as server:
        server.run_in_thread()
        with (
            socket.create_connection(server.address, timeout=LONG) as plain,
            certificates.client_context().wrap_socket(
                plain, server_hostname="localhost"
            ) as encrypted,
        ):
            encrypted.sendall(b"x")
            assert encrypted.recv(1) == b"x"
            encrypted.unwrap()


@pytest.mark.parametrize("name", ["file", "abstract"])
def test_unix_socket(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "socket") if name == "file" else "\0fdmux-test-abstract"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    with StreamServer(sock=sock, handler=Echo()) as server:
        server.run_in_thread()
        assert server.address == (path, 0)
        echo_once(path, socket.AF_UNIX)
    # Who made the file removes it: another server may have the socket too.
    assert (tmp_path / "socket").exists() == (name == "file")


def test_ipv6_socket() -> None:
    try:
        sock = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with StreamServer(sock=sock, handler=Echo()) as server:
        server.run_in_thread()
        echo_once(server.address, socket.AF_INET6)


def test_start_that_fails_leaves_the_socket_to_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_arguments: object) -> NoReturn:
        raise OSError(12, "no memory")

    monkeypatch.setattr(Listener, "_take_over", refuse)
    with socket.create_server((ANY, 0)) as sock:
        sock.settimeout(7)
        server = StreamServer(sock=sock, handler=Echo())
        with pytest.raises(OSError, match="no memory"):
            server.start()
        assert sock.fileno() >= 0
        assert sock.gettimeout() == 7
        monkeypatch.undo()
        with server:
            server.run_in_thread()
            echo_once(server.address)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (socket.SOCK_STREAM, r"serve on fd \d+: it is not listening"),
        (socket.SOCK_DGRAM, r"serve on fd \d+: it is a .*SOCK_DGRAM.*, not a stream"),
    ],
)
def test_socket_that_does_not_listen(kind: int, text: str) -> None:
    with (
        socket.socket(type=kind) as sock,
        pytest.raises(ValueError, match=text),
    ):
        StreamServer(sock=sock, handler=Echo())


def test_closed_socket() -> None:
    sock = socket.create_server((ANY, 0))
    sock.close()
    with pytest.raises(ValueError, match="serve on fd -1: the socket is closed"):
        StreamServer(sock=sock, handler=Echo())


def test_socket_with_tls() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with (
        context.wrap_socket(socket.create_server((ANY, 0)), server_side=True) as sock,
        pytest.raises(TypeError, match="it carries TLS"),
    ):
        StreamServer(sock=sock, handler=Echo())


def test_what_is_no_socket() -> None:
    with pytest.raises(TypeError, match=re.escape("serve on 3: it must be a socket")):
        StreamServer(sock=3, handler=Echo())  # type: ignore[call-overload] # that is the test


def test_socket_and_address() -> None:
    with socket.create_server((ANY, 0)) as sock:
        for more in ({"host": ANY}, {"port": 0}, {"reuse_port": True}):
            with pytest.raises(ValueError, match=r"fd \d+: it is bound already"):
                StreamServer(sock=sock, handler=Echo(), **more)


def test_handler_is_missing() -> None:
    with (
        socket.create_server((ANY, 0)) as sock,
        pytest.raises(TypeError, match="handler is None"),
    ):
        StreamServer(sock=sock)  # type: ignore[call-overload] # that is the test
    with pytest.raises(ValueError, match="host is None"):
        StreamServer(handler=Echo())  # type: ignore[call-overload] # that is the test
