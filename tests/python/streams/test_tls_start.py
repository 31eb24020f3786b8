"""`start_tls` in the middle of a connection; and that no plaintext leaves after it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from tests.peers import send_at_once
from tests.python.streams.recorder import LONG, Recorder, run_until, shrink_buffers
from tests.python.streams.tls_ends import TlsEnd

from fdmux._ffi import lib
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.client import add_stream, connect_stream
from fdmux.streams.frame_handler import FrameHandler
from fdmux.streams.framing import Delimited
from fdmux.streams.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.certificates import Certificates

    from fdmux.streams.stream import Stream

pytestmark = pytest.mark.usefixtures("way")

SECRET = b"attack at dawn"


@pytest.fixture
def loop() -> Iterator[SelectorEventLoop]:
    with SelectorEventLoop() as loop:
        yield loop


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    pair = socket.socketpair()
    send_at_once(*pair)
    with pair[0], pair[1]:
        yield pair


# STARTTLS --------------------------------------------------------------------------


class Mail(Recorder):
    """Starts TLS at the command, as a mail server does."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self.context = context

    def on_data(self, stream: Stream, data: bytes) -> bytes | None:
        super().on_data(stream, data)
        command, _, rest = data.partition(b"\n")
        if stream.tls is not None:
            return data.upper()
        assert command == b"STARTTLS"
        stream.write(b"go ahead\n")
        stream.start_tls(self.context, server_side=True, received=rest)
        return b"encrypted"


@pytest.mark.parametrize("is_early", [False, True])
def test_a_command_starts_tls(
    loop: SelectorEventLoop,
    ends: tuple[socket.socket, socket.socket],
    certificates: Certificates,
    *,
    is_early: bool,
) -> None:
    """An early client sends its hello with the command."""
    handler = Mail(certificates.server_context())
    stream = add_stream(loop, ends[0], handler)
    peer = TlsEnd(ends[1], certificates.client_context(), server_hostname="localhost")
    peer.shake_hands()
    hello = peer.outgoing.read()
    peer.sock.sendall(b"STARTTLS\n" + (hello if is_early else b""))
    run_until(loop, lambda: stream.tls is not None)
    assert peer.sock.recv(9) == b"go ahead\n"
    if not is_early:
        peer.sock.sendall(hello)
    peer.connect(loop)
    run_until(loop, lambda: handler.calls)
    assert handler.calls == ["tls"]
    peer.write(b"over tls")
    run_until(loop, lambda: handler.data.endswith(b"tls"))
    peer.turn()
    assert peer.data == b"encryptedOVER TLS"


class Lines(FrameHandler):
    """Starts TLS at a line; the rest that has arrived belongs to the handshake."""

    framing = Delimited(b"\n", frame_max=100)

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.frames: list[bytes] = []
        self.errors: list[Exception | None] = []

    def on_frame(self, stream: Stream, frame: bytes) -> bytes:
        self.frames.append(frame)
        if frame == b"STARTTLS":
            self.send(stream, b"go ahead")
            stream.start_tls(self.context, server_side=True)
        return frame.upper()

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        self.errors.append(error)


def test_a_client_connects_and_starts_tls_later(
    loop: SelectorEventLoop, certificates: Certificates
) -> None:
    lines = Lines(certificates.server_context())
    handler = Recorder()
    context = certificates.client_context()

    def answer(stream: Stream, data: bytes) -> None:
        if stream.tls is None:
            assert data == b"go ahead\n"
            stream.start_tls(context, server_hostname="localhost")
            stream.write(SECRET + b"\n")

    handler.answer = answer
    with StreamServer("127.0.0.1", 0, lines, loop=loop) as server:
        client = connect_stream(loop, server.address, handler)
        client.write(b"STARTTLS\n")
        run_until(loop, lambda: SECRET.upper() in handler.data)
        assert handler.calls[0] == "connect"
        assert handler.calls.count("tls") == 1
        assert handler.data == b"go ahead\nSTARTTLS\n" + SECRET.upper() + b"\n"
    assert lines.frames == [b"STARTTLS", SECRET]


