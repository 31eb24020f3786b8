"""Streams with TLS, on both ways to move its bytes: what arrives, and how they end."""

from __future__ import annotations

import _thread
import contextlib
import errno
import gc
import os
import socket
import ssl
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Protocol, cast

import pytest
from tests.peers import send_at_once
from tests.python.streams.recorder import LONG, Open, Recorder, run_until
from tests.python.streams.tls_ends import TlsEnd

from fdmux._ffi import lib
from fdmux._native import ForkedLoop
from fdmux.loop.event_loop import SelectorEventLoop, delivery_of
from fdmux.streams.client import add_stream, connect_stream
from fdmux.streams.limits import STREAM_LIMITS, ServerLimits, StreamLimits
from fdmux.streams.server import StreamServer
from fdmux.streams.tls import StreamTls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from tests.certificates import Certificates

    from fdmux.streams.stream import Stream

pytestmark = pytest.mark.usefixtures("way")

SECRET = b"attack at dawn"
QUARTERS = 4  # ticks of a second


@pytest.fixture
def loop() -> Iterator[SelectorEventLoop]:
    with SelectorEventLoop() as loop:
        yield loop


class Served(Recorder):
    """The server's handler: echoes, and keeps its streams."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: list[Stream] = []
        self.answer = lambda _, data: data

    def on_connect(self, stream: Stream) -> None:
        super().on_connect(stream)
        self.streams.append(stream)


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
def server(
    loop: SelectorEventLoop, served: Served, certificates: Certificates
) -> Iterator[StreamServer]:
    context = certificates.server_context()
    with StreamServer("127.0.0.1", 0, served, ssl=context, loop=loop) as server:
        yield server


@pytest.fixture
def client(
    loop: SelectorEventLoop,
    server: StreamServer,
    handler: Recorder,
    certificates: Certificates,
) -> Stream:
    return connect_stream(
        loop, server.address, handler, ssl=certificates.client_context()
    )


class Encrypt(Protocol):
    """What the fixture `encrypt` is."""

    def __call__(
        self,
        handler: Recorder,
        limits: StreamLimits = ...,
        shutdown_timeout: float = ...,
    ) -> tuple[TlsEnd, Stream]: ...


@pytest.fixture
def encrypt(loop: SelectorEventLoop, certificates: Certificates) -> Iterator[Encrypt]:
    """Make a server's stream after its handshake, and the end of its client."""
    ours, theirs = socket.socketpair()
    send_at_once(ours, theirs)

    def encrypt(
        handler: Recorder,
        limits: StreamLimits = STREAM_LIMITS,
        shutdown_timeout: float = 5.0,
    ) -> tuple[TlsEnd, Stream]:
        stream = add_stream(loop, ours, handler, limits=limits)
        stream.start_tls(
            certificates.server_context(),
            server_side=True,
            shutdown_timeout=shutdown_timeout,
        )
        context = certificates.client_context()
        peer = TlsEnd(theirs, context, server_hostname="localhost")
        peer.connect(loop)
        run_until(loop, lambda: handler.calls == ["tls"])
        return peer, stream

    with ours, theirs:
        yield encrypt


# What arrives ----------------------------------------------------------------------


def test_both_ends_talk_and_close(
    loop: SelectorEventLoop,
    served: Served,
    handler: Recorder,
    client: Stream,
    way: str,
) -> None:
    run_until(loop, lambda: handler.calls)
    assert handler.calls == ["connect"]
    tls = client.tls
    assert isinstance(tls, StreamTls)
    assert tls._is_direct is (way == "openssl")
    assert (tls.version, tls.server_name) == ("TLSv1.3", "127.0.0.1")
    assert tls.cipher is not None
    assert tls.peer_certificate
    assert tls.peer_certificate_der
    assert tls.alpn_protocol is None
    assert tls.session_reused is False
    client.write(SECRET)
    run_until(loop, lambda: handler.data == SECRET)
    client.close()
    run_until(loop, lambda: "close" in handler.calls and "close" in served.calls)
    assert served.data == SECRET
    assert served.calls == ["connect", "end", "close"]
    assert handler.errors == served.errors == [None]


def test_a_write_before_the_handshake_is_sent_after_it(
    loop: SelectorEventLoop, served: Served, handler: Recorder, client: Stream
) -> None:
    client.write(SECRET)
    assert client.buffered >= len(SECRET)
    run_until(loop, lambda: handler.data == SECRET)
    assert served.data == SECRET


