"""Clients that send and never read cost no more than the limits say.

Bytes wait in the server's queues up to a cap for each client and a cap for all; then
the server reads no more. It serves other clients as before. A client that reads late
gets every byte, and one that never reads is closed. The kernel limits its own buffers.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import resource
import secrets
import selectors
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.reliability.echo_process import EchoProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.reliability.conftest import Bars
    from tests.reliability.echo_process import Facts

KIB = 1024
QUEUE_MAX = 256 * KIB
TOTAL_MAX = 64 * KIB * KIB
# The kernel's buffers of the client: small, so that the server has to queue.
CLIENT_BUFFER = 32 * KIB
# The kernel's send buffer of the server in MiB; Linux grows it up to this.
SEND_BUFFER_MAX = 4
# Memory for a client besides its queue, in C and for Python's objects.
BESIDES = 64 * KIB
# A client that cannot send for this long is not read any more.
QUIET = 0.5
LONG = 60.0
PINGS = 300


class Sender:
    """A client that only sends; it hashes what the kernel took."""

    def __init__(self, address: tuple[str, int], pattern: bytes) -> None:
        self.sock = socket.socket()
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.sock.setsockopt(socket.SOL_SOCKET, option, CLIENT_BUFFER)
        self.sock.connect(address)
        self.sock.setblocking(False)
        self._pattern = memoryview(pattern)
        self._place = 0
        self.hash = hashlib.sha256()

    def send(self) -> bool:
        """Send what the kernel takes; return whether the connection is open."""
        try:
            while True:
                chunk = self._pattern[self._place :]
                count = self.sock.send(chunk)
                self.hash.update(chunk[:count])
                self._place = (self._place + count) % len(self._pattern)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False

    def receive_all(self) -> bytes:
        """End the stream, and read all that comes back; return its hash."""
        self.sock.shutdown(socket.SHUT_WR)
        self.sock.settimeout(LONG)
        received = hashlib.sha256()
        while data := self.sock.recv(65536):
            received.update(data)
        return received.digest()


@contextlib.contextmanager
def senders(server: EchoProcess, count: int) -> Iterator[list[Sender]]:
    """Let ``count`` clients send until the server takes no more of any."""
    seed = secrets.token_hex(8)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    pattern = random.Random(seed).randbytes(99_991)
    with contextlib.ExitStack() as stack, selectors.EpollSelector() as selector:
        crowd = []
        for _ in range(count):
            crowd.append(Sender(server.address, pattern))
            stack.callback(crowd[-1].sock.close)
            selector.register(crowd[-1].sock, selectors.EVENT_WRITE, crowd[-1])
        while ready := selector.select(QUIET):
            for key, _events in ready:
                if not key.data.send():
                    selector.unregister(key.fileobj)
        yield crowd


def ping_p99(server: EchoProcess) -> float:
    """Measure the echo of one byte from a client beside; p99 in ms."""
    times = []
    with socket.create_connection(server.address, timeout=LONG) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(PINGS):
            start = time.perf_counter()
            sock.sendall(b"p")
            assert sock.recv(2) == b"p"
            times.append((time.perf_counter() - start) * 1000)
    return sorted(times)[int(PINGS * 0.99)]


def kernel_memory() -> float:
    """Return the kernel's memory of all TCP sockets in MiB; /proc/net/sockstat."""
    lines = Path("/proc/net/sockstat").read_text(encoding="ascii").splitlines()
    words = next(line for line in lines if line.startswith("TCP:")).split()
    return int(words[words.index("mem") + 1]) * resource.getpagesize() / KIB**2


def watch(server: EchoProcess, seconds: float) -> tuple[Facts, Facts]:
    """Watch for ``seconds``; return the first facts, the last, and the peaks."""
    first = server.facts()
    last = first
    deadline = time.monotonic() + seconds
    longest, total = first["longest_queue"], first["bytes_queued"]
    while time.monotonic() < deadline:
        time.sleep(0.1)  # the test is that nothing happens meanwhile
        last = server.facts()
        longest = max(longest, last["longest_queue"])
        total = max(total, last["bytes_queued"])
    return first, {**last, "longest_queue": longest, "bytes_queued": total}


