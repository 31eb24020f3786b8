"""Accepting when there is no room, and connections whose system calls fail."""

from __future__ import annotations

import errno
import logging
import socket
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Protocol

import pytest

from fdmux._ffi import lib
from fdmux.streams import listener
from fdmux.streams.echo import EchoHandler, EchoServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.python.conftest import FakeClock

    class Fail(Protocol):
        def __call__(
            self, kind: str, error: int, nth: int = 1, *, persistent: bool = False
        ) -> None: ...


LONG = 30.0
ACCEPTS_PER_ITERATION = 16

# accept(2): errors of the one connection, "treat them like EAGAIN by retrying".
CONNECTION_DIED = [
    errno.ECONNABORTED,
    errno.EPROTO,
    errno.EPERM,
    errno.ENETDOWN,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.EINTR,
]


@pytest.fixture
def server() -> Iterator[EchoServer]:
    with EchoServer(port=0) as server:
        yield server


@pytest.fixture
def connect(server: EchoServer) -> Iterator[Callable[[], socket.socket]]:
    socks: list[socket.socket] = []

    def connect_one() -> socket.socket:
        socks.append(socket.create_connection(server.address, timeout=LONG))
        return socks[-1]

    yield connect_one
    for sock in socks:
        sock.close()


@pytest.fixture
def client(server: EchoServer, connect: Callable[[], socket.socket]) -> socket.socket:
    sock = connect()
    iterate(server)
    assert server.stats.open == 1
    return sock


