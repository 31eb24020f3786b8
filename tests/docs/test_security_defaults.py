"""Each default that SECURITY.md states is measured by using it.

Its one rule: no number is written here. A test gets what the document says of its row,
and holds the library to it; each row has a test.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import logging
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from tests.python.streams.tls_ends import TlsEnd
from tests.tree import ROOT

from fdmux import (
    ClientPool,
    DatagramEndpoint,
    DatagramHandler,
    EchoServer,
    SelectorEventLoop,
    ServerLimits,
    StreamHandler,
    StreamServer,
    add_stream,
    connect_stream,
    connect_with_timeout,
    read_with_timeout,
)
from fdmux._ffi import lib
from fdmux.framing import (
    Delimited,
    FrameTooLongError,
    LengthPrefixed,
    ReceiveBuffer,
)
from fdmux.pool.outcome import ExchangeError, ExchangeTimeoutError
from fdmux.streams import listener

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.certificates import Certificates
    from tests.python.conftest import FakeClock

    from fdmux import Stream
    from fdmux.datagrams.address import Address

ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?P<default>[^|]+) \|", re.MULTILINE)
NUMBER = re.compile(r"[\d,]+")
LONG = 30.0
QUARTERS = 4  # of a second in one
KIB = 1024

TABLE = {
    match["what"]: match["default"]
    for match in ROW.finditer((ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    if match["what"] not in {"what", "---"}
}
tested: set[str] = set()


def states(row: str) -> pytest.MarkDecorator:
    """Give a test what SECURITY.md states in ``row``."""
    tested.add(row)
    return pytest.mark.parametrize("stated", [value(TABLE[row])])


def value(text: str) -> int | str:
    """Return the number that a cell begins with; without one, what it says."""
    match = NUMBER.match(text)
    return int(match[0].replace(",", "")) if match else text.strip("`")


def test_each_row_has_a_test() -> None:
    assert TABLE.keys() == tested
    assert len(TABLE) > 20


# Where one can connect ----------------------------------------------------------------


@states("where `EchoServer` listens")
def test_echo_server_listens_on_loopback(stated: str) -> None:
    with EchoServer(port=0) as server:
        sock = listening_socket(server)
        assert sock.getsockname()[0] == server.address[0] == stated
        sock.close()


def listening_socket(server: StreamServer) -> socket.socket:
    """A duplicate of the server's listening socket."""
    assert server._listener is not None
    return socket.socket(fileno=os.dup(server._listener.fileno()))