def test_a_hello_behind_a_frame_is_used(
    loop: SelectorEventLoop,
    certificates: Certificates,
) -> None:
    """As long as it has no end of a frame; here, of a framing in Python."""

    class Colon(Delimited):
        __fdmux_framer__ = None  # type: ignore[assignment] # Python cuts

    for framing in (
        Delimited(b"\0STARTTLS\0", frame_max=1000),
        Colon(b"\0STARTTLS\0", frame_max=1000),
    ):

        class Starts(Lines):
            def on_frame(self, stream: Stream, _frame: bytes) -> None:  # type: ignore[override] # of the test
                stream.start_tls(self.context, server_side=True)

        Starts.framing = framing
        ours, theirs = socket.socketpair()
        with theirs:
            stream = add_stream(loop, ours, Starts(certificates.server_context()))
            context = certificates.client_context()
            peer = TlsEnd(theirs, context, server_hostname="localhost")
            peer.shake_hands()
            peer.sock.sendall(b"x\0STARTTLS\0" + peer.outgoing.read())
            peer.connect(loop)
            assert peer.tls.version() == "TLSv1.3"
            stream.abort()


def test_plain_frames_behind_the_command_abort(
    loop: SelectorEventLoop,
    ends: tuple[socket.socket, socket.socket],
    certificates: Certificates,
) -> None:
    """As in CVE-2011-0411."""
    handler = Lines(certificates.server_context())
    add_stream(loop, ends[0], handler)
    ends[1].sendall(b"STARTTLS\nRCPT TO:<a@example>\n")
    run_until(loop, lambda: handler.errors)
    assert handler.frames == [b"STARTTLS"]
    assert isinstance(handler.errors[0], ConnectionAbortedError)
    assert "in plaintext behind" in str(handler.errors[0])


def test_plain_writes_of_before_are_sent_first(
    loop: SelectorEventLoop,
    ends: tuple[socket.socket, socket.socket],
    certificates: Certificates,
) -> None:
    handler = Recorder()
    stream = add_stream(loop, ends[0], handler)
    shrink_buffers(stream)
    stream.write(b"p" * 100_000)
    assert stream.buffered
    stream.start_tls(certificates.server_context(), server_side=True)
    stream.write(SECRET)
    plain = b""
    ends[1].setblocking(False)
    while len(plain) < 100_000:
        loop.run_once(0)
        plain += ends[1].recv(100_000 - len(plain))
    assert plain == b"p" * 100_000
    peer = TlsEnd(ends[1], certificates.client_context(), server_hostname="localhost")
    peer.connect(loop)
    peer.turn()
    assert peer.data == SECRET


# Refusals --------------------------------------------------------------------------


def test_wrong_arguments_change_nothing(
    loop: SelectorEventLoop,
    ends: tuple[socket.socket, socket.socket],
    certificates: Certificates,
) -> None:
    stream = add_stream(loop, ends[0], Recorder())
    context = certificates.server_context()
    with pytest.raises(TypeError, match=r"an ssl\.SSLContext"):
        stream.start_tls(object(), server_side=True)  # type: ignore[arg-type] # wrong
    with pytest.raises(ValueError, match="server_hostname is missing"):
        stream.start_tls(certificates.client_context())
    with pytest.raises(ValueError, match="handshake_timeout"):
        stream.start_tls(context, server_side=True, handshake_timeout=0)
    with pytest.raises(ValueError, match="shutdown_timeout"):
        stream.start_tls(context, server_side=True, shutdown_timeout=-1)
    with pytest.raises(TypeError, match="shutdown_timeout"):
        stream.start_tls(context, server_side=True, shutdown_timeout=None)  # type: ignore[arg-type] # wrong
    assert stream.tls is None
    assert not stream.is_closing


