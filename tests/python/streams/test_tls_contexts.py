"""What an SSLContext says holds for streams: versions, names, certificates, keys."""

from __future__ import annotations

import ssl
import sys
from typing import TYPE_CHECKING

import pytest
from tests.python.streams.recorder import Recorder, run_until

from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.client import connect_stream
from fdmux.streams.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import NoReturn

    from tests.certificates import Certificates

    from fdmux.streams.stream import Stream
    from fdmux.streams.tls import StreamTls

pytestmark = pytest.mark.usefixtures("way")

VERSIONS = {
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}


@pytest.fixture
def loop() -> Iterator[SelectorEventLoop]:
    with SelectorEventLoop() as loop:
        yield loop


@pytest.fixture
def server_context(certificates: Certificates) -> ssl.SSLContext:
    return certificates.server_context()


@pytest.fixture
def client_context(certificates: Certificates) -> ssl.SSLContext:
    return certificates.client_context()


class Keeps(Recorder):
    """The server's handler: echoes, and keeps its last stream."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = lambda _, data: data
        self.tls: StreamTls | None = None

    def on_connect(self, stream: Stream) -> None:
        super().on_connect(stream)
        self.tls = stream.tls


class Pair:
    """A server with ``context``, and clients that ask it one question each."""

    def __init__(self, loop: SelectorEventLoop, context: ssl.SSLContext) -> None:
        self.loop = loop
        self.handler = Keeps()
        self.server = StreamServer("127.0.0.1", 0, self.handler, ssl=context, loop=loop)

    def ask(
        self,
        context: ssl.SSLContext,
        session: ssl.SSLSession | None = None,
        server_hostname: str = "localhost",
    ) -> tuple[Stream, Recorder]:
        """Connect, and wait for the answer or the end; returns the client."""
        handler = Recorder()
        client = connect_stream(
            self.loop,
            self.server.address,
            handler,
            ssl=context,
            server_hostname=server_hostname,
            session=session,
        )
        client.write(b"hello")
        run_until(self.loop, lambda: handler.data == b"hello" or handler.errors)
        return client, handler

    def tls_of(self, client: Stream) -> StreamTls:
        assert client.tls is not None
        return client.tls


@pytest.fixture
def pair(loop: SelectorEventLoop, server_context: ssl.SSLContext) -> Iterator[Pair]:
    made = Pair(loop, server_context)
    with made.server:
        yield made


@pytest.mark.parametrize("version", VERSIONS)
def test_versions(pair: Pair, client_context: ssl.SSLContext, version: str) -> None:
    client_context.maximum_version = VERSIONS[version]
    client, _ = pair.ask(client_context)
    assert pair.tls_of(client).version == version
    assert pair.handler.tls is not None
    assert pair.handler.tls.version == version
    client.close()
    run_until(pair.loop, lambda: "close" in pair.handler.calls)
    assert pair.handler.errors == [None]


def test_versions_that_do_not_meet(
    pair: Pair, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    server_context.minimum_version = ssl.TLSVersion.TLSv1_3
    client_context.maximum_version = ssl.TLSVersion.TLSv1_2
    _, handler = pair.ask(client_context)
    (error,) = handler.errors
    assert isinstance(error, ssl.SSLError)
    assert error.reason == "TLSV1_ALERT_PROTOCOL_VERSION"
    run_until(pair.loop, lambda: pair.handler.errors)
    (error,) = pair.handler.errors
    assert isinstance(error, ssl.SSLError)
    assert error.reason == "UNSUPPORTED_PROTOCOL"


def test_alpn(
    pair: Pair, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    server_context.set_alpn_protocols(["h2", "http/1.1"])
    client_context.set_alpn_protocols(["spdy", "http/1.1"])
    client, _ = pair.ask(client_context)
    assert pair.tls_of(client).alpn_protocol == "http/1.1"
    assert pair.handler.tls is not None
    assert pair.handler.tls.alpn_protocol == "http/1.1"


def test_names_choose_the_certificate(
    pair: Pair,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    certificates: Certificates,
) -> None:
    asked: list[str | None] = []
    other = certificates.server_context(certificates.other)

    def choose(sslobject: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        asked.append(name)
        if name == "other.example":
            sslobject.context = other

    server_context.sni_callback = choose
    client, _ = pair.ask(client_context, server_hostname="other.example")
    assert ("DNS", "other.example") in names_of(client)
    assert pair.tls_of(client).server_name == "other.example"
    client, _ = pair.ask(client_context)
    assert ("DNS", "localhost") in names_of(client)
    assert asked == ["other.example", "localhost"]


def names_of(client: Stream) -> tuple[tuple[str, str], ...]:
    assert client.tls is not None
    assert client.tls.peer_certificate is not None
    names = client.tls.peer_certificate["subjectAltName"]
    assert isinstance(names, tuple)
    return names


def test_a_name_can_be_refused(
    pair: Pair, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    server_context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    _, handler = pair.ask(client_context)
    (error,) = handler.errors
    assert isinstance(error, ssl.SSLError)
    assert error.reason == "TLSV1_UNRECOGNIZED_NAME"


def test_a_callback_that_raises_ends_its_client_alone(
    pair: Pair,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda it: raised.append(it.exc_value))
    error = LookupError("made by the test")

    def choose(*_arguments: object) -> NoReturn:
        raise error

    server_context.sni_callback = choose
    _, handler = pair.ask(client_context)
    assert raised == [error]  # by Python's ssl
    assert isinstance(handler.errors[0], ssl.SSLError)
    assert "HANDSHAKE_FAILURE" in str(handler.errors[0])
    assert pair.handler.calls == ["tls failed"]
    server_context.sni_callback = None
    _, handler = pair.ask(client_context)
    assert handler.data == b"hello"


@pytest.mark.parametrize("version", VERSIONS)
def test_client_certificates(
    pair: Pair,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    certificates: Certificates,
    version: str,
) -> None:
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(certificates.authority)
    client_context.load_cert_chain(certificates.client)
    client_context.maximum_version = VERSIONS[version]
    pair.ask(client_context)
    assert pair.handler.tls is not None
    certificate = pair.handler.tls.peer_certificate
    assert certificate is not None
    assert certificate["subjectAltName"] == (("DNS", "client.example"),)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_without_a_certificate(
    pair: Pair,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    version: str,
) -> None:
    """With TLS 1.3 the client learns it after its own handshake is done."""
    server_context.verify_mode = ssl.CERT_REQUIRED
    client_context.maximum_version = VERSIONS[version]
    _, handler = pair.ask(client_context)
    (error,) = handler.errors
    assert isinstance(error, ssl.SSLError)
    reasons = {
        "TLSv1.2": "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSv1.3": "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    }
    assert error.reason == reasons[version]
    assert ("connect" in handler.calls) is (version == "TLSv1.3")
    run_until(pair.loop, lambda: pair.handler.errors)
    assert pair.handler.calls == ["tls failed"]
    (error,) = pair.handler.errors
    assert isinstance(error, ssl.SSLError)
    assert error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_are_resumed(
    pair: Pair, client_context: ssl.SSLContext, version: str
) -> None:
    client_context.maximum_version = VERSIONS[version]
    client, _ = pair.ask(client_context)
    assert not pair.tls_of(client).session_reused
    session = pair.tls_of(client).session
    assert session is not None
    assert session.has_ticket
    client.close()
    client, handler = pair.ask(client_context, session)
    assert handler.data == b"hello"
    assert pair.tls_of(client).session_reused
    assert pair.handler.tls is not None
    assert pair.handler.tls.session_reused


def test_keys_are_logged(
    pair: Pair,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    tmp_path: Path,
) -> None:
    server_context.keylog_filename = str(tmp_path / "server.keys")
    client_context.keylog_filename = str(tmp_path / "client.keys")
    pair.ask(client_context)
    for context in (server_context, client_context):
        context.keylog_filename = None  # type: ignore[assignment] # closes the file
    secrets = [
        {line for line in path.read_text().splitlines() if not line.startswith("#")}
        for path in sorted(tmp_path.iterdir())
    ]
    assert secrets[0] == secrets[1]
    assert any(line.startswith("SERVER_TRAFFIC_SECRET_0 ") for line in secrets[0])


def test_callback_that_raises_in_an_early_step_ends_nothing(
    pair: Pair, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    """As with `ssl` alone, which drops it with the SSLWantReadError of that step."""
    raised = iter([LookupError("no")])

    def fail_once(*_args: object) -> None:
        for error in raised:
            raise error

    server_context._msg_callback = fail_once  # type: ignore[attr-defined] # not in typeshed
    client_context.maximum_version = ssl.TLSVersion.TLSv1_2  # two steps of the server
    _, handler = pair.ask(client_context)
    assert handler.data == b"hello"
    assert next(raised, None) is None
    assert pair.handler.errors == []


def test_a_reloaded_certificate_is_for_new_clients(
    pair: Pair, client_context: ssl.SSLContext, certificates: Certificates
) -> None:
    old, _ = pair.ask(client_context)
    pair.server.reload_tls(certificates.server_context(certificates.renewed))
    new, _ = pair.ask(client_context)
    before = pair.tls_of(old).peer_certificate_der
    assert pair.tls_of(new).peer_certificate_der != before
    handler = old._handler
    assert isinstance(handler, Recorder)
    old.write(b" again")
    run_until(pair.loop, lambda: handler.data == b"hello again")
    assert pair.tls_of(old).peer_certificate_der == before


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in Python 3.13")
def test_keys_that_both_ends_share(pair: Pair) -> None:
    """PSK: OpenSSL calls Python from within the handshake."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (server, client):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("PSK")
    server.set_psk_server_callback(lambda _identity: b"key")  # type: ignore[attr-defined] # see above
    client.set_psk_client_callback(lambda _hint: ("name", b"key"))  # type: ignore[attr-defined] # see above
    pair.server.reload_tls(server)
    stream, handler = pair.ask(client)
    assert handler.data == b"hello"
    cipher = pair.tls_of(stream).cipher
    assert cipher is not None
    assert "PSK" in cipher[0]


def test_context_of_the_other_side_is_refused(
    loop: SelectorEventLoop,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
) -> None:
    with pytest.raises(ValueError, match="a server needs PROTOCOL_TLS_SERVER"):
        StreamServer("127.0.0.1", 0, Recorder(), ssl=client_context)
    with pytest.raises(ValueError, match="a client needs PROTOCOL_TLS_CLIENT"):
        connect_stream(
            loop, ("127.0.0.1", 1), Recorder(), ssl=server_context, server_hostname="x"
        )


def test_reload_refuses_a_context_for_clients(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    server = StreamServer("127.0.0.1", 0, Recorder(), ssl=server_context)
    with pytest.raises(ValueError, match="for clients"):
        server.reload_tls(client_context)
