"""The process or the system has no descriptor left: errors say so, and all recovers.

Waits, timers, wake-ups and streams need no new descriptor and go on. A call that needs
one raises at once and leaves nothing behind. A server waits, without spinning, until
one is free.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import resource
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.reliability.echo_process import LineProcess

from fdmux import (
    ClientPool,
    EchoServer,
    NativeLoop,
    NativeQueue,
    Selector,
    SelectorEventLoop,
    StreamHandler,
    add_stream,
    connect_stream,
    connect_with_timeout,
    mount,
    wait_readable,
    wait_writable,
)
from fdmux._ffi import lib
from fdmux._native import backend_names
from fdmux.loop.event_loop import delivery_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.reliability.conftest import Bars

    from fdmux import Stream

    Facts = dict[str, float]
    Address = tuple[str, int]

LONG = 30.0
FREE_MAX = 12  # no object of ours needs so many
HEADROOM = 40  # numbers that are filled up
TICK = 0.05  # of the timer in programs/shortage.py
LATENESS_MAX = 0.5  # the machine may be busy with other things


@contextlib.contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """Allow this process exactly ``count`` more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + HEADROOM, hard))
    fillers: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        for _ in range(count):
            os.close(fillers.pop())
        yield
    finally:
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---- whatever needs descriptors ------------------------------------------------------


def selector(_address: Address, backend: str = "epoll") -> None:
    with Selector(backend) as made:
        made.native.wake()
        assert made.select(LONG) == []


def poll_selector(address: Address) -> None:
    selector(address, "poll")


def loop(_address: Address) -> None:
    with SelectorEventLoop() as made:
        made.call_soon_threadsafe(made.stop)
        made.run(LONG)


def loop_on_a_stranger(_address: Address) -> None:
    with SelectorEventLoop(selectors.PollSelector()) as made:
        assert made.native.fileno() >= 0


def native_loop(_address: Address) -> None:
    with NativeLoop() as made:
        assert made.fileno() >= 0
        made.dispatch(0)


def queue(_address: Address) -> None:
    with NativeQueue() as made:
        assert made.fileno() >= 0


def server(_address: Address) -> None:
    with EchoServer(port=0) as made:
        assert made.stats.open == 0


def connect(address: Address) -> None:
    connect_with_timeout(*address, LONG).close()


def stream(address: Address) -> None:
    with SelectorEventLoop() as made:
        connect_stream(made, address, StreamHandler()).abort()


def pool(address: Address) -> None:
    with ClientPool(*address, timeout=LONG) as made:
        assert made.exchange([b"x"], 1) == [b"x"]


def mounted(_address: Address) -> None:
    with selectors.PollSelector() as host, mount(host) as made:
        assert made.is_mounted


NEEDY: list[Callable[[Address], None]] = [
    selector,
    poll_selector,
    loop,
    loop_on_a_stranger,
    native_loop,
    queue,
    server,
    connect,
    stream,
    pool,
    mounted,
]


class Service(LineProcess):
    """An echo server in another process, see programs/shortage.py."""

    def __init__(self) -> None:
        super().__init__("shortage.py")
        self.address = ("127.0.0.1", int(self.hear()))

    def ask(self, line: str = "facts") -> Facts:
        self.say(line)
        facts: Facts = json.loads(self.hear())
        return facts


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


def failures_until_it_works(
    use: Callable[[Address], None],
    address: Address,
    short_of: Callable[[int], contextlib.AbstractContextManager[None]],
) -> Iterator[OSError]:
    """Try it with 0, 1, 2, ... descriptors left; yield each error until it works."""
    for count in range(FREE_MAX + 1):
        try:
            with short_of(count):
                use(address)
        except OSError as error:
            yield error
        else:
            return
    raise AssertionError(f"{use.__name__} fails with {FREE_MAX} descriptors free")


class Tally:
    """What failed, and how."""

    def __init__(self) -> None:
        self.failures = self.other = 0
        self.longest = 0.0

    def add_all(self, failures: Iterator[OSError], expected: int) -> None:
        start = time.monotonic()
        for error in failures:
            now = time.monotonic()
            self.longest = max(self.longest, now - start)
            self.failures += 1
            self.other += error.errno != expected
            start = now

    def enter(self, bars: Bars, title: str, failures_min: int) -> None:
        bars.at_least(failures_min, f"{title}: attempts that failed", self.failures)
        bars.at_most(0, f"{title}: with another error", self.other)
        bars.at_most(1, f"{title}: the longest attempt", self.longest, "s")


