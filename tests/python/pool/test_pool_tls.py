"""`ClientPool` over TLS."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from fdmux.pool.outcome import ExchangeConnectionError, ExchangeTimeoutError
from fdmux.pool.pool import ClientPool
from fdmux.streams.echo import EchoServer
from fdmux.streams.server import StreamServer
from fdmux.streams.stream import StreamHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.certificates import Certificates

    from fdmux.streams.stream import Stream

pytestmark = pytest.mark.usefixtures("way")

LONG = 30.0


@pytest.fixture
def server(certificates: Certificates) -> Iterator[EchoServer]:
    with EchoServer(port=0, ssl=certificates.server_context()) as server:
        server.run_in_thread()
        yield server


def test_messages_get_their_replies(
    server: EchoServer, certificates: Certificates
) -> None:
    messages = [b"%d " % i * 5_000 + b"\n" for i in range(30)]
    context = certificates.client_context()
    with ClientPool(*server.address, 4, LONG, ssl=context) as pool:
        assert pool.exchange(messages, b"\n") == messages
        assert pool.connection_count == 4
        assert pool.exchange([b"again\n"], b"\n") == [b"again\n"]
    assert server.stats.accepted == 4


class Once(StreamHandler):
    """Answers once."""

    def on_data(self, stream: Stream, data: bytes) -> None:
        stream.write(data)
        stream.close()


def test_a_lost_connection_is_replaced(certificates: Certificates) -> None:
    tls = certificates.server_context()
    context = certificates.client_context()
    with StreamServer("127.0.0.1", 0, Once(), ssl=tls) as server:
        server.run_in_thread()
        with ClientPool(*server.address, 1, LONG, ssl=context) as pool:
            assert pool.exchange([b"one"], 3) == [b"one"]
            assert pool.exchange([b"two", b"six"], 3) == [b"two", b"six"]
            assert server.stats.accepted >= 3


def test_a_wrong_certificate_is_an_error(
    server: EchoServer, certificates: Certificates
) -> None:
    context = certificates.client_context()
    with (
        ClientPool(
            *server.address, timeout=LONG, ssl=context, server_hostname="other.example"
        ) as pool,
        pytest.raises(ExchangeConnectionError, match="Hostname mismatch") as caught,
    ):
        pool.exchange([b"x"], 1)
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    assert server.stats.bytes_in == 0


def test_a_server_without_tls_is_an_error(certificates: Certificates) -> None:
    context = certificates.client_context()
    with EchoServer(port=0) as server:
        server.run_in_thread()
        with (
            ClientPool(*server.address, timeout=LONG, ssl=context) as pool,
            pytest.raises(ExchangeConnectionError, match="SSL: UNEXPECTED_MESSAGE"),
        ):
            pool.exchange([b"x"], 1)


def test_a_silent_server_is_a_timeout(certificates: Certificates) -> None:
    context = certificates.client_context()
    with StreamServer("127.0.0.1", 0, StreamHandler()) as server:
        server.run_in_thread()
        with (
            ClientPool(*server.address, timeout=0.05, ssl=context) as pool,
            pytest.raises(ExchangeTimeoutError),
        ):
            pool.exchange([b"x"], 1)


def test_a_context_that_checks_no_name(
    server: EchoServer, certificates: Certificates
) -> None:
    context = certificates.client_context()
    context.check_hostname = False
    with ClientPool(
        *server.address, timeout=LONG, ssl=context, server_hostname=""
    ) as pool:
        assert pool.exchange([b"x"], 1) == [b"x"]


def test_wrong_arguments(certificates: Certificates) -> None:
    with pytest.raises(TypeError, match=r"an ssl\.SSLContext"):
        ClientPool("localhost", 1, ssl=True)  # type: ignore[arg-type] # wrong
    with pytest.raises(ValueError, match="pass ssl"):
        ClientPool("localhost", 1, server_hostname="localhost")
    context = certificates.client_context()
    with pytest.raises(ValueError, match="server_hostname is missing"):
        ClientPool("localhost", 1, ssl=context, server_hostname="")
