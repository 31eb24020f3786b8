"""`connect_with_timeout` with TLS: one deadline for it and the handshake."""

from __future__ import annotations

import socket
import ssl
import threading
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from fdmux.sockets.connect import connect_with_timeout
from fdmux.sockets.handshake import shake_hands
from fdmux.sockets.read import read_with_timeout
from fdmux.streams.echo import EchoServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.certificates import Certificates

LONG = 30.0


@pytest.fixture
def server(certificates: Certificates) -> Iterator[EchoServer]:
    with EchoServer(port=0, ssl=certificates.server_context()) as server:
        server.run_in_thread()
        yield server


def test_it_talks(server: EchoServer, certificates: Certificates) -> None:
    context = certificates.client_context()
    with connect_with_timeout(*server.address, LONG, ssl=context) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.gettimeout() is None
        assert sock.version() == "TLSv1.3"
        sock.sendall(b"hello")
        assert read_with_timeout(sock, 5, LONG) == b"hello"


def test_the_name_can_be_another_one(
    server: EchoServer, certificates: Certificates
) -> None:
    context = certificates.client_context()
    with connect_with_timeout(
        *server.address, LONG, ssl=context, server_hostname="localhost"
    ) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.server_hostname == "localhost"
    context.check_hostname = False
    with connect_with_timeout(
        *server.address, LONG, ssl=context, server_hostname=""
    ) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.server_hostname is None


def test_a_wrong_certificate_is_refused(
    server: EchoServer, certificates: Certificates
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        connect_with_timeout(
            *server.address,
            LONG,
            ssl=certificates.client_context(),
            server_hostname="other.example",
        )


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_the_handshake_has_the_same_deadline(
    listener: socket.socket, certificates: Certificates
) -> None:
    """The kernel connects; nobody answers."""
    host, port = listener.getsockname()
    with pytest.raises(TimeoutError, match="the TLS handshake timed out after 1/50 s"):
        connect_with_timeout(
            host, port, Fraction(1, 50), ssl=certificates.client_context()
        )


def test_a_peer_that_leaves_in_the_handshake(
    listener: socket.socket, certificates: Certificates
) -> None:
    def leave() -> None:
        listener.accept()[0].close()

    host, port = listener.getsockname()
    thread = threading.Thread(target=leave)
    thread.start()
    with pytest.raises(OSError, match=r"reset|EOF|closed"):
        connect_with_timeout(host, port, LONG, ssl=certificates.client_context())
    thread.join()


def test_wrong_arguments(server: EchoServer, certificates: Certificates) -> None:
    with pytest.raises(TypeError, match=r"an ssl\.SSLContext"):
        connect_with_timeout(*server.address, ssl=True)  # type: ignore[arg-type] # wrong
    with pytest.raises(ValueError, match="pass ssl"):
        connect_with_timeout(*server.address, server_hostname="localhost")
    context = certificates.client_context()
    with pytest.raises(ValueError, match="server_hostname"):
        connect_with_timeout(*server.address, ssl=context, server_hostname="")


class FullSocket:
    """Its first step cannot send."""

    def __init__(self, sock: socket.socket) -> None:
        self.fileno = sock.fileno
        self.steps = 0

    def do_handshake(self) -> None:
        self.steps += 1
        if self.steps == 1:
            raise ssl.SSLWantWriteError


def test_a_full_socket_is_waited_for() -> None:
    here, there = socket.socketpair()
    with here, there:
        full = FullSocket(here)
        shake_hands(full, float("inf"))  # type: ignore[arg-type] # what it uses of one
        assert full.steps == 2