def check_held(bars: Bars, count: int, seconds: float, latency_max: float) -> float:
    """``count`` clients that never read are held to the caps for ``seconds``.

    Returns what the kernel has kept for them beside that, in MiB.
    """
    title = f"{count} clients that never read"
    with EchoProcess(stall_timeout=None, idle_timeout=None) as server:
        base, unloaded = server.facts(), ping_p99(server)
        kernel_before = kernel_memory()
        with senders(server, count) as crowd:
            first, last = watch(server, seconds)
            kernel = kernel_memory() - kernel_before
            loaded = ping_p99(server)
            digest = crowd[0].receive_all()
            assert digest == crowd[0].hash.digest(), "wrong bytes after all"
    growth = (last["peak_kib"] - base["rss_kib"]) * KIB
    bars.at_most(
        count * (QUEUE_MAX + BESIDES) / KIB**2,
        f"{title}: memory gained",
        growth / KIB**2,
        "MiB",
    )
    bars.at_most(QUEUE_MAX, f"{title}: longest queue", last["longest_queue"], "B")
    bars.at_most(TOTAL_MAX, f"{title}: all queues", last["bytes_queued"], "B")
    bars.at_most(0, f"{title}: still read", last["reading"] - base["reading"])
    read = last["bytes_in"] - first["bytes_in"]
    bars.at_most(0, f"{title}: read meanwhile", read, "B")
    cpu = (last["cpu"] - first["cpu"]) / seconds * 100
    bars.at_most(20, f"{title}: CPU meanwhile", cpu, "%")
    bars.at_most(
        max(2 * unloaded, latency_max),
        f"{title}: echo for others, p99 (before: {unloaded:.2f} ms)",
        loaded,
        "ms",
    )
    return kernel


@pytest.mark.commit
@pytest.mark.slow
def test_slow_readers_are_held_to_the_caps(bars: Bars) -> None:
    check_held(bars, count=25, seconds=1.0, latency_max=100)


@pytest.mark.nightly
def test_two_hundred_slow_readers_are_held_to_the_caps(bars: Bars) -> None:
    kernel = check_held(bars, count=200, seconds=10.0, latency_max=2)
    # tcp(7): tcp_wmem is a cap for each socket; the count includes overhead.
    title = "200 clients that never read: beside it, the kernel's memory"
    bars.at_most(200 * 2 * SEND_BUFFER_MAX, title, kernel, "MiB")


@pytest.mark.commit
@pytest.mark.slow
def test_all_queues_together_are_held_to_a_cap(bars: Bars) -> None:
    """40 clients reach the cap for all long before any reaches its own."""
    total_max = KIB * KIB
    no_timeouts = {"stall_timeout": None, "idle_timeout": None}
    with EchoProcess(total_max=total_max, **no_timeouts) as server:
        with senders(server, 40) as crowd:
            _first, last = watch(server, 0.5)
            digest = crowd[-1].receive_all()
            assert digest == crowd[-1].hash.digest(), "wrong bytes after all"
        bars.at_most(total_max, "cap of 1 MiB for all", last["bytes_queued"], "B")
        bars.at_least(total_max // 2, "of it used", last["bytes_queued"], "B")
        bars.at_most(0, "closed for what others queued", last["overrun"])


@pytest.mark.commit
@pytest.mark.slow
def test_stalled_clients_are_closed(bars: Bars) -> None:
    """The server closes only the client that reads nothing for `stall_timeout`."""
    count = 20
    with EchoProcess(stall_timeout=1.0) as server:
        with senders(server, count), reader(server) as sock:
            facts = server.facts_when(lambda facts: facts["expired"] >= count)
            sock.sendall(b"still here?")
            assert sock.recv(100) == b"still here?"
        bars.at_least(count, "stalled clients closed", facts["expired"])
        bars.at_most(0, "bytes kept for them", facts["bytes_queued"], "B")


@contextlib.contextmanager
def reader(server: EchoProcess) -> Iterator[socket.socket]:
    with socket.create_connection(server.address, timeout=LONG) as sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        yield sock