@pytest.mark.slow
@states("where `fdmux echo` listens")
def test_command_listens_on_loopback(stated: str) -> None:
    command = [sys.executable, "-m", "fdmux", "echo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(f"listening on {stated}:")
        finally:
            process.terminate()


@pytest.mark.parametrize("host", ["", None])
@states("where a server with an empty host listens")
def test_nobody_listens_everywhere_by_accident(stated: str, host: str) -> None:
    assert stated == "nowhere"
    with pytest.raises(ValueError, match="every interface"):
        EchoServer(host, 0)
    with pytest.raises(ValueError, match="every interface"):
        StreamServer(host, 0, StreamHandler())


# How many -----------------------------------------------------------------------------


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Raise the soft limit of open files as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def crowd(
    stack: contextlib.ExitStack, server: StreamServer, count: int
) -> list[socket.socket]:
    return [
        stack.enter_context(socket.create_connection(server.address, timeout=LONG))
        for _ in range(count)
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("many_descriptors")
@states("clients of a server at a time")
def test_clients_beyond_the_limit_are_closed_at_once(stated: int) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * stated + 200:
        pytest.skip(f"needs more open files than {hard} (ulimit -Hn)")
    with EchoServer(port=0) as server, contextlib.ExitStack() as stack:
        clients: list[socket.socket] = []
        while len(clients) <= stated:  # no more at once than the backlog takes
            clients += crowd(stack, server, 1)
            iterate(server)
        assert clients[-1].recv(1) == b""
        assert (server.stats.open, server.stats.refused) == (stated, 1)
        for client in (clients[0], clients[-2]):
            client.sendall(b"x")
            iterate(server)
            assert client.recv(1) == b"x"


def iterate(server: StreamServer) -> None:
    """Run an iteration of the loop, without waiting."""
    assert server._loop is not None
    server._loop.run_once(0)


@states("descriptors that clients leave to the program")
def test_clients_leave_descriptors_to_the_program(stated: int) -> None:
    """With 300 descriptors, a server accepts 300 clients less the stated number."""
    program = f"""
        import resource, socket, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
        from fdmux import SelectorEventLoop, StreamHandler, StreamServer
        loop = SelectorEventLoop()
        server = StreamServer("127.0.0.1", 0, StreamHandler(), loop=loop, backlog=300)
        server.start()
        print(server.address[1], flush=True)
        while server.stats.accepted + server.stats.refused < {301 - stated}:
            loop.run_once(0.01)
        print(server.stats.open, server.stats.refused, flush=True)
        server.stop()
        loop.close()
    """
    command = [sys.executable, "-c", inspect.cleandoc(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = ("127.0.0.1", int(process.stdout.readline()))
        with contextlib.ExitStack() as stack:
            for _ in range(301 - stated):
                sock = socket.create_connection(address, timeout=LONG)
                stack.enter_context(sock)
            facts = process.stdout.readline().split()
    assert facts == [str(300 - stated), "1"]


@states("connections accepted in one iteration")
def test_flood_of_connections_is_taken_in_portions(stated: int) -> None:
    with EchoServer(port=0) as server, contextlib.ExitStack() as stack:
        crowd(stack, server, stated + 1)
        for accepted in (stated, stated + 1):
            server.run(max_iterations=1)
            assert server.stats.accepted == accepted


@states("connections the kernel completes in advance")
def test_backlog_is_asked_of_the_kernel(stated: int) -> None:
    for server in (EchoServer(port=0), StreamServer("127.0.0.1", 0, StreamHandler())):
        with server, listening_socket(server) as sock:
            # struct tcp_info: tcpi_sacked is the longest queue of a listening socket.
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
            assert struct.unpack_from("I", info, 28) == (stated,)


# How long -----------------------------------------------------------------------------


def pass_time(server: StreamServer, seconds: float) -> int:
    """Let time pass for the timeouts of streams; returns how many were closed."""
    assert server._loop is not None
    ticks = int(seconds * QUARTERS)
    lib.fdmux_py_stream_tick(server._loop.native._c_loop, ticks)
    server._loop.run_once(0)
    return server.stats.expired


@states("a client without a byte either way is closed after")
def test_idle_client_is_closed(stated: int) -> None:
    with EchoServer(port=0) as server, contextlib.ExitStack() as stack:
        crowd(stack, server, 1)
        server.run(max_iterations=1)
        # Real time passes as well, and must not close the stream.
        assert pass_time(server, stated - 3) == 0
        assert pass_time(server, 3.5) == 1


@states("a TLS handshake that is not done ends after")
def test_handshake_ends(stated: int, certificates: Certificates) -> None:
    context = certificates.server_context()
    with (
        StreamServer("127.0.0.1", 0, StreamHandler(), ssl=context) as server,
        contextlib.ExitStack() as stack,
    ):
        crowd(stack, server, 1)
        server.run(max_iterations=1)
        assert pass_time(server, stated - 3) == 0
        assert pass_time(server, 3.5) == 0
        assert server.stats.failed_handshakes == 1


class NotesEnd(StreamHandler):
    """Keeps the errors of `on_close`."""

    def __init__(self) -> None:
        self.errors: list[Exception | None] = []

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        self.errors.append(error)


@states("a stream with TLS that is closed waits for its peer to end too")
def test_closed_stream_with_tls_ends(
    stated: int, loop: SelectorEventLoop, certificates: Certificates
) -> None:
    assert ServerLimits().shutdown_timeout == stated
    handler = NotesEnd()
    here, there = socket.socketpair()
    with there:
        stream = add_stream(loop, here, handler)
        stream.start_tls(certificates.server_context(), server_side=True)
        peer = TlsEnd(there, certificates.client_context(), server_hostname="localhost")
        peer.connect(loop)
        stream.close()
        for seconds, is_over in ((stated - 3, False), (3.5, True)):
            loop.run_once(0)
            ticks = int(seconds * QUARTERS)
            lib.fdmux_py_stream_tick(loop.native._c_loop, ticks)
            loop.run_once(0)
            assert bool(handler.errors) is is_over
    assert isinstance(handler.errors[0], TimeoutError)


class Fills(StreamHandler):
    """Writes until the kernel takes no more."""

    def on_connect(self, stream: Stream) -> None:
        while not stream.buffered:
            stream.write(bytes(64 * KIB))


@states("a client that takes nothing of its queue is closed after")
def test_stalled_client_is_closed(stated: int) -> None:
    limits = ServerLimits(idle_timeout=None)
    with (
        StreamServer("127.0.0.1", 0, Fills(), limits=limits) as server,
        contextlib.ExitStack() as stack,
    ):
        crowd(stack, server, 1)
        server.run(max_iterations=1)
        assert server.stats.bytes_queued
        assert pass_time(server, stated - 3) == 0
        assert pass_time(server, 3.5) == 1


def test_streams_of_ones_own_have_no_timeouts(loop: SelectorEventLoop) -> None:
    """The document says so below its table."""
    here, there = socket.socketpair()
    with there:
        stream = add_stream(loop, here, Fills())
        Fills().on_connect(stream)
        lib.fdmux_py_stream_tick(loop.native._c_loop, 24 * 3600 * QUARTERS)
        loop.run_once(0)
        assert not stream.is_closing
        stream.abort()
        loop.run_once(0)


# How many bytes -----------------------------------------------------------------------


class Sizes(StreamHandler):
    """Records the size of each piece of data."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_data(self, _stream: Stream, data: bytes) -> None:
        self.seen.append(len(data))


@states("bytes received of a client in one iteration")
def test_stream_receives_so_much_at_once(stated: int, loop: SelectorEventLoop) -> None:
    handler = Sizes()
    here, there = socket.socketpair()
    with there:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * stated)
        stream = add_stream(loop, here, handler)
        there.sendall(bytes(stated + 1))
        for seen in ([stated], [stated, 1]):
            loop.run_once(LONG)
            assert handler.seen == seen
        stream.abort()
        loop.run_once(0)


@states("bytes `EchoServer` receives of a client in one iteration")
def test_echo_server_receives_so_much_at_once(stated: int) -> None:
    with EchoServer(port=0) as server, contextlib.ExitStack() as stack:
        (client,) = crowd(stack, server, 1)
        server.run(max_iterations=1)
        client.sendall(bytes(stated + 1))
        for received in (stated, stated + 1):
            server.run(max_iterations=1)
            assert server.stats.bytes_in == received


@states("bytes queued for a client, at which it is no longer read")
def test_client_that_does_not_read_is_not_read(stated: int) -> None:
    step = 1 * KIB
    queued = 0
    with EchoServer(port=0, bufsize=step) as server, contextlib.ExitStack() as stack:
        (client,) = crowd(stack, server, 1)
        client.setblocking(False)
        before = -1
        while queued < stated or server.stats.bytes_in > before:
            before = server.stats.bytes_in
            with contextlib.suppress(BlockingIOError):
                client.send(bytes(64 * KIB))
            for _ in range(64):
                iterate(server)
                queued = max(queued, server.stats.bytes_queued)
        assert stated <= queued < stated + step


class Queue(StreamHandler):
    """Records how much is queued at `on_writable`."""

    def __init__(self) -> None:
        self.queued: list[int] = []
        self.errors: list[Exception | None] = []

    def on_writable(self, stream: Stream) -> None:
        self.queued.append(stream.buffered)

    def on_close(self, _stream: Stream, error: Exception | None) -> None:
        self.errors.append(error)


@pytest.fixture
def small_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair of sockets with small kernel buffers."""
    here, there = socket.socketpair()
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
    with here, there:
        there.setblocking(False)
        yield here, there


@states("bytes queued for a client, at which it is read again")
def test_client_that_has_read_is_read_again(
    stated: int, small_pair: tuple[socket.socket, socket.socket]
) -> None:
    here, there = small_pair
    step = 8 * KIB  # what the kernel takes at once, at most
    handler = Queue()
    with SelectorEventLoop() as loop:
        stream = add_stream(loop, here, handler)
        stream.write(bytes(200 * KIB))
        while not handler.queued:
            loop.run_once(0)
            with contextlib.suppress(BlockingIOError):
                there.recv(1 * KIB)
        assert stated - step < handler.queued[0] <= stated


@states("bytes queued for a client, beyond which it is closed")
def test_client_with_too_much_queued_is_closed(
    stated: int, small_pair: tuple[socket.socket, socket.socket]
) -> None:
    step = 1 * KIB
    queued = 0
    handler = Queue()
    with SelectorEventLoop() as loop:
        stream = add_stream(loop, small_pair[0], handler)
        while not handler.errors:
            queued = stream.buffered
            stream.write(bytes(step))
            loop.run_once(0)
    assert stated - step < queued <= stated
    (error,) = handler.errors
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOBUFS


@pytest.mark.slow
@states("bytes queued for all clients, beyond which the longest queues are closed")
def test_queues_of_all_clients_have_a_bound(stated: int, tmp_path: Path) -> None:
    """The clients connect one by one, and none of them reads."""

    class FillsMore(Fills):
        def on_connect(self, stream: Stream) -> None:
            super().on_connect(stream)
            stream.write(bytes(192 * KIB))

    path = str(tmp_path / "socket")
    last = 0
    with (
        StreamServer(path, None, FillsMore()) as server,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(500):
            if server.stats.overrun:
                break
            last = server.stats.bytes_queued
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(path)
            server.run(max_iterations=1)
        assert stated - 256 * KIB < last <= stated
        assert server.stats.bytes_queued <= stated


@pytest.mark.parametrize("kind", [LengthPrefixed, Delimited])
@states("bytes in a frame of `fdmux.framing`")
def test_frames_have_a_bound(
    stated: int, kind: type[LengthPrefixed | Delimited]
) -> None:
    framing = kind()
    assert len(framing.encode(bytes(stated))) > stated
    with pytest.raises(FrameTooLongError):
        framing.encode(bytes(stated + 1))
    buffer = ReceiveBuffer()
    # What a hostile peer sends: a length without data, or data without an end.
    is_prefixed = kind is LengthPrefixed
    buffer.feed((stated + 1).to_bytes(4, "big") if is_prefixed else bytes(stated + 1))
    with pytest.raises(FrameTooLongError):
        framing.take(buffer)


# Logs ---------------------------------------------------------------------------------


@states("lines in the log for a shortage of descriptors, per second")
def test_want_of_descriptors_does_not_fill_the_log(
    stated: int,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(listener, "monotonic", clock)
    with EchoServer(port=0) as server:
        assert server._listener is not None
        for _ in range(80):
            server._listener._event(listener.REFUSED, errno.EMFILE)
            clock.advance(0.125)
    assert len(caplog.records) == 10 * stated


def test_bytes_of_a_peer_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Not even bytes that made a callback fail."""

    class Faulty(StreamHandler):
        def on_data(self, _stream: Stream, _data: bytes) -> None:
            raise ZeroDivisionError

    caplog.set_level(logging.DEBUG)
    secret = b"\x1b[2Jsecret"
    with (
        StreamServer("127.0.0.1", 0, Faulty()) as server,
        contextlib.ExitStack() as stack,
    ):
        (client,) = crowd(stack, server, 1)
        client.sendall(secret)
        server.run(max_iterations=2)
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


# Clients ------------------------------------------------------------------------------


@states("connections of a `ClientPool`")
def test_pool_opens_so_many_connections(stated: int) -> None:
    with EchoServer(port=0) as server:
        server.run_in_thread()
        with ClientPool(*server.address) as pool:
            pool.exchange([b"x"] * 10 * stated, 1)
            assert pool.connection_count == stated


@states("a message of a `ClientPool` fails after")
def test_pool_gives_up_in_time(stated: int, clock: FakeClock) -> None:
    seen = []
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        SelectorEventLoop(clock=clock) as loop,
        ClientPool(*silent.getsockname(), loop=loop) as pool,
    ):

        def wait_almost() -> None:
            clock.advance(stated - 0.5)
            loop.call_soon_threadsafe(wait_on)

        def wait_on() -> None:
            seen.append(pool.connection_count)
            clock.advance(0.5)

        loop.call_soon_threadsafe(wait_almost)
        with pytest.raises(ExchangeTimeoutError, match=f"within {stated}"):
            pool.exchange([b"x"], 1)
    assert seen == [1]


@pytest.mark.slow
@states("bytes in a reply to a `ClientPool`")
def test_reply_to_a_pool_has_a_bound(stated: int) -> None:
    """A reply of that size is accepted; one more byte without an end is an error."""

    def reply() -> None:
        sock, _ = server.accept()
        with sock:
            for size in (stated, stated + 1):
                sock.recv(1)
                sock.sendall(bytes(size))
            sock.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=reply)
        thread.start()
        host, port = server.getsockname()
        with ClientPool(host, port, timeout=LONG) as pool:
            assert len(pool.exchange([b"x"], stated)[0]) == stated
            with pytest.raises(ExchangeError, match=f"in {stated + 1} bytes"):
                pool.exchange([b"x"], stated + 2)
        thread.join()


@states("clients that are left are closed, after `drain` was called")
def test_drain_has_a_deadline(stated: int, clock: FakeClock) -> None:
    with SelectorEventLoop(clock=clock) as loop:
        server = EchoServer(port=0, loop=loop)
        done: list[int] = []
        with server, socket.create_connection(server.address, timeout=LONG):
            while not server.stats.open:
                loop.run_once(LONG)
            server.drain(on_done=done.append)
            loop.run_once(0)
            clock.advance(stated - 0.1)
            loop.run_once(0)
            assert server.stats.unfinished == 0
            clock.advance(0.2)
            while not done:
                loop.run_once(0)
        assert done == [1]


@states("messages of a `ClientPool` wait for a server that is away")
def test_pool_waits_for_no_server(stated: int) -> None:
    timeout = inspect.signature(ClientPool).parameters["away_timeout"]
    assert timeout.default == stated


@states("`connect_stream` ends after, resolving and all attempts together")
def test_connect_stream_has_a_timeout(stated: int) -> None:
    timeout = inspect.signature(connect_stream).parameters["timeout"]
    assert timeout.default == stated


@states("threads that resolve names for `connect_stream` at a time")
def test_threads_that_resolve_are_bounded(
    stated: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Semaphore(0), threading.Event()

    def hold(*_: object, **options: int) -> object:
        if options.get("flags"):
            raise socket.gaierror
        begun.release()
        may_end.wait(LONG)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hold)
    before = threading.active_count()
    with SelectorEventLoop() as loop:
        for _ in range(stated + 3):
            connect_stream(loop, ("host.test", 80), StreamHandler())
        for _ in range(stated):
            assert begun.acquire(timeout=LONG)
        assert threading.active_count() - before <= stated
        assert not begun.acquire(timeout=0.05)
    may_end.set()


@states("`connect_with_timeout` ends after")
def test_connect_has_a_timeout(stated: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TimeoutGivenError) as caught:
        connect_with_timeout("127.0.0.1", raising_timeout(monkeypatch, "connect"))
    assert caught.value.args == (stated,)


class TimeoutGivenError(Exception):
    """Carries the timeout with which something was about to wait."""


def raising_timeout(monkeypatch: pytest.MonkeyPatch, module: str) -> int:
    """Make `deadline_after` of a module raise its argument; return any port."""

    def tell(timeout: float | None) -> float:
        raise TimeoutGivenError(timeout)

    monkeypatch.setattr(f"fdmux.sockets.{module}.deadline_after", tell)
    return 9


@states("`read_with_timeout` ends after")
def test_read_has_a_timeout(stated: int, monkeypatch: pytest.MonkeyPatch) -> None:
    raising_timeout(monkeypatch, "read")
    here, there = socket.socketpair()
    with here, there, pytest.raises(TimeoutGivenError) as caught:
        read_with_timeout(here, 1)
    assert caught.value.args == (stated,)


# Datagrams ----------------------------------------------------------------------------


class Heard(DatagramHandler):
    """Records the sizes of datagrams, by batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def on_datagrams(
        self, _endpoint: DatagramEndpoint, datagrams: list[tuple[bytes, Address | None]]
    ) -> None:
        self.batches.append([len(data) for data, _address in datagrams])


def unix_endpoint(
    loop: SelectorEventLoop, handler: DatagramHandler
) -> tuple[DatagramEndpoint, socket.socket]:
    """An endpoint and its peer; UDP has no datagrams beyond the limit."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return DatagramEndpoint(loop, handler, sock=here), there


@states("bytes of a datagram, beyond which it is cut")
def test_datagram_is_cut(stated: int, loop: SelectorEventLoop) -> None:
    handler = Heard()
    _endpoint, peer = unix_endpoint(loop, handler)
    with peer:
        peer.send(bytes(stated + 1))
        loop.run_once(LONG)
    assert handler.batches == [[stated]]


@states("datagrams received by an endpoint in one iteration")
def test_endpoint_takes_a_portion_of_a_flood(
    stated: int, loop: SelectorEventLoop
) -> None:
    handler = Heard()
    endpoint = DatagramEndpoint(loop, handler, address=("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for _ in range(stated + 1):
            peer.sendto(b"x", endpoint.sockname)
        loop.run_once(LONG)
    assert handler.batches == [[1] * stated]


class Senders(DatagramHandler):
    """Keeps the addresses."""

    def __init__(self) -> None:
        self.addresses: list[Address | None] = []

    def on_datagram(
        self, _endpoint: DatagramEndpoint, _data: bytes, address: Address | None
    ) -> None:
        self.addresses.append(address)


@pytest.mark.slow
@states("senders whose address an endpoint remembers")
def test_flood_of_senders_is_forgotten(stated: int, loop: SelectorEventLoop) -> None:
    handler = Senders()
    endpoint = DatagramEndpoint(loop, handler, address=("127.0.0.1", 0))
    for number in range(4 * stated):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((f"127.1.{number >> 8}.{number & 0xFF}", 0))
            sender.sendto(b"x", endpoint.sockname)
        loop.run_once(LONG)
    assert len(set(handler.addresses)) == 4 * stated
    (count,) = map(sys.getrefcount, [object()])  # of what only a list has
    remembered = [it for it in map(sys.getrefcount, handler.addresses) if it > count]
    assert stated // 2 < len(remembered) <= stated


@pytest.mark.faults
@states("bytes queued by an endpoint, beyond which datagrams are dropped")
def test_queue_of_an_endpoint_has_a_bound(stated: int, loop: SelectorEventLoop) -> None:
    endpoint, peer = unix_endpoint(loop, DatagramHandler())
    each = 64 + KIB - 64  # what counts, and its bytes
    lib.fdmux_testing_fail(lib.FDMUX_CALL_SEND, 1, errno.EAGAIN, 1)
    with peer:
        for _ in range(stated // each + 1):
            endpoint.send(bytes(KIB - 64))
        stats = endpoint.stats
        lib.fdmux_testing_fail(0, 0, 0, 0)
    assert (stats.queued, stats.dropped) == (stated, 1)