@pytest.mark.commit
@pytest.mark.slow
def test_whatever_needs_a_descriptor_says_that_there_is_none(
    bars: Bars, service: Service
) -> None:
    for use in NEEDY:
        use(service.address)  # what is imported by need, is now
    gc.collect()
    before = open_count()
    tally = Tally()
    for use in NEEDY:
        failures = failures_until_it_works(use, service.address, free_descriptors)
        tally.add_all(failures, errno.EMFILE)
    gc.collect()
    title = f"no descriptor for {len(NEEDY)} uses"
    tally.enter(bars, title, failures_min=20)
    bars.at_most(0, f"{title}: left open", open_count() - before)


@contextlib.contextmanager
def full_system(count: int) -> Iterator[None]:
    """Let the system give ``count`` descriptors to the core, and then no more."""
    names = ("EPOLL_CREATE", "EVENTFD", "TIMERFD", "PIPE", "SOCKET")
    kinds = sum(getattr(lib, f"FDMUX_CALL_{name}") for name in names)
    lib.fdmux_testing_fail(kinds, count + 1, errno.ENFILE, 1)
    try:
        yield
    finally:
        lib.fdmux_testing_fail(0, 0, 0, 0)


@pytest.mark.commit
@pytest.mark.faults
def test_whatever_needs_a_descriptor_says_that_the_system_has_none(
    bars: Bars, service: Service
) -> None:
    gc.collect()
    before = open_count()
    tally = Tally()
    for use in NEEDY:
        failures = failures_until_it_works(use, service.address, full_system)
        tally.add_all(failures, errno.ENFILE)
    gc.collect()
    title = "no descriptor in the system"
    tally.enter(bars, title, failures_min=8)
    bars.at_most(0, f"{title}: left open", open_count() - before)


# ---- what goes on without any --------------------------------------------------------


class Echo(StreamHandler):
    """Echoes."""

    def on_data(self, _stream: Stream, data: bytes) -> bytes:
        return data


def count_failures(checks: dict[str, Callable[[], bool]]) -> int:
    failed = [name for name, check in checks.items() if not check()]
    print(failed)  # noqa: T201 - which ones
    return len(failed)


def stopped_by_a_thread(loop: SelectorEventLoop) -> bool:
    """Return whether another thread's call arrives, and its `stop` ends the run."""
    called: list[str] = []

    def post() -> None:
        loop.call_soon_threadsafe(called.append, "posted")
        loop.call_soon_threadsafe(loop.stop)

    loop.call_later(0, called.append, "timer")
    thread = threading.Thread(target=post)
    thread.start()
    loop.run(LONG)
    thread.join()
    return sorted(called) == ["posted", "timer"]


def echoes(loop: SelectorEventLoop, peer: socket.socket) -> bool:
    peer.send(b"x")
    loop.run(LONG, max_iterations=1)
    return peer.recv(9) == b"x"


@pytest.mark.commit
@pytest.mark.parametrize("backend", [*backend_names(), "stranger"])
def test_what_exists_goes_on_without_a_descriptor(bars: Bars, backend: str) -> None:
    made = selectors.EpollSelector() if backend == "stranger" else Selector(backend)
    left, right = socket.socketpair()
    here, there = socket.socketpair()
    with SelectorEventLoop(made) as loop, left, right, here, there:
        add_stream(loop, here, Echo())
        loop.run_once(0)
        with free_descriptors(0):
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)
            read: list[bytes] = []
            loop.register_read(left, lambda sock: read.append(sock.recv(9)))
            right.send(b"y")
            failed = count_failures(
                {
                    "posts, timers, stop": lambda: stopped_by_a_thread(loop),
                    "registration": lambda: read == [b"y"],
                    "streams": lambda: echoes(loop, there),
                    "waits": lambda: wait_writable([right], LONG) == [right],
                    "no wait": lambda: wait_readable([right], 0.001) == [],
                }
            )
            loop.unregister(left)
    title = f"without a descriptor to spare, {backend}"
    bars.at_most(0, f"{title}: what fails that needs none", failed)


@pytest.mark.commit
def test_pool_makes_do_with_the_connections_it_gets(
    bars: Bars, service: Service
) -> None:
    """Ask for ten with three left."""
    messages = [b"%03d" % number for number in range(200)]
    with SelectorEventLoop() as loop:
        loop.run_once(0)
        assert delivery_of(loop)
        with ClientPool(*service.address, size=10, timeout=LONG, loop=loop) as pool:
            with free_descriptors(3):
                replies = pool.exchange(messages, 3)
                opened = pool.connection_count
            bars.at_most(3, "pool short of descriptors: connections of 10", opened)
            wrong = sum(map(bytes.__ne__, messages, replies))
            bars.at_most(0, "pool short of descriptors: wrong replies", wrong)
            pool.exchange(messages, 3)
            bars.at_least(10, "pool: connections afterwards", pool.connection_count)