def test_much_data_goes_both_ways(
    loop: SelectorEventLoop, handler: Recorder, client: Stream
) -> None:
    payload = bytes(range(256)) * 12_000
    sent = 0

    def go_on(stream: Stream) -> None:
        nonlocal sent
        while sent < len(payload) and not stream.buffered:
            stream.write(payload[sent : sent + 50_000])
            sent += 50_000

    handler.on_connect = handler.on_drain = go_on  # type: ignore[method-assign, assignment] # of the test
    run_until(loop, lambda: len(handler.data) == len(payload))
    assert handler.data == payload
    assert client.received == len(payload)


def test_a_callback_that_writes_often_makes_one_record(
    loop: SelectorEventLoop, encrypt: Encrypt
) -> None:
    handler = Recorder()
    peer, stream = encrypt(handler)
    before = len(peer.received)
    handler.answer = lambda stream, _: [stream.write(b"x") for _ in range(100)] and None
    peer.write(b"go")
    run_until(loop, lambda: handler.data)
    peer.turn()
    assert peer.data == b"x" * 100
    assert len(peer.received) - before < 200
    assert stream.sent == 100


# How they end ----------------------------------------------------------------------


def test_an_end_without_close_notify_is_an_error(
    loop: SelectorEventLoop, encrypt: Encrypt
) -> None:
    handler = Recorder()
    peer, _stream = encrypt(handler)
    peer.write(SECRET)
    peer.sock.shutdown(socket.SHUT_WR)
    run_until(loop, lambda: "close" in handler.calls)
    assert handler.data == SECRET
    assert handler.calls == ["tls", "close"]
    assert isinstance(handler.errors[0], ssl.SSLEOFError)
    assert "close_notify" in str(handler.errors[0])


def test_close_notify_is_an_end_and_is_answered(
    loop: SelectorEventLoop, encrypt: Encrypt
) -> None:
    handler = Recorder()
    peer, _stream = encrypt(handler)
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.send()
    run_until(loop, lambda: "close" in handler.calls)
    assert handler.calls == ["tls", "end", "close"]
    assert handler.errors == [None]
    peer.turn()
    assert peer.is_closed


def test_forged_bytes_end_the_stream_with_pythons_error(
    loop: SelectorEventLoop, encrypt: Encrypt
) -> None:
    handler = Recorder()
    peer, _stream = encrypt(handler)
    peer.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    run_until(loop, lambda: "close" in handler.calls)
    (error,) = handler.errors
    assert isinstance(error, ssl.SSLError)
    assert error.library == "SSL"
    assert error.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
    assert handler.data == b""


def test_reading_goes_on_after_shutdown(
    loop: SelectorEventLoop, encrypt: Encrypt
) -> None:
    """Also what OpenSSL has decrypted, and what has arrived and was not decrypted."""
    handler = Recorder()
    handler.answer = lambda stream, _: stream.shutdown()
    limits = StreamLimits(receive_max=30)
    peer, stream = encrypt(handler, limits)
    peer.tls.write(b"0123456789" * 5)
    peer.tls.write(b"abcdefghij")
    peer.send()
    run_until(loop, lambda: handler.data.endswith(b"j"))
    assert handler.data == b"0123456789" * 5 + b"abcdefghij"
    peer.turn()
    assert peer.is_closed
    peer.write(b"more")
    run_until(loop, lambda: handler.data.endswith(b"more"))
    with pytest.raises(BrokenPipeError):
        stream.write(b"after shutdown")


@pytest.mark.parametrize("is_silent", [True, False])
def test_close_waits_for_the_peer_but_not_for_ever(
    loop: SelectorEventLoop,
    encrypt: Encrypt,
    *,
    is_silent: bool,
) -> None:
    handler = Recorder()
    peer, stream = encrypt(handler)
    stream.write(SECRET)
    stream.close()
    loop.run_once(0)
    peer.turn()
    assert peer.data == SECRET
    assert peer.is_closed
    assert "close" not in handler.calls
    if is_silent:
        for quarters, is_over in ((5 * QUARTERS, False), (1, True)):
            lib.fdmux_py_stream_tick(loop.native._c_loop, quarters)
            loop.run_once(0)
            assert ("close" in handler.calls) is is_over
        assert isinstance(handler.errors[0], TimeoutError)
    else:
        peer.sock.shutdown(socket.SHUT_WR)
        run_until(loop, lambda: "close" in handler.calls)
        assert handler.errors == [None]


