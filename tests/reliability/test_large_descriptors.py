"""Descriptors with large numbers, up to what the system allows: watched as any other.

select(2) takes numbers up to 1,023, and writes beyond its sets for larger ones. The
tests raise the limit of open files as far as the system allows, and report how far.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import resource
import secrets
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fdmux import (
    EVENT_READ,
    EVENT_WRITE,
    ClientPool,
    EchoServer,
    NativeQueue,
    Selector,
    SelectorEventLoop,
    StreamHandler,
    add_stream,
    connect_with_timeout,
    read_with_timeout,
    wait_readable,
)
from fdmux._ffi import __file__ as library
from fdmux._native import backend_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.reliability.conftest import Bars

    from fdmux import Stream

WANTED = 19_990
SPARE = 10  # for what a test opens beside
ROOM = 40  # numbers below the highest, where nothing else is free
SPREAD = 97  # one in so many numbers
TABLE_MAX_KIB = 2048
LONG = 30.0
# Tables of other libraries end or grow at these numbers.
EDGES = (1023, 1024, 1025, 2047, 2048, 4095, 4096, 8191, 8192, 16383, 16384)


@pytest.fixture
def highest() -> Iterator[int]:
    """The highest descriptor that may be opened, with the limit raised for the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED + SPARE
    raised = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    raised = max(soft, raised) if soft != resource.RLIM_INFINITY else wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    yield min(raised, wanted) - SPARE
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class HighPair:
    """A socket under a chosen number, and its peer."""

    def __init__(self, number: int) -> None:
        near, self.peer = socket.socketpair()
        with near:
            self.number = fcntl.fcntl(near.fileno(), fcntl.F_DUPFD_CLOEXEC, number)
        self.sock = socket.socket(fileno=self.number)
        for sock in (self.sock, self.peer):
            sock.setblocking(False)

    def close(self) -> None:
        self.sock.close()
        self.peer.close()


@contextlib.contextmanager
def high_pairs(highest: int) -> Iterator[dict[int, HighPair]]:
    """Sockets under numbers from low to the highest."""
    numbers = [*range(300, highest, SPREAD), *EDGES, highest]
    pairs: dict[int, HighPair] = {}
    with contextlib.ExitStack() as stack:
        for number in sorted(one for one in numbers if one <= highest):
            pair = HighPair(number)
            stack.callback(pair.close)
            pairs[pair.number] = pair
        yield pairs


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() // 1024