def test_tls_starts_once(
    loop: SelectorEventLoop,
    ends: tuple[socket.socket, socket.socket],
    certificates: Certificates,
) -> None:
    stream = add_stream(loop, ends[0], Recorder())
    context = certificates.server_context()
    stream.start_tls(context, server_side=True)
    with pytest.raises(RuntimeError, match="it has TLS already"):
        stream.start_tls(context, server_side=True)
    assert not stream.is_closing


def test_a_closed_stream_ignores_it(
    loop: SelectorEventLoop,
    ends: tuple[socket.socket, socket.socket],
    certificates: Certificates,
) -> None:
    stream = add_stream(loop, ends[0], Recorder())
    stream.close()
    stream.start_tls(certificates.server_context(), server_side=True)
    assert stream.tls is None


def test_after_shutdown_it_is_refused(
    loop: SelectorEventLoop,
    ends: tuple[socket.socket, socket.socket],
    certificates: Certificates,
) -> None:
    handler = Recorder()
    stream = add_stream(loop, ends[0], handler)
    stream.shutdown()
    with pytest.raises(BrokenPipeError):
        stream.start_tls(certificates.server_context(), server_side=True)
    run_until(loop, lambda: handler.calls)
    assert isinstance(handler.errors[0], BrokenPipeError)


def test_a_wrong_name_closes_the_stream(
    loop: SelectorEventLoop,
    ends: tuple[socket.socket, socket.socket],
    certificates: Certificates,
) -> None:
    handler = Recorder()
    stream = add_stream(loop, ends[0], handler)
    context = certificates.client_context()
    with pytest.raises(ValueError, match="idna"):
        stream.start_tls(context, server_hostname=".localhost")
    stream.write(SECRET)
    run_until(loop, lambda: handler.calls)
    assert isinstance(handler.errors[0], ValueError)
    assert ends[1].recv(100) == b""


def test_another_thread_is_refused(
    loop: SelectorEventLoop,
    ends: tuple[socket.socket, socket.socket],
    certificates: Certificates,
) -> None:
    handler = Recorder()
    stream = add_stream(loop, ends[0], handler)
    with StreamServer("127.0.0.1", 0, handler, loop=loop) as server:
        thread = server.run_in_thread()
        with pytest.raises(RuntimeError, match="another thread"):
            stream.start_tls(certificates.server_context(), server_side=True)
        server.stop()
        thread.join(LONG)
    assert stream.tls is None


def test_connect_refuses_before_it_opens(
    loop: SelectorEventLoop, certificates: Certificates
) -> None:
    handler = Recorder()
    context = certificates.client_context()
    with pytest.raises(TypeError, match=r"an ssl\.SSLContext"):
        connect_stream(loop, ("127.0.0.1", 1), handler, ssl=True)  # type: ignore[arg-type] # wrong
    with pytest.raises(ValueError, match="pass ssl"):
        connect_stream(loop, ("127.0.0.1", 1), handler, server_hostname="localhost")
    with pytest.raises(ValueError, match="server_hostname is missing"):
        connect_stream(loop, ("127.0.0.1", 1), handler, ssl=context, server_hostname="")
    assert handler.calls == []


def test_a_refused_connection_is_named(
    loop: SelectorEventLoop, certificates: Certificates
) -> None:
    handler = Recorder()
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        address = unheard.getsockname()
        context = certificates.client_context()
        connect_stream(loop, address, handler, ssl=context).write(SECRET)
        run_until(loop, lambda: handler.calls)
    assert handler.calls == ["close"]
    (error,) = handler.errors
    assert isinstance(error, ConnectionRefusedError)
    assert f"connect to {address!r}" in str(error)