def test_close_need_not_wait(loop: SelectorEventLoop, encrypt: Encrypt) -> None:
    handler = Recorder()
    peer, stream = encrypt(handler, shutdown_timeout=0)
    stream.write(SECRET)
    stream.close()
    run_until(loop, lambda: "close" in handler.calls)
    peer.turn()
    assert peer.data == SECRET
    assert peer.is_closed
    assert handler.errors == [None]


def test_abort_sends_nothing_more(loop: SelectorEventLoop, encrypt: Encrypt) -> None:
    handler = Recorder()
    peer, stream = encrypt(handler)
    before = peer.received
    stream.abort()
    run_until(loop, lambda: "close" in handler.calls)
    peer.receive()
    assert peer.received == before
    assert peer.is_ended


def test_nothing_is_kept_of_a_stream_that_has_ended(
    loop: SelectorEventLoop, encrypt: Encrypt
) -> None:
    handler = Recorder()
    _peer, stream = encrypt(handler)
    assert stream.tls is not None
    seen = weakref.ref(stream.tls.ssl_object)
    stream.abort()
    run_until(loop, lambda: "close" in handler.calls)
    del stream, _peer
    gc.collect()
    assert seen() is None


def test_a_loop_may_be_closed_under_streams(
    loop: SelectorEventLoop, encrypt: Encrypt
) -> None:
    handler = Recorder()
    peer, stream = encrypt(handler)
    stream.write(b"x")
    loop.close()
    assert stream.fileno() == -1
    peer.receive()
    assert peer.is_ended


def test_a_child_of_fork_sends_nothing(
    loop: SelectorEventLoop, encrypt: Encrypt
) -> None:
    """The session is the parent's: two users would break its numbers."""
    handler = Recorder()
    peer, stream = encrypt(handler)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            with contextlib.suppress(ForkedLoop, RuntimeError):
                stream.write(SECRET)
                stream.close()
            loop.close()
            del stream
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    stream.write(b"parent")
    peer.write(b"peer")
    run_until(loop, lambda: handler.data == b"peer")
    peer.turn()
    assert peer.data == b"parent"


@pytest.mark.slow
@pytest.mark.parametrize("end", ["gc.collect()", "loop.close()", "os._exit(0)", ""])
def test_an_end_with_streams_open_uses_no_freed_memory(
    certificates: Certificates, way: str, end: str
) -> None:
    """Streams of a loop that nothing refers to, that is closed, and at the exit."""
    program = f"{LEAVES}\nif {end!r} == 'gc.collect()':\n    del loop, stream\n{end}"
    environment = {
        **os.environ,
        "FDMUX_TLS": way,
        "CERTIFICATE": str(certificates.server),
        "PYTHONMALLOC": "malloc",
        "MALLOC_PERTURB_": "165",  # glibc overwrites what is freed
    }
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "connected\n")


LEAVES = """
import gc, os, ssl, fdmux
own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
own.load_cert_chain(os.environ["CERTIFICATE"])
trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
server = fdmux.EchoServer(port=0, ssl=own)
server.run_in_thread()
sock = fdmux.connect_with_timeout(*server.address, ssl=trust)
class Stops(fdmux.StreamHandler):
    def on_connect(self, stream):
        stream.write(bytes(100_000))
        loop.stop()
loop = fdmux.SelectorEventLoop()
stream = fdmux.connect_stream(loop, server.address, Stops(), ssl=trust)
loop.run()
print("connected", flush=True)
"""


# Handshakes ------------------------------------------------------------------------


def test_a_client_refuses_another_servers_certificate(
    loop: SelectorEventLoop,
    served: Served,
    handler: Recorder,
    server: StreamServer,
    certificates: Certificates,
) -> None:
    server.reload_tls(certificates.server_context(certificates.other))
    client = connect_stream(
        loop, server.address, handler, ssl=certificates.client_context()
    )
    client.write(SECRET)
    run_until(loop, lambda: handler.calls and served.calls)
    assert handler.calls == ["close"]
    assert isinstance(handler.errors[0], ssl.SSLCertVerificationError)
    assert handler.errors[0].verify_message
    assert served.calls == ["tls failed"]
    assert isinstance(served.errors[0], ssl.SSLError)
    assert served.errors[0].reason == "SSLV3_ALERT_BAD_CERTIFICATE"
    assert served.data == b""
    stats = server.stats
    assert (stats.failed_handshakes, stats.errors, stats.open) == (1, 0, 0)


