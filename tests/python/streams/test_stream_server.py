"""StreamServer: its handler, its addresses, its end, and very many clients."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest

from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams import address
from fdmux.streams import server as server_module
from fdmux.streams.client import connect_stream
from fdmux.streams.limits import ServerLimits
from fdmux.streams.listener import Listener
from fdmux.streams.server import StreamServer
from fdmux.streams.stream import Stream, StreamHandler

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

    from tests.python.conftest import SelectorFactory

LONG = 30.0
ANY = "127.0.0.1"


class Recorder(StreamHandler):
    """Echoes; records the clients that connect and leave."""

    def __init__(self) -> None:
        self.opened: list[Stream] = []
        self.closed: list[Exception | None] = []

    def on_connect(self, stream: Stream) -> None:
        self.opened.append(stream)
        stream.data = len(self.opened)

    def on_data(self, _stream: Stream, data: bytes) -> bytes:
        return data

    def on_close(self, stream: Stream, error: Exception | None) -> None:
        assert stream in self.opened
        self.closed.append(error)


@pytest.fixture
def handler() -> Recorder:
    return Recorder()


def echo_once(sock: socket.socket) -> None:
    sock.settimeout(LONG)
    sock.sendall(b"x")
    assert sock.recv(1) == b"x"


def test_stop_is_told_to_every_stream(
    handler: Recorder, selector_factory: SelectorFactory
) -> None:
    with SelectorEventLoop(selector_factory()) as loop:
        server = StreamServer(ANY, 0, handler, loop=loop)
        with server:
            server.run_in_thread()
            socks = [socket.create_connection(server.address) for _ in range(5)]
            for sock in socks:
                echo_once(sock)
        assert handler.closed == [None] * 5
        assert server.stats.open == 0
        assert server.stats.errors == 0
        for sock in socks:
            assert sock.recv(1) == b""
            sock.close()
        assert loop.run_once(0) == 0


def test_stop_closes_the_streams_of_that_server_alone() -> None:
    first, second = Recorder(), Recorder()
    with SelectorEventLoop() as loop:
        one = StreamServer(ANY, 0, first, loop=loop)
        two = StreamServer(ANY, 0, second, loop=loop)
        one.start()
        with (
            two,
            socket.create_connection(one.address, timeout=LONG) as lost,
            socket.create_connection(two.address, timeout=LONG) as kept,
        ):
            while not (first.opened and second.opened):
                loop.run_once(LONG)
            one.stop()
            assert lost.recv(1) == b""
            kept.sendall(b"x")
            loop.run_once(LONG)
            assert kept.recv(1) == b"x"
        assert (first.closed, second.closed) == ([None], [None])


def test_stop_in_a_callback_of_a_stream() -> None:
    """`stop` in a callback of the caller's loop takes effect after the batch."""

    class Stopper(StreamHandler):
        def on_connect(self, _stream: Stream) -> None:
            server.stop()

        def on_close(self, _stream: Stream, _error: Exception | None) -> None:
            loop.stop()

    with SelectorEventLoop() as loop:
        server = StreamServer(ANY, 0, Stopper(), loop=loop)
        server.start()
        with socket.create_connection(server.address, timeout=LONG) as sock:
            loop.run()
            assert sock.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.address)