# ---- a server ------------------------------------------------------------------------


def crowd(
    stack: contextlib.ExitStack, address: Address, count: int
) -> list[socket.socket]:
    made = []
    for _ in range(count):
        made.append(socket.create_connection(address, timeout=LONG))
        stack.callback(made[-1].close)
    return made


def echo_all(socks: list[socket.socket]) -> int:
    """Send to each, then read from each; returns how many got it back."""
    for sock in socks:
        sock.sendall(b"x")
    return sum(sock.recv(2) == b"x" for sock in socks)


def when_refused(service: Service, before: Facts) -> Facts:
    """Return the facts once the server has logged that it cannot accept."""
    deadline = time.monotonic() + LONG
    facts = before
    while facts["records"] == before["records"] and time.monotonic() < deadline:
        time.sleep(0.01)  # another process's state: there is nothing to wait on
        facts = service.ask()
    return facts


def check_server(bars: Bars, held: int, spare: int, seconds: float) -> None:
    """Connect more clients than a server has descriptors for; then close some."""
    title = f"{held} clients where {spare} descriptors are left"
    with Service() as service, contextlib.ExitStack() as stack:
        old = crowd(stack, service.address, 5)
        assert echo_all(old) == len(old)
        start = service.ask(f"spare {spare}")
        new = crowd(stack, service.address, held)
        first = when_refused(service, start)
        deadline = time.monotonic() + seconds
        served = rounds = 0
        while time.monotonic() < deadline:
            time.sleep(0.1)  # the test is that little happens meanwhile
            served += echo_all(old)
            rounds += 1
        last = service.ask()
        taken = int(last["accepted"] - start["accepted"])
        for sock in new[:taken]:
            sock.close()  # the kernel has queued them in this order
        freed = time.monotonic()
        survivors = echo_all(new[taken : 2 * taken])
        recovery = time.monotonic() - freed
        service.ask("spare 1000")
        late = echo_all(new[2 * taken :])
        end = service.ask()
    wall = last["now"] - first["now"]
    # The questions and the echoes cost a part of it.
    cpu = (last["cpu"] - first["cpu"]) / wall * 100
    bars.at_most(spare, f"{title}: accepted", taken)
    # Without a test build the loop may have opened its timer meanwhile.
    bars.at_least(spare - 1, f"{title}: accepted of what there is", taken)
    bars.at_most(5, f"{title}: CPU of a core meanwhile", cpu, "%")
    turns = (last["iterations"] - first["iterations"]) / wall
    expected = 1 / TICK + rounds * len(old) / wall
    bars.at_most(expected + 20, f"{title}: iterations, echoes included", turns, "/s")
    bars.at_most(1, f"{title}: lines logged", last["records"] - start["records"])
    bars.at_most(LATENESS_MAX, f"{title}: the latest timer", last["latest"], "s")
    bars.at_least(rounds * len(old), f"{title}: echoes to older clients", served)
    bars.at_least(taken, f"{title}: served in the place of those who left", survivors)
    bars.at_most(2, f"{title}: until they were", recovery, "s")
    bars.at_least(held - 2 * taken, f"{title}: the others, with more", late)
    bars.at_most(0, f"{title}: connections lost", end["errors"] + end["refused"])


@pytest.mark.commit
@pytest.mark.slow
def test_server_without_descriptors_rests_and_recovers(bars: Bars) -> None:
    check_server(bars, held=60, spare=20, seconds=1.5)


@pytest.mark.commit
def test_server_without_descriptors_does_not_fill_the_log(bars: Bars) -> None:
    """Each client that leaves makes room for exactly one more."""
    spare, held = 5, 100
    with Service() as service, contextlib.ExitStack() as stack:
        start = service.ask(f"spare {spare}")
        socks = crowd(stack, service.address, held)
        served = 0
        for leaving, entering in zip(socks, socks[spare:], strict=False):
            leaving.close()
            served += echo_all([entering])
        end = service.ask()
    title = f"{held} clients in turn, {spare} at a time"
    bars.at_least(held - spare, f"{title}: served", served)
    seconds = end["now"] - start["now"]
    lines = end["records"] - start["records"]
    bars.at_most(1 + seconds, f"{title}: lines logged", lines)


@pytest.mark.nightly
def test_server_with_a_full_backlog_rests_and_recovers(bars: Bars) -> None:
    check_server(bars, held=160, spare=40, seconds=5)