def test_a_plain_client_gets_no_plain_answer(
    loop: SelectorEventLoop, served: Served, server: StreamServer
) -> None:
    with socket.create_connection(server.address, timeout=LONG) as peer:
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
        run_until(loop, lambda: served.calls)
        assert served.calls == ["tls failed"]
        assert peer.recv(1000)[:1] in {b"", b"\x15"}  # the end, or an alert
    assert served.errors[0].reason == "HTTP_REQUEST"  # type: ignore[union-attr] # an SSLError


def test_a_client_that_leaves_in_the_handshake(
    loop: SelectorEventLoop, served: Served, server: StreamServer
) -> None:
    with socket.create_connection(server.address, timeout=LONG):
        loop.run_once(LONG)
    run_until(loop, lambda: served.calls)
    assert served.calls == ["tls failed"]
    assert isinstance(served.errors[0], ssl.SSLEOFError)
    assert "handshake" in str(served.errors[0])


def test_a_handshake_has_a_timeout(
    loop: SelectorEventLoop, served: Served, certificates: Certificates
) -> None:
    limits = ServerLimits(handshake_timeout=10)
    context = certificates.server_context()
    with (
        StreamServer(
            "127.0.0.1", 0, served, ssl=context, loop=loop, limits=limits
        ) as server,
        socket.create_connection(server.address, timeout=LONG) as peer,
    ):
        run_until(loop, lambda: server.stats.open)
        loop.run_once(0)
        for quarters, is_over in ((10 * QUARTERS, False), (1, True)):
            lib.fdmux_py_stream_tick(loop.native._c_loop, quarters)
            loop.run_once(0)
            assert bool(served.calls) is is_over
        assert peer.recv(1) == b""
    assert served.calls == ["tls failed"]
    assert isinstance(served.errors[0], TimeoutError)
    assert "handshake" in str(served.errors[0])


def test_a_server_may_stop_during_a_handshake(
    loop: SelectorEventLoop, served: Served, server: StreamServer
) -> None:
    with socket.create_connection(server.address, timeout=LONG):
        run_until(loop, lambda: server.stats.open)
        server.stop()
    assert served.calls == []


class Interrupts(ssl.SSLObject):
    """As a signal handler would, raises in the handshake, the first so many times."""

    count = 0

    def do_handshake(self) -> None:
        if Interrupts.count:
            Interrupts.count -= 1
            raise KeyboardInterrupt
        super().do_handshake()


@pytest.mark.parametrize("count", [1, 2])
def test_an_interrupt_in_a_handshake_leaves_run(
    loop: SelectorEventLoop, served: Served, certificates: Certificates, count: int
) -> None:
    context = certificates.server_context()
    context.sslobject_class = Interrupts
    Interrupts.count = count
    with StreamServer("127.0.0.1", 0, served, ssl=context, loop=loop) as server:
        handler = Recorder()
        client_context = certificates.client_context()
        connect_stream(loop, server.address, handler, ssl=client_context)
        with pytest.raises(KeyboardInterrupt):
            run_until(loop, lambda: False)
        run_until(loop, lambda: handler.calls)
    if count == 1:  # the step was made again
        assert handler.calls == ["connect"]
    else:
        assert handler.calls == ["close"]
        assert served.calls == ["tls failed"]
        assert served.errors[0].errno == errno.ECANCELED  # type: ignore[union-attr] # an OSError


class RawInterrupts:
    """The object of _ssl, one method of which a signal handler interrupts, once."""

    interrupted: str | None = None

    def __init__(self, raw: object) -> None:
        self.raw = raw

    def __getattr__(self, name: str) -> object:
        method = getattr(self.raw, name)
        if name != RawInterrupts.interrupted:
            return method
        RawInterrupts.interrupted = None

        def interrupt(*arguments: object) -> NoReturn:
            with contextlib.suppress(ssl.SSLWantReadError):  # as _ssl.c does
                method(*arguments)
            raise KeyboardInterrupt

        return interrupt


class WithRawInterrupts(ssl.SSLObject):
    @classmethod
    def _create(cls, *arguments: object, **options: object) -> WithRawInterrupts:
        made = super()._create(*arguments, **options)  # type: ignore[misc] # not in typeshed
        made._sslobj = RawInterrupts(made._sslobj)
        return cast("WithRawInterrupts", made)