def test_on_connect_that_raises_ends_its_stream_alone(
    handler: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    class Choosy(Recorder):
        def on_connect(self, stream: Stream) -> None:
            super().on_connect(stream)
            if len(self.opened) == 1:
                raise ZeroDivisionError

    choosy = Choosy()
    with StreamServer(ANY, 0, choosy) as server:
        server.run_in_thread()
        with socket.create_connection(server.address, timeout=LONG) as sock:
            assert sock.recv(1) == b""
        with socket.create_connection(server.address, timeout=LONG) as sock:
            echo_once(sock)
            assert server.stats.errors == 1
    assert isinstance(choosy.closed[0], ZeroDivisionError)
    assert "ZeroDivisionError" in caplog.text
    assert handler.opened == []


def test_greeting_is_sent_before_anything_came() -> None:
    class Greeter(StreamHandler):
        def on_connect(self, stream: Stream) -> None:
            stream.write(b"welcome\n")
            stream.close()

    with StreamServer("::1", 0, Greeter()) as server:
        server.run_in_thread()
        with socket.create_connection(server.address[:2], timeout=LONG) as sock:
            assert sock.recv(99) == b"welcome\n"
            assert sock.recv(1) == b""


def test_unix_socket_is_made_and_removed(handler: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with StreamServer(str(path), None, handler) as server:
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert server.address == (str(path), 0)
        server.run_in_thread()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            echo_once(sock)
        with pytest.raises(OSError, match="in use"):
            StreamServer(str(path), None, handler).start()
    assert not path.exists()


def test_unix_socket_that_is_another_is_left(handler: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with StreamServer(str(path), None, handler):
        path.rename(tmp_path / "old")
        path.write_text("not a socket")
    assert path.read_text() == "not a socket"


def test_unix_path_that_is_too_long(handler: Recorder, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        StreamServer(str(tmp_path / ("x" * 200)), None, handler).start()


def abstract_name() -> str:
    return f"\0fdmux-test-{os.getpid()}-{os.urandom(4).hex()}"


def test_abstract_unix_address_is_served_without_a_file(handler: Recorder) -> None:
    name = abstract_name()
    seen: list[bytes] = []

    class Ask(StreamHandler):
        def on_connect(self, stream: Stream) -> None:
            stream.write(b"hi")

        def on_data(self, stream: Stream, data: bytes) -> None:
            seen.append(data)
            assert stream.peername == name.encode()
            loop.stop()

    with (
        SelectorEventLoop() as loop,
        StreamServer(name, None, handler, loop=loop) as server,
    ):
        assert server.address == (name, 0)
        with pytest.raises(OSError, match="in use"):
            StreamServer(name, None, handler).start()
        connect_stream(loop, name, Ask())
        loop.run(LONG)
    assert seen == [b"hi"]


def test_unix_path_that_cannot_be_removed_is_logged(
    handler: Recorder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "socket"

    def refuse(_path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    before = os.listdir("/proc/self/fd")
    server = StreamServer(str(path), None, handler)
    server.start()
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        server.stop()
    assert f"cannot remove the Unix socket '{path}'" in caplog.text
    assert os.listdir("/proc/self/fd") == before


def test_directory_of_a_unix_path_may_be_gone(
    handler: Recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = tmp_path / "folder"
    folder.mkdir()
    with StreamServer(f"{folder}/socket", None, handler):
        (folder / "socket").unlink()
        folder.rmdir()
    assert "was removed already" in caplog.text


@pytest.mark.parametrize("step", ["stat", "listen", "loop", "listener"])
def test_start_that_fails_leaves_nothing(
    handler: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        raise OSError(errno.ENOMEM, "no room")

    target, name = {
        "stat": (address, "SocketFile"),
        "listen": (socket.socket, "listen"),
        "loop": (server_module, "SelectorEventLoop"),
        "listener": (Listener, "_take_over"),
    }[step]
    before = os.listdir("/proc/self/fd")
    path = tmp_path / "socket"
    with monkeypatch.context() as patch:
        patch.setattr(target, name, refuse)
        with pytest.raises(OSError, match="no room"):
            StreamServer(str(path), None, handler).start()
    assert os.listdir("/proc/self/fd") == before
    assert path.exists() is (step == "stat")  # nobody knows whose it is


def test_port_is_shared_if_asked(handler: Recorder) -> None:
    with StreamServer(ANY, 0, handler, reuse_port=True) as first:
        port = first.address[1]
        with pytest.raises(OSError, match="in use"):
            StreamServer(ANY, port, handler).start()
        with StreamServer(ANY, port, handler, reuse_port=True) as second:
            assert second.address == first.address


@pytest.mark.parametrize("backlog", [0, -1])
def test_backlog_out_of_range(handler: Recorder, backlog: int) -> None:
    with pytest.raises(ValueError, match="backlog"):
        StreamServer(ANY, 0, handler, backlog=backlog)


def test_stats_are_of_the_last_start(handler: Recorder) -> None:
    server = StreamServer(ANY, 0, handler)
    for _ in range(2):
        server.run_in_thread()
        with server, socket.create_connection(server.address) as sock:
            echo_once(sock)
        assert (server.stats.accepted, server.stats.bytes_in) == (1, 1)
        assert (server.stats.open, server.stats.bytes_out) == (0, 1)


def connect_many(
    socks: list[socket.socket], address: tuple[str, int], count: int
) -> None:
    """Connect; those in ``socks`` are open also if this fails."""
    socks.extend(socket.create_connection(address, timeout=LONG) for _ in range(count))


def test_two_thousand_connections_at_once(handler: Recorder) -> None:
    import resource  # noqa: PLC0415 - Windows has none, but the other tests

    limits = ServerLimits(connection_max=2000)
    need = 2 * 2000 + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < need:
        pytest.skip(f"needs {need} descriptors of {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, need), hard))
    socks: list[socket.socket] = []
    try:
        with StreamServer(ANY, 0, handler, limits=limits, backlog=4096) as server:
            server.run_in_thread()
            connect_many(socks, server.address, 2000)
            for i, sock in enumerate(socks):
                sock.sendall(b"%04d" % i)
            for i, sock in enumerate(socks):
                assert sock.recv(4, socket.MSG_WAITALL) == b"%04d" % i
            assert server.stats.open == 2000
        assert handler.closed == [None] * 2000
    finally:
        for sock in socks:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_ten_thousand_connections_of_another_process() -> None:
    """As many as the limit of open files allows; all open, all answered."""
    import resource  # noqa: PLC0415 - Windows has none, but the other tests

    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 10_000 if hard == resource.RLIM_INFINITY else min(10_000, hard - 200)
    program = """
        import resource, sys
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        from fdmux import ServerLimits, StreamHandler, StreamServer
        class Echo(StreamHandler):
            def on_data(self, stream, data):
                return data
        limits = ServerLimits(connection_max=int(sys.argv[1]))
        with StreamServer(
            "127.0.0.1", 0, Echo(), limits=limits, backlog=4096
        ) as server:
            print(server.address[1], flush=True)
            server.run_in_thread()
            sys.stdin.read()
            print(server.stats.open, server.stats.accepted, server.stats.errors)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    socks: list[socket.socket] = []
    with process:
        assert process.stdout is not None
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            address = (ANY, int(process.stdout.readline()))
            connect_many(socks, address, count)
            for sock in socks:
                sock.sendall(b"hello")
            for sock in socks:
                assert sock.recv(5, socket.MSG_WAITALL) == b"hello"
            out, _ = process.communicate("", timeout=LONG)
        finally:
            for sock in socks:
                sock.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            if process.poll() is None:
                process.kill()
    assert out.split() == [str(count), str(count), "0"]


def test_stats_from_other_threads_while_it_runs(handler: Recorder) -> None:
    done = threading.Event()
    with StreamServer(ANY, 0, handler) as server:
        server.run_in_thread()

        def look() -> None:
            while not done.is_set():
                stats = server.stats
                assert 0 <= stats.open <= stats.accepted

        looker = threading.Thread(target=look)
        looker.start()
        try:
            for _ in range(100):
                with socket.create_connection(server.address) as sock:
                    echo_once(sock)
        finally:
            done.set()
            looker.join()
    assert server.stats.accepted == 100


def test_client_whose_stream_cannot_be_made_is_closed_at_once(
    handler: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr("fdmux.streams.listener.ServerStream", fail)
    with StreamServer(ANY, 0, handler) as server:
        with socket.create_connection(server.address, LONG) as sock:
            server.run(1)
            assert sock.recv(1) == b""
        assert (server.stats.open, server.stats.errors) == (0, 1)
        monkeypatch.undo()
        with socket.create_connection(server.address, LONG) as sock:
            server.run(1)
            assert len(handler.opened) == 1