def test_servers_refuse_what_is_no_context(loop: SelectorEventLoop) -> None:
    with pytest.raises(TypeError, match=r"an ssl\.SSLContext"):
        StreamServer("127.0.0.1", 0, Recorder(), ssl=1)  # type: ignore[call-overload] # wrong
    with (
        StreamServer("127.0.0.1", 0, Recorder(), loop=loop) as server,
        pytest.raises(RuntimeError, match="made without ssl"),
    ):
        server.reload_tls(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


# No plaintext leaves ---------------------------------------------------------------

RECORDS = (b"\x14", b"\x15", b"\x16", b"\x17")


def drain(sock: socket.socket) -> bytes:
    received = b""
    try:
        while chunk := sock.recv(65536):
            received += chunk
    except (BlockingIOError, ConnectionResetError):
        pass
    return received


class Tells(Recorder):
    """Writes as soon as it may, and before."""

    def on_connect(self, stream: Stream) -> None:
        super().on_connect(stream)
        stream.write(SECRET)

    def on_tls(self, stream: Stream) -> None:
        super().on_tls(stream)
        stream.write(SECRET)


def start_late(loop: SelectorEventLoop, certificates: Certificates) -> Iterator[TlsEnd]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = add_stream(loop, ours, Tells())
        peer = TlsEnd(
            theirs, certificates.client_context(), server_hostname="localhost"
        )
        yield peer
        try:
            stream.start_tls(certificates.server_context(), server_side=True)
        except MemoryError:
            assert stream.is_closing
        stream.write(SECRET)
        yield peer
        stream.write(SECRET)
        yield peer
        stream.abort()


def serve(loop: SelectorEventLoop, certificates: Certificates) -> Iterator[TlsEnd]:
    context = certificates.server_context()
    with (
        StreamServer("127.0.0.1", 0, Tells(), ssl=context, loop=loop) as server,
        socket.create_connection(server.address) as theirs,
    ):
        peer = TlsEnd(
            theirs, certificates.client_context(), server_hostname="localhost"
        )
        yield peer
        yield peer


def connect(loop: SelectorEventLoop, certificates: Certificates) -> Iterator[TlsEnd]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        context = certificates.client_context()
        with socket.socket() as theirs:  # so far nobody
            yield TlsEnd(theirs, certificates.server_context(), server_side=True)
        try:
            stream = connect_stream(loop, listener.getsockname(), Tells(), ssl=context)
        except (OSError, MemoryError):
            return
        theirs, _ = listener.accept()
        with theirs:
            peer = TlsEnd(theirs, certificates.server_context(), server_side=True)
            stream.write(SECRET)
            yield peer
            yield peer
            stream.abort()


@pytest.mark.faults
@pytest.mark.parametrize("is_persistent", [0, 1])
@pytest.mark.parametrize("kind", ["MEMORY", "SEND", "RECV", "EPOLL_CTL"])
@pytest.mark.parametrize("way_in", [start_late, serve, connect])
def test_a_failing_call_lets_no_plaintext_out(
    loop: SelectorEventLoop,
    certificates: Certificates,
    way_in: Callable[[SelectorEventLoop, Certificates], Iterator[TlsEnd]],
    kind: str,
    is_persistent: int,
) -> None:
    """Let each allocation or system call fail, once or from then on."""
    faulty = getattr(lib, f"FDMUX_CALL_{kind}")
    error = errno.ENOMEM if kind == "MEMORY" else errno.ENOBUFS
    for nth in itertools.count(1):
        steps = way_in(loop, certificates)
        peer = next(steps)
        lib.fdmux_testing_fail(faulty, nth, error, is_persistent)
        for peer in steps:
            exchange(loop, peer)
        is_reached = lib.fdmux_testing_calls() >= nth
        lib.fdmux_testing_fail(0, 0, 0, 0)
        for _ in range(3):
            loop.run_once(0)
        assert SECRET not in peer.received
        assert peer.received[:1] in {b"", *RECORDS}
        if not is_reached:
            break
    assert nth > 1
    assert peer.data.startswith(SECRET)


def exchange(loop: SelectorEventLoop, peer: TlsEnd) -> None:
    """Let both ends work as long as they can."""
    for _ in range(8):
        with contextlib.suppress(OSError, MemoryError):
            loop.run_once(0)
        with contextlib.suppress(OSError):
            peer.turn()
