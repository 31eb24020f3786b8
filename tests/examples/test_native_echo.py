"""The native echo example, built against the wheel and hosted by Python.

Each test runs a small program in the installation, where the C service and Python's own
sockets share one `SelectorEventLoop`; what it prints is compared here.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from tests.tree import ROOT

if TYPE_CHECKING:
    from tests.examples.conftest import Installation

pytestmark = pytest.mark.slow  # the extension is compiled for the first of them

DEADLINE = 20.0

# How each program begins: a loop, a service, and clients in Python.
PRELUDE = f"""
import hashlib, json, native_echo, os, random, socket, struct, time
from fdmux import SelectorEventLoop

class Client:
    # Sends `size` bytes as fast as they go, reads `most` at once, hashes both ways.
    def __init__(self, loop, port, size, seed, most=65536, room=0):
        self.sock = socket.socket()
        if room:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setblocking(False)
        self.loop, self.most, self.size = loop, most, size
        self.data = memoryview(random.Random(seed).randbytes(size))
        self.sent = self.received = 0
        self.hash = hashlib.sha256()
        loop.register_write(self.sock, self.on_write)

    def read_too(self):
        self.loop.register_read(self.sock, self.on_read)

    def on_write(self, sock):
        self.sent += sock.send(self.data[self.sent : self.sent + 65536])
        if self.sent == self.size:
            self.loop.unregister_write(sock)
            sock.shutdown(socket.SHUT_WR)

    def on_read(self, sock):
        received = sock.recv(self.most)
        self.received += len(received)
        self.hash.update(received)
        if not received:
            self.close()

    def close(self):
        self.loop.unregister(self.sock)
        self.sock.close()

    def is_right(self):
        return self.hash.digest() == hashlib.sha256(self.data).digest()

def run_until(loop, is_done):
    deadline = time.monotonic() + {DEADLINE}
    while not is_done():
        if time.monotonic() > deadline:
            raise SystemExit("nothing happened any more")
        loop.run_once(timeout=0.01)
"""


@pytest.fixture(scope="module")
def native_echo(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """The installation, with the example built from a copy of its sources."""
    copy = tmp_path_factory.mktemp("native-echo") / "source"
    ignored = shutil.ignore_patterns("build", "*.egg-info")
    shutil.copytree(ROOT / "examples" / "native-echo", copy, ignore=ignored)
    installation.install("--no-deps", copy)
    return installation


def outcome(installation: Installation, program: str) -> object:
    """Run a program behind the prelude; return what it says in JSON."""
    code = f"{PRELUDE}\n{program}"
    return json.loads(installation.run("python", "-W", "error", "-c", code))


def test_hundred_clients_get_their_own_bytes_back(native_echo: Installation) -> None:
    program = """
with SelectorEventLoop() as loop:
    server = native_echo.serve(loop)
    clients = [Client(loop, server.port(), 50_000 + n, n) for n in range(100)]
    for client in clients:
        client.read_too()
    run_until(loop, lambda: all(c.sock.fileno() < 0 for c in clients))
    run_until(loop, lambda: server.counts()["connections"] == 0)
    right = sum(client.is_right() for client in clients)
    print(json.dumps({"right": right, **server.counts()}))
"""
    counts = outcome(native_echo, program)
    assert isinstance(counts, dict)
    kept = counts.pop("kept")
    assert kept >= 0  # whether sends fall short here is the kernel's affair
    total = sum(50_000 + n for n in range(100))
    assert counts == {
        "right": 100,
        "connections": 0,
        "accepted": 100,
        "bytes": total,
        "failed": 0,
    }


def test_what_the_kernel_does_not_take_is_kept_and_sent_in_order(
    native_echo: Installation,
) -> None:
    """A client that only sends is not read; once it reads, no byte is missing."""
    program = """
with SelectorEventLoop() as loop:
    server = native_echo.serve(loop)
    size = 64_000_000  # more than tcp_rmem and tcp_wmem let the kernel hold (tcp(7))
    client = Client(loop, server.port(), size, seed=1, most=4096, room=4096)
    run_until(loop, lambda: server.counts()["kept"] > 0)
    before = -1
    while before != client.sent:  # until all buffers are full
        before = client.sent
        for _ in range(20):
            loop.run_once(timeout=0.002)
    stopped_at = client.sent
    client.read_too()
    client.most = 1 << 20
    run_until(loop, lambda: client.sock.fileno() < 0)
    counts = server.counts()
    print(json.dumps({
        "was_stopped": stopped_at < size,
        "is_right": client.is_right(),
        "all": client.received == size == counts["bytes"],
        "kept_often": counts["kept"] > 1,
    }))
"""
    assert outcome(native_echo, program) == {
        "was_stopped": True,
        "is_right": True,
        "all": True,
        "kept_often": True,
    }


def test_reset_ends_one_connection_and_no_other(native_echo: Installation) -> None:
    program = """
with SelectorEventLoop() as loop:
    server = native_echo.serve(loop)
    other = Client(loop, server.port(), 100_000, seed=2)
    broken = Client(loop, server.port(), 8_000_000, seed=3)  # which it does not read
    run_until(loop, lambda: server.counts()["kept"] > 0)
    broken.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    broken.close()
    run_until(loop, lambda: server.counts()["failed"] == 1)
    other.read_too()
    run_until(loop, lambda: other.sock.fileno() < 0)
    run_until(loop, lambda: server.counts()["connections"] == 0)
    print(json.dumps([other.is_right(), server.counts()["failed"]]))
"""
    assert outcome(native_echo, program) == [True, 1]


@pytest.mark.parametrize("ending", ["server.close()", "loop.close()"])
def test_end_leaves_no_descriptor(native_echo: Installation, ending: str) -> None:
    program = f"""
before = len(os.listdir("/proc/self/fd"))
loop = SelectorEventLoop()
server = native_echo.serve(loop)
socks = [socket.create_connection(("127.0.0.1", server.port())) for _ in range(5)]
run_until(loop, lambda: server.counts()["connections"] == 5)
{ending}
ends = [sock.recv(1) for sock in socks]
server.close()
loop.close()
for sock in socks:
    sock.close()
print(json.dumps([ends == [b""] * 5, server.counts()["connections"],
                  len(os.listdir("/proc/self/fd")) - before]))
"""
    assert outcome(native_echo, program) == [True, 0, 0]


def test_python_timer_stays_in_turn_beside_the_traffic(
    native_echo: Installation,
) -> None:
    """The echo runs in C, and does not keep Python from running."""
    program = """
with SelectorEventLoop() as loop:
    server = native_echo.serve(loop)
    client = Client(loop, server.port(), 32_000_000, seed=4, most=1 << 20)
    client.read_too()
    ticks = []
    def tick():
        ticks.append(server.counts()["bytes"])
        if client.sock.fileno() >= 0:
            loop.call_later(0.001, tick)
    loop.call_later(0.001, tick)
    run_until(loop, lambda: client.sock.fileno() < 0)
    moments = len({count for count in ticks if 0 < count < 32_000_000})
    print(json.dumps([client.is_right(), moments >= 3]))
"""
    assert outcome(native_echo, program) == [True, True]


def test_service_refuses_what_has_no_loop(native_echo: Installation) -> None:
    program = """
loop = SelectorEventLoop()
native = loop.native
loop.close()
said = []
for owner in (socket, native):
    try:
        native_echo.serve(owner)
    except (TypeError, OSError) as error:
        said.append(type(error).__name__)
print(json.dumps(said))
"""
    assert outcome(native_echo, program) == ["TypeError", "OSError"]