@pytest.mark.parametrize("way", ["python"], indirect=True)
@pytest.mark.parametrize("name", ["read", "write", "shutdown"])
def test_an_interrupt_after_the_handshake_leaves_run(
    loop: SelectorEventLoop, certificates: Certificates, name: str
) -> None:
    ours, theirs = socket.socketpair()
    handler, context = Recorder(), certificates.server_context()
    context.sslobject_class = WithRawInterrupts
    with ours, theirs:
        stream = add_stream(loop, ours, handler)
        stream.start_tls(context, server_side=True)
        trust = certificates.client_context()
        peer = TlsEnd(theirs, trust, server_hostname="localhost")
        peer.connect(loop)
        run_until(loop, lambda: handler.calls == ["tls"])
        RawInterrupts.interrupted = name
        if name == "write":
            stream.write(SECRET)
        elif name == "shutdown":
            stream.shutdown()
        else:
            peer.write(SECRET)
        with pytest.raises(KeyboardInterrupt):
            run_until(loop, lambda: False, timeout=1)
        if name == "write":  # nothing is lost
            while peer.data != SECRET:
                loop.run_once(0)
                peer.turn()
        else:
            run_until(loop, lambda: "close" in handler.calls)
            assert isinstance(handler.errors[0], ssl.SSLError)


@pytest.mark.parametrize("way", ["python"], indirect=True)
def test_a_signal_that_arrives_before_data_loses_none(
    loop: SelectorEventLoop, encrypt: Encrypt
) -> None:
    handler = Recorder()
    peer, _ = encrypt(handler)

    def interrupt() -> None:
        _thread.interrupt_main()
        peer.tls.write(SECRET)
        peer.send()

    timer = threading.Timer(0.05, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_until(loop, lambda: False)
    timer.join()
    run_until(loop, lambda: handler.data == SECRET)
    assert handler.calls == ["tls"]


@pytest.mark.parametrize("how", ["close", "abort"])
def test_a_callback_of_the_context_may_close_the_stream(
    loop: SelectorEventLoop, served: Served, certificates: Certificates, how: str
) -> None:
    context = certificates.server_context()

    def choose(*_arguments: object) -> None:
        (stream,) = (s for s in delivery_of(loop).streams() if s._tls is not None)
        getattr(stream, how)()

    context.sni_callback = choose
    with StreamServer("127.0.0.1", 0, served, ssl=context, loop=loop) as server:
        plain = socket.create_connection(server.address, timeout=LONG)
        with plain:
            peer = TlsEnd(
                plain, certificates.client_context(), server_hostname="localhost"
            )
            peer.shake_hands()
            peer.send()
            run_until(loop, lambda: server.stats.accepted and not server.stats.open)
    assert "connect" not in served.calls


def interrupt(*_arguments: object, **_options: object) -> NoReturn:
    raise KeyboardInterrupt


def fail(*_arguments: object, **_options: object) -> NoReturn:
    raise OSError(errno.EIO, "made by the test")


def test_a_context_that_cannot_be_used_ends_its_client_alone(
    loop: SelectorEventLoop,
    served: Served,
    server: StreamServer,
    certificates: Certificates,
) -> None:
    broken = certificates.server_context()
    broken.wrap_bio = fail  # type: ignore[method-assign] # as a subclass might
    server.reload_tls(broken)
    with socket.create_connection(server.address, timeout=LONG) as peer:
        run_until(loop, lambda: served.calls)
        assert peer.recv(100) == b""
    assert served.calls == ["tls failed"]
    assert str(served.errors[0]) == "[Errno 5] made by the test"
    server.reload_tls(certificates.server_context())
    handler = Recorder()
    connect_stream(loop, server.address, handler, ssl=certificates.client_context())
    run_until(loop, lambda: handler.calls)
    assert handler.calls == ["connect"]


def test_an_interrupt_before_the_handshake_leaves_no_plain_stream(
    loop: SelectorEventLoop,
    served: Served,
    server: StreamServer,
    certificates: Certificates,
) -> None:
    broken = certificates.server_context()
    broken.wrap_bio = interrupt  # type: ignore[method-assign] # as a signal handler
    server.reload_tls(broken)
    with socket.create_connection(server.address, timeout=LONG) as peer:
        peer.sendall(SECRET)
        with pytest.raises(KeyboardInterrupt):
            run_until(loop, lambda: False)
        run_until(loop, lambda: not server.stats.open)
        with contextlib.suppress(ConnectionResetError):  # SECRET was not read
            assert peer.recv(100) == b""
    assert served.data == b""


def test_open_keeps_its_side(loop: SelectorEventLoop, encrypt: Encrypt) -> None:
    handler = Open()
    peer, stream = encrypt(handler)
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.send()
    run_until(loop, lambda: "end" in handler.calls)
    stream.write(SECRET)
    peer.receive()
    assert peer.tls.read(100) == SECRET
