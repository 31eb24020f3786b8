"""How an echo server starts, runs and ends."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fdmux._ffi import lib
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.echo import EchoServer
from fdmux.streams.limits import ServerLimits, connections_allowed
from fdmux.streams.listener import ServerStats

if TYPE_CHECKING:
    from tests.python.conftest import SelectorFactory

LONG = 30.0
SOON = 5.0


def echo_once(server: EchoServer) -> None:
    with socket.create_connection(server.address, timeout=LONG) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


def test_context_manager_starts_and_stops() -> None:
    with EchoServer(port=0) as server:
        host, port = server.address
        assert host == "127.0.0.1"
        assert port > 0
        thread = server.run_in_thread()
        echo_once(server)
    assert not thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address, timeout=LONG)


def test_stop_from_another_thread_ends_run_at_once() -> None:
    server = EchoServer(port=0)
    thread = server.run_in_thread()
    echo_once(server)
    started = time.monotonic()
    server.stop()
    thread.join()
    assert time.monotonic() - started < SOON
    server.stop()


def test_stop_from_a_signal_handler_ends_run_at_once() -> None:
    main = threading.main_thread().ident
    assert main is not None
    server = EchoServer(port=0)
    server.start()

    def kill_when_serving() -> None:
        echo_once(server)
        signal.pthread_kill(main, signal.SIGUSR1)

    old = signal.signal(signal.SIGUSR1, lambda *_: server.stop())
    thread = threading.Thread(target=kill_when_serving)
    thread.start()
    try:
        server.run()
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, old)


def test_ctrl_c_leaves_run_and_stop_closes() -> None:
    with EchoServer(port=0) as server:

        def interrupt() -> None:
            echo_once(server)
            signal.raise_signal(signal.SIGINT)

        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            server.run()
        interrupter.join()


def test_run_for_some_iterations_keeps_listening() -> None:
    with (
        EchoServer(port=0) as server,
        socket.create_connection(server.address, timeout=LONG) as sock,
    ):
        sock.sendall(b"x")
        server.run(max_iterations=2)  # accept, echo
        assert sock.recv(1) == b"x"
        sock.sendall(b"y")
        server.run_in_thread(max_iterations=1).join()
        assert sock.recv(1) == b"y"
        assert server.stats.open == 1


def test_run_starts_and_restarts() -> None:
    server = EchoServer(port=0)
    for _ in range(2):
        server.run_in_thread()
        with server:
            echo_once(server)
        assert server.stats.accepted == 1


def test_stop_without_run_closes_everything() -> None:
    server = EchoServer(port=0)
    server.start()
    with socket.create_connection(server.address, timeout=LONG) as sock:
        server.run(max_iterations=1)
        server.stop()
        assert sock.recv(1) == b""


def test_second_start_and_second_run_are_refused() -> None:
    with EchoServer(port=0) as server:
        with pytest.raises(RuntimeError, match="start the server"):
            server.start()
        server.run_in_thread()
        with pytest.raises(RuntimeError, match="running already"):
            server.run()
        with pytest.raises(RuntimeError, match="running already"):
            server.run_in_thread()
        echo_once(server)


def test_before_start_there_is_no_address() -> None:
    server = EchoServer(port=0)
    with pytest.raises(RuntimeError, match="before start"):
        _ = server.address
    assert server.stats == ServerStats()
    server.stop()


def test_bind_error_is_raised_in_the_caller_and_names_the_address() -> None:
    with EchoServer(port=0) as server:
        port = server.address[1]
        second = EchoServer(port=port)
        for start in (second.start, second.run, second.run_in_thread):
            with pytest.raises(OSError, match=f"listen on .*{port}") as caught:
                start()
            assert caught.value.errno == errno.EADDRINUSE
        second.stop()


def test_unknown_host_is_an_error_of_name_resolution() -> None:
    with pytest.raises(OSError, match="listen on"):
        EchoServer("256.256.256.256", 0).start()


@pytest.mark.parametrize("host", ["", None])
def test_every_interface_must_be_asked_for(host: str) -> None:
    with pytest.raises(ValueError, match=r'"0\.0\.0\.0"'):
        EchoServer(host, 0)


@pytest.mark.parametrize("port", [-1, 65536, 1 << 40])
def test_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(OverflowError, match=r"0\.\.65535"):
        EchoServer(port=port)


@pytest.mark.parametrize("bufsize", [0, -1, 262_145])
def test_bufsize_out_of_range_is_refused(bufsize: int) -> None:
    with pytest.raises(ValueError, match="bufsize"):
        EchoServer(bufsize=bufsize)


@pytest.mark.parametrize(
    "limits",
    [
        {"connection_max": 0},
        {"receive_max": 0},
        {"queue_max": 1 << 31},
        {"queue_high": 0},
        {"queue_low": -1},
        {"queue_low": 1 << 17},
        {"total_max": 1000},
        {"idle_timeout": 0},
        {"stall_timeout": float("nan")},
    ],
)
def test_contradicting_limits_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        ServerLimits(**limits)


def test_bound_that_one_read_could_overrun_is_refused() -> None:
    limits = ServerLimits(queue_max=64 * 1024 + 4095)
    with pytest.raises(ValueError, match="queue_max"):
        EchoServer(limits=limits)


def test_open_files_bound_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (100, 4096))
    assert connections_allowed(1000) == 36
    assert connections_allowed(7) == 7
    monkeypatch.setattr("resource.getrlimit", lambda _: (-1, -1))
    assert connections_allowed(1000) == 1000


def test_ipv6_literal_is_served() -> None:
    with EchoServer("::1", 0) as server:
        server.run_in_thread()
        assert server.address[0] == "::1"
        echo_once(server)


def test_sockets_are_neither_inherited_nor_blocking() -> None:
    with EchoServer(port=0) as server:
        listener = server._listener
        assert listener is not None
        assert not os.get_inheritable(listener.fileno())
        assert not os.get_blocking(listener.fileno())


def test_given_loop_stays_open(selector_factory: SelectorFactory) -> None:
    with SelectorEventLoop(selector_factory()) as loop:
        with EchoServer(port=0, loop=loop) as server:
            server.run_in_thread()
            echo_once(server)
        assert loop.run_once(0) == 0


def iterate(server: EchoServer) -> None:
    """Run an iteration of the loop, without waiting."""
    assert server._loop is not None
    server._loop.run_once(0)


def clog(server: EchoServer, sock: socket.socket) -> None:
    """Send without reading, until the server has stopped reading."""
    while server.stats.bytes_queued < ServerLimits().queue_high:
        with contextlib.suppress(BlockingIOError):
            sock.send(b"x" * 65536)
        iterate(server)


class TestTimeouts:
    """A minute passes on the fake clock: C counts ticks of 0.25 s."""

    def advance(self, server: EchoServer, seconds: float) -> None:
        loop = server._loop
        assert loop is not None
        lib.fdmux_py_stream_tick(loop.native._c_loop, round(seconds * 4))
        loop.run_once(0)

    def test_idle_client_is_closed(self) -> None:
        with EchoServer(port=0) as server:
            busy = socket.create_connection(server.address, timeout=LONG)
            idle = socket.create_connection(server.address, timeout=LONG)
            with busy, idle:
                while server.stats.open < 2:
                    server.run(max_iterations=1)
                for _ in range(2):
                    self.advance(server, 29)
                    busy.sendall(b"x")
                    server.run(max_iterations=1)
                self.advance(server, 1.75)
                assert server.stats.open == 2  # 59.75 s: not early
                self.advance(server, 0.75)
                assert (server.stats.open, server.stats.expired) == (1, 1)
                assert idle.recv(1) == b""
                assert busy.recv(2) == b"xx"

    def test_client_that_takes_nothing_is_closed(self) -> None:
        limits = ServerLimits(idle_timeout=None, stall_timeout=60)
        with (
            EchoServer(port=0, limits=limits) as server,
            socket.create_connection(server.address, timeout=LONG) as sock,
        ):
            sock.setblocking(False)
            clog(server, sock)
            self.advance(server, 59)
            assert server.stats.open == 1
            queued = server.stats.bytes_queued
            while server.stats.bytes_queued == queued:  # the count begins anew
                sock.recv(1 << 20)
                iterate(server)
            clog(server, sock)
            self.advance(server, 55)
            assert server.stats.open == 1
            self.advance(server, 6)
            assert (server.stats.open, server.stats.expired) == (0, 1)
            assert server.stats.bytes_queued == 0

    def test_without_timeouts_nobody_is_closed(self) -> None:
        limits = ServerLimits(idle_timeout=None, stall_timeout=None)
        with (
            EchoServer(port=0, limits=limits) as server,
            socket.create_connection(server.address, timeout=LONG),
        ):
            server.run(max_iterations=1)
            self.advance(server, 1e6)
            assert server.stats.open == 1
