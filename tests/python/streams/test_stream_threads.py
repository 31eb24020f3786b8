"""Streams belong to the thread of their loop; others must post a call."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest
from tests.peers import receive
from tests.python.streams.recorder import LONG, Recorder, run_until

from fdmux._native import LoopClosed
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.client import add_stream
from fdmux.streams.server import StreamServer
from fdmux.streams.stream import Stream, StreamHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAY_OUT = r"another thread.*call_soon_threadsafe\(\)"


class Room(StreamHandler):
    """Greets each client and keeps the list of them."""

    def __init__(self) -> None:
        self.members: list[Stream] = []
        self.gone = threading.Event()

    def on_connect(self, stream: Stream) -> None:
        self.members.append(stream)
        stream.write(b"welcome\n")

    def on_data(self, _stream: Stream, data: bytes) -> bytes:
        return data

    def on_close(self, stream: Stream, _error: Exception | None) -> None:
        self.members.remove(stream)
        self.gone.set()

    def tell(self, text: bytes) -> None:
        for member in self.members:
            member.write(text)


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def server(room: Room) -> Iterator[StreamServer]:
    with StreamServer("127.0.0.1", 0, room) as server:
        server.run_in_thread()
        yield server


@pytest.fixture
def client(server: StreamServer) -> Iterator[socket.socket]:
    """The clients that were greeted."""
    with socket.create_connection(server.address, timeout=LONG) as sock:
        assert receive(sock, 8) == b"welcome\n"
        yield sock


USES: dict[str, Callable[[Stream], object]] = {
    "write": lambda stream: stream.write(b"x"),
    "writelines": lambda stream: stream.writelines([b"x", b"y"]),
    "shutdown": lambda stream: stream.shutdown(),
    "close": lambda stream: stream.close(),
    "abort": lambda stream: stream.abort(),
    "pause_reading": lambda stream: stream.pause_reading(),
    "resume_reading": lambda stream: stream.resume_reading(),
    "buffered": lambda stream: stream.buffered,
    "received": lambda stream: stream.received,
    "sent": lambda stream: stream.sent,
}


@pytest.mark.parametrize("name", USES)
def test_use_by_another_thread_is_refused_and_names_the_way(
    room: Room, client: socket.socket, name: str
) -> None:
    (stream,) = room.members
    with pytest.raises(RuntimeError, match=WAY_OUT):
        USES[name](stream)
    client.sendall(b"as before")
    assert receive(client, 9) == b"as before"


def test_what_harms_nobody_may_be_asked_by_any_thread(
    room: Room, client: socket.socket
) -> None:
    (stream,) = room.members
    assert not stream.is_closing
    assert stream.fileno() >= 0
    assert stream.peername == client.getsockname()
    stream.data = "anything"


def test_call_in_the_server_s_thread_may_use_streams(
    server: StreamServer, room: Room, client: socket.socket
) -> None:
    server.call_soon_threadsafe(room.tell, b"news\n")
    assert receive(client, 5) == b"news\n"
    server.call_soon_threadsafe(room.members[0].close)
    assert client.recv(1) == b""


def test_call_in_the_server_s_thread_takes_arguments_and_can_be_cancelled(
    server: StreamServer,
) -> None:
    called: list[tuple[object, ...]] = []
    done = threading.Event()

    def note(*args: object, key: object = None) -> None:
        called.append((*args, key))

    # The server gets there only after the last of these calls was posted.
    held = threading.Event()
    server.call_soon_threadsafe(held.wait, LONG)
    server.call_soon_threadsafe(note, 1, key=2)
    server.call_soon_threadsafe(note, "cancelled").cancel()
    server.call_soon_threadsafe(done.set)
    held.set()
    assert done.wait(LONG)
    assert called == [(1, 2)]


def test_call_in_the_thread_of_a_server_that_does_not_run_is_refused(
    room: Room,
) -> None:
    server = StreamServer("127.0.0.1", 0, room)
    with pytest.raises(LoopClosed, match="not started"):
        server.call_soon_threadsafe(room.tell, b"x")
    with server:
        server.run_in_thread()
    with pytest.raises(LoopClosed):
        server.call_soon_threadsafe(room.tell, b"x")


def test_call_before_run_is_made_by_run(room: Room) -> None:
    called: list[int] = []
    with StreamServer("127.0.0.1", 0, room) as server:
        server.call_soon_threadsafe(lambda: called.append(threading.get_ident()))
        server.run(max_iterations=1)
        assert called == [threading.get_ident()]


def test_four_writing_threads_do_not_end_the_server(
    server: StreamServer, room: Room, client: socket.socket
) -> None:
    """Right and wrong calls at once: the wrong ones raise, and no byte is lost."""
    count = 250
    (stream,) = room.members
    refused: list[RuntimeError] = []

    def write() -> None:
        for _ in range(count):
            server.call_soon_threadsafe(stream.write, b"x")
            try:
                stream.write(b"wrong")
            except RuntimeError as error:
                refused.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert receive(client, 4 * count) == b"x" * 4 * count
    for thread in threads:
        thread.join()
    assert len(refused) == 4 * count
    client.sendall(b"still there")
    assert receive(client, 11) == b"still there"


def test_loop_that_nobody_runs_may_be_used_by_any_thread(
    loop: SelectorEventLoop, peer: socket.socket, stream: Stream
) -> None:
    """Threads may use a loop one after the other: one may write, another run it."""
    thread = threading.Thread(target=stream.write, args=(b"hello",))
    thread.start()
    thread.join()
    assert receive(peer, 5) == b"hello"
    loop.run_once(0)


def test_loop_belongs_to_whoever_runs_it_now(handler: Recorder) -> None:
    ours, theirs = socket.socketpair()
    with ours, SelectorEventLoop() as loop:
        stream = add_stream(loop, theirs, handler)

        def answer(each: Stream, data: bytes) -> bytes:
            assert each is stream
            each.write(data)
            loop.stop()
            return b""

        handler.answer = answer
        for _ in range(2):
            thread = threading.Thread(target=loop.run)
            thread.start()
            ours.sendall(b"x")
            assert receive(ours, 1) == b"x"
            thread.join()
        stream.write(b"here again")
        assert receive(ours, 10) == b"here again"
        stream.close()
        run_until(loop, lambda: handler.errors)


# ---- gevent --------------------------------------------------------------------------


PATCHED = """
    from gevent import monkey
    monkey.patch_all({options})
    import fdmux
    server = fdmux.EchoServer(port=0)
    try:
        thread = server.run_in_thread()
    except RuntimeError as error:
        print(error)
    else:
        with fdmux.connect_with_timeout(*server.address, timeout=30.0) as sock:
            sock.sendall(b"served")
            print(fdmux.read_with_timeout(sock, 6, timeout=30.0).decode())
    server.stop()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [("", "gevent has patched threading"), ("thread=False", "served")],
)
def test_server_in_a_greenlet_refuses_instead_of_blocking_all(
    options: str, said: str
) -> None:
    pytest.importorskip("gevent")
    program = textwrap.dedent(PATCHED.format(options=options))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        check=False,
        text=True,
        timeout=2 * LONG,
    )
    assert said in done.stdout, done.stderr
    assert done.returncode == 0