@pytest.fixture
def clock(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock that limits how often a listener logs."""
    monkeypatch.setattr(listener, "monotonic", clock)
    return clock


@pytest.fixture
def fail() -> Iterator[Fail]:
    """Make the n-th call of a kind fail."""

    def fail(kind: str, error: int, nth: int = 1, *, persistent: bool = False) -> None:
        number = getattr(lib, f"FDMUX_CALL_{kind}")
        lib.fdmux_testing_fail(number, nth, error, int(persistent))

    yield fail
    lib.fdmux_testing_fail(0, 0, 0, 0)


def iterate(server: EchoServer, times: int = 1) -> None:
    """Run iterations of the loop, without waiting."""
    assert server._loop is not None
    for _ in range(times):
        server._loop.run_once(0)


def tick(server: EchoServer, count: int) -> None:
    """Advance the clock by quarters of a second."""
    assert server._loop is not None
    lib.fdmux_py_stream_tick(server._loop.native._c_loop, count)


@pytest.mark.faults
@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_out_of_descriptors_backs_off_and_logs_once(
    server: EchoServer,
    connect: Callable[[], socket.socket],
    fail: Fail,
    caplog: pytest.LogCaptureFixture,
    clock: FakeClock,
    error: int,
) -> None:
    connect()
    fail("ACCEPT", error, persistent=True)
    iterate(server)
    for wait in (1, 2, 4, 4):
        tries = lib.fdmux_testing_calls()
        tick(server, wait - 1)
        iterate(server, 3)
        assert lib.fdmux_testing_calls() == tries  # the backlog cannot spin it
        tick(server, 1)
        iterate(server, 3)
        assert lib.fdmux_testing_calls() == tries + 1
    assert server.stats.accepted == 0
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "accept on ('127.0.0.1'" in caplog.text
    fail("ACCEPT", 0, 0)
    tick(server, 4)
    iterate(server)
    assert server.stats.accepted == 1
    for logged, accepted in [(1, 2), (1, 3), (2, 4)]:  # once a second
        connect()
        fail("ACCEPT", errno.ENFILE)
        iterate(server)
        tick(server, 1)  # the back-off has begun anew
        iterate(server)
        assert server.stats.accepted == accepted
        assert len(caplog.records) == logged
        clock.advance(0.5)


@pytest.mark.faults
def test_freed_descriptor_resumes_at_once(
    server: EchoServer,
    client: socket.socket,
    connect: Callable[[], socket.socket],
    fail: Fail,
) -> None:
    connect()
    fail("ACCEPT", errno.EMFILE)
    iterate(server, 2)
    assert server.stats.accepted == 1
    client.close()
    iterate(server, 4)
    assert (server.stats.accepted, server.stats.open) == (2, 1)


@pytest.mark.faults
@pytest.mark.parametrize("code", CONNECTION_DIED, ids=errno.errorcode.get)
def test_dead_connection_is_skipped(
    server: EchoServer,
    connect: Callable[[], socket.socket],
    fail: Fail,
    code: int,
) -> None:
    connect()
    fail("ACCEPT", code)
    iterate(server)
    assert server.stats.open == 1


def test_flood_is_taken_in_portions(
    server: EchoServer, connect: Callable[[], socket.socket]
) -> None:
    for _ in range(ACCEPTS_PER_ITERATION + 5):
        connect()
    iterate(server)
    assert server.stats.open == ACCEPTS_PER_ITERATION
    iterate(server)
    assert server.stats.open == ACCEPTS_PER_ITERATION + 5


@pytest.mark.faults
def test_server_without_listener_serves_its_clients_to_their_end(
    server: EchoServer,
    client: socket.socket,
    connect: Callable[[], socket.socket],
    fail: Fail,
    caplog: pytest.LogCaptureFixture,
) -> None:
    connect()
    fail("ACCEPT", errno.EBADF)
    server.run(max_iterations=1)
    assert "Bad file descriptor; no new clients" in caplog.text
    client.sendall(b"y")
    server.run(max_iterations=1)
    assert client.recv(2) == b"y"
    client.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        server.run()
    assert server.stats.open == 0


# Connections whose own system calls fail ---------------------------------------------


@pytest.mark.faults
def test_spurious_readiness_is_harmless(
    server: EchoServer, client: socket.socket, fail: Fail
) -> None:
    fail("RECV", errno.EAGAIN)
    client.sendall(b"x")
    server.run(max_iterations=1)
    assert client.recv(1) == b"x"


@pytest.mark.faults
def test_send_that_would_block_keeps_the_bytes(
    server: EchoServer, client: socket.socket, fail: Fail
) -> None:
    fail("SEND", errno.EAGAIN)
    client.sendall(b"x")
    server.run(max_iterations=1)
    assert server.stats.bytes_queued == 1
    server.run(max_iterations=1)
    assert client.recv(1) == b"x"
    assert server.stats.bytes_queued == 0


@pytest.mark.faults
@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ENOMEM])
def test_kernel_without_buffers_is_asked_again_later(
    server: EchoServer, client: socket.socket, fail: Fail, code: int
) -> None:
    client.sendall(b"x")
    fail("SEND", code, persistent=True)
    iterate(server, 3)
    assert lib.fdmux_testing_calls() == 1  # writable, but not asked: no spin
    tick(server, 1)
    iterate(server)
    assert lib.fdmux_testing_calls() == 2
    fail("SEND", 0, 0)
    tick(server, 1)
    iterate(server)
    assert client.recv(1) == b"x"
    assert server.stats.errors == 0


@pytest.mark.faults
@pytest.mark.parametrize("code", [errno.ECONNRESET, errno.EPIPE, errno.EHOSTUNREACH])
@pytest.mark.parametrize("call", ["SEND", "RECV"])
def test_error_closes_quietly_and_is_counted(
    server: EchoServer,
    client: socket.socket,
    fail: Fail,
    caplog: pytest.LogCaptureFixture,
    call: str,
    code: int,
) -> None:
    fail(call, code)
    client.sendall(b"x")
    iterate(server, 2)
    assert (server.stats.open, server.stats.errors) == (0, 1)
    assert server.stats.bytes_in == server.stats.bytes_dropped
    assert caplog.records == []


@pytest.mark.faults
def test_connection_that_cannot_be_watched_is_closed(
    server: EchoServer, connect: Callable[[], socket.socket], fail: Fail
) -> None:
    refused = connect()
    fail("EPOLL_CTL", errno.ENOSPC)
    iterate(server)
    assert refused.recv(1) == b""
    assert server.stats.refused == 1
    good = connect()
    good.sendall(b"x")
    iterate(server, 2)
    assert good.recv(1) == b"x"


def test_unexpected_exception_closes_one_connection_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        EchoHandler,
        "on_data",
        staticmethod(lambda _, data: 1 // 0 if data == b"!" else data),
    )
    with EchoServer(port=0) as server:
        server.run_in_thread()
        with (
            socket.create_connection(server.address, timeout=LONG) as bad,
            socket.create_connection(server.address, timeout=LONG) as good,
        ):
            bad.sendall(b"!")
            assert bad.recv(1) == b""
            assert "ZeroDivisionError" in caplog.text
            good.sendall(b"y")
            assert good.recv(1) == b"y"
            assert (server.stats.open, server.stats.errors) == (1, 1)


@pytest.mark.slow
def test_real_descriptor_limit_neither_spins_nor_ends_the_server() -> None:
    """With 20 descriptors free, 60 clients come; then they leave."""
    program = """
        import logging, resource, socket, sys, threading, time
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
        from fdmux.streams.echo import EchoServer
        logged = []
        logging.getLogger("fdmux").addHandler(logging.NullHandler())
        logging.getLogger("fdmux.streams.listener").addFilter(
            lambda record: logged.append(record) or True
        )
        server = EchoServer(port=0)
        server.start()
        clients = [socket.create_connection(server.address) for _ in range(60)]
        hogs = []
        while True:
            try:
                hogs.append(socket.socket())
            except OSError:
                break
        for hog in hogs[:20]:
            hog.close()
        thread = server.run_in_thread()
        while not logged:
            time.sleep(0.01)
        before = time.process_time()
        time.sleep(0.5)
        spent = time.process_time() - before
        assert spent < 0.05, f"{spent} s of CPU while nothing could be accepted"
        assert len(logged) == 1, logged
        assert server.stats.open == 20
        freed = time.monotonic()
        for client in clients[:40]:
            client.close()
        for client in clients[40:]:
            client.settimeout(10)
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        assert time.monotonic() - freed < 2
        server.stop()
        thread.join()
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