def wrong_reports(
    selector: Selector, pairs: dict[int, HighPair], chance: random.Random
) -> int:
    """Make random sockets readable; count the wrong reports."""
    wrong = 0
    for count in (1, 2, len(pairs) // 2, len(pairs)):
        chosen = set(chance.sample(sorted(pairs), count))
        for number in chosen:
            pairs[number].peer.send(b"x")
        found = selector.select(LONG)
        wrong += len({key.fd for key, _ in found} ^ chosen)
        wrong += sum(1 for key, _ in found if key.data is not pairs[key.fd])
        wrong += sum(1 for _, events in found if events != EVENT_READ)
        for number in chosen:
            pairs[number].sock.recv(1)
    return wrong + len(selector.select(0))


@pytest.mark.commit
@pytest.mark.slow
@pytest.mark.parametrize("backend", backend_names())
def test_selector_reports_large_descriptors(
    bars: Bars, highest: int, backend: str
) -> None:
    seed = secrets.token_hex(8)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    chance = random.Random(seed)
    title = f"large descriptors, {backend}"
    with high_pairs(highest) as pairs, Selector(backend) as selector:
        before = resident_kib()
        selector.register(highest, EVENT_READ, pairs[highest])
        table = resident_kib() - before
        for number, pair in pairs.items():
            if number != highest:
                selector.register(pair.sock, EVENT_READ, pair)
        wrong = wrong_reports(selector, pairs, chance)
        for number in pairs:
            selector.modify(number, EVENT_WRITE, pairs[number])
        writable = {key.fd for key, _ in selector.select(LONG)}
        for number in pairs:
            selector.unregister(number)
        left = len(selector.get_map()) + selector.native.stats().fd_live
        fitting = f"{title}: the highest number (wanted: {WANTED:,})"
        bars.at_least(min(WANTED, highest), fitting, max(pairs))
        bars.at_most(0, f"{title}: wrong reports of {len(pairs)}", wrong)
        bars.at_most(0, f"{title}: not writable", len(pairs.keys() - writable))
        bars.at_most(0, f"{title}: left behind", left)
        bars.at_most(TABLE_MAX_KIB, f"{title}: memory for one", table, "KiB")


@pytest.mark.commit
def test_loop_calls_for_large_descriptors(bars: Bars, highest: int) -> None:
    called = []
    with high_pairs(highest) as pairs, SelectorEventLoop() as loop:
        for pair in pairs.values():
            pair.peer.send(b"x")
            loop.register_read(pair.sock, lambda sock: called.append(sock.recv(9)))
        loop.run_once(LONG)
        missed = len(pairs) - len(called)
        bars.at_most(0, "large descriptors: callbacks not called", missed)


class Echo(StreamHandler):
    """Answers, and counts its calls."""

    def __init__(self) -> None:
        self.received = 0

    def on_data(self, _stream: Stream, data: bytes) -> bytes:
        self.received += len(data)
        return data


@pytest.mark.commit
def test_streams_on_large_descriptors_echo(bars: Bars, highest: int) -> None:
    with high_pairs(highest) as pairs, SelectorEventLoop() as loop:
        handler = Echo()
        made = [add_stream(loop, pair.sock, handler) for pair in pairs.values()]
        moved = sum(
            stream.fileno() != number
            for stream, number in zip(made, pairs, strict=True)
        )
        for number, pair in pairs.items():
            pair.peer.send(b"%5d" % number)
        while handler.received < 5 * len(pairs):
            assert loop.run_once(LONG)
        wrong = sum(int(pair.peer.recv(9)) != number for number, pair in pairs.items())
        bars.at_most(0, "large descriptors: streams with another number", moved)
        bars.at_most(0, "large descriptors: streams with a wrong echo", wrong)


@contextlib.contextmanager
def low_numbers_taken(highest: int) -> Iterator[int]:
    """Make new descriptors get the highest numbers; yield the lowest of these."""
    first = os.open(os.devnull, os.O_RDONLY)
    last = first
    try:
        while last < highest - ROOM:
            last = os.dup(first)
        yield last + 1
    finally:
        os.closerange(first, last + 1)


@pytest.mark.commit
def test_helpers_work_with_large_descriptors_of_their_own(
    bars: Bars, highest: int
) -> None:
    """Selectors, wake-ups, listeners and clients get high numbers as well."""
    with low_numbers_taken(highest) as lowest, EchoServer(port=0) as server:
        with SelectorEventLoop() as loop, NativeQueue() as queue:
            loop.call_soon_threadsafe(loop.stop)
            loop.run(LONG)
            numbers = [loop.native.fileno(), queue.fileno()]
        server.run_in_thread()
        sock = connect_with_timeout(*server.address, LONG)
        with sock, ClientPool(*server.address, size=3, timeout=LONG) as pool:
            numbers.append(sock.fileno())
            sock.sendall(b"large")
            readable = wait_readable([sock], LONG)
            echoed = [read_with_timeout(sock, 5, LONG), *pool.exchange([b"x"] * 9, 1)]
    assert (readable, echoed) == ([sock], [b"large", *[b"x"] * 9])
    title = "large descriptors: the lowest of a loop, a queue and a client"
    bars.at_least(lowest, title, min(numbers))


@pytest.mark.commit
def test_library_has_no_use_for_select(bars: Bars) -> None:
    """A call of select would be in its list of symbols."""
    try:
        symbols = subprocess.run(
            ["nm", "-D", library], capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError:
        pytest.skip("needs nm (Debian: binutils)")
    names = {line.split()[-1].split("@")[0] for line in symbols.splitlines()}
    assert {"poll", "epoll_wait"} & names
    used = {"select", "pselect", "__fdelt_chk"} & names
    bars.at_most(0, "functions for select(2) in the library", len(used))
