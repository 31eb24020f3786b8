"""Row `selector`: what a ready descriptor, a registration and a change cost.

All contenders watch the same sockets, each through its own epoll descriptor, and
must report every one of them before they are timed. Waits are non-blocking.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import selectors
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, cast

from benchmarks.availability import Unavailable, load_fdmux
from benchmarks.epoll_calls import EpollCalls
from benchmarks.progress import progress
from benchmarks.ready_sockets import ready_sockets
from benchmarks.result import Table
from benchmarks.rounds import Repeat, calibrated, interleave

if TYPE_CHECKING:
    import socket

    from benchmarks.options import Options

READY_COUNTS = (1, 10, 100, 1000)
READ = selectors.EVENT_READ
READ_WRITE = selectors.EVENT_READ | selectors.EVENT_WRITE
BASELINE = "selectors.EpollSelector"


class Contender(Protocol):
    """One way to watch sockets; each operation repeats itself in a plain loop."""

    def watch(self, sockets: list[socket.socket]) -> None: ...
    def close(self) -> None: ...
    def wait(self, count: int) -> int: ...
    def add_remove(self, sock: socket.socket, count: int) -> None: ...
    def modify(self, sock: socket.socket, count: int) -> None: ...


class BareEpoll:
    """The system calls, made from C."""

    def __init__(self) -> None:
        self._calls = EpollCalls.load()
        self._epoll = select.epoll()
        self.close = self._epoll.close

    def watch(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            self._epoll.register(sock, select.EPOLLIN)

    def wait(self, count: int) -> int:
        return self._calls.wait(self._epoll.fileno(), count)

    def add_remove(self, sock: socket.socket, count: int) -> None:
        self._calls.add_remove(self._epoll.fileno(), sock.fileno(), count)

    def modify(self, sock: socket.socket, count: int) -> None:
        self._calls.modify(self._epoll.fileno(), sock.fileno(), count)


class PythonEpoll:
    """`select.epoll`, which knows numbers and no objects."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._capacity = 1
        self.close = self._epoll.close

    def watch(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            self._epoll.register(sock, select.EPOLLIN)
        self._capacity = len(sockets)

    def wait(self, count: int) -> int:
        poll, capacity = self._epoll.poll, self._capacity
        ready = poll(0, capacity)
        for _ in itertools.repeat(None, count):
            ready = poll(0, capacity)
        return len(ready)

    def add_remove(self, sock: socket.socket, count: int) -> None:
        register, unregister = self._epoll.register, self._epoll.unregister
        for _ in itertools.repeat(None, count):
            register(sock, select.EPOLLIN)
            unregister(sock)

    def modify(self, sock: socket.socket, count: int) -> None:
        modify = self._epoll.modify
        for mask in _alternate(select.EPOLLIN | select.EPOLLOUT, select.EPOLLIN, count):
            modify(sock, mask)


class AnySelector:
    """A `selectors.BaseSelector`: the standard library's, or ours."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self.close = selector.close

    def watch(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            self._selector.register(sock, READ, _do_nothing)

    def wait(self, count: int) -> int:
        wait = self._selector.select
        ready = wait(0)
        for _ in itertools.repeat(None, count):
            ready = wait(0)
        return len(ready)

    def add_remove(self, sock: socket.socket, count: int) -> None:
        register, unregister = self._selector.register, self._selector.unregister
        for _ in itertools.repeat(None, count):
            register(sock, READ, _do_nothing)
            unregister(sock)

    def modify(self, sock: socket.socket, count: int) -> None:
        modify = self._selector.modify
        for mask in _alternate(READ_WRITE, READ, count):
            modify(sock, mask, _do_nothing)


def _do_nothing() -> None:
    """Stand for the callback that programs keep as a registration's data."""


def _alternate(first: int, second: int, count: int) -> Iterator[int]:
    return itertools.islice(itertools.cycle((first, second)), count)


def _fdmux_selector() -> Contender:
    factory = cast(
        "Callable[[], selectors.BaseSelector]",
        load_fdmux("Selector"),
    )
    return AnySelector(factory())


FACTORIES: dict[str, Callable[[], Contender]] = {
    "epoll_wait in C": BareEpoll,
    "select.epoll": PythonEpoll,
    BASELINE: lambda: AnySelector(selectors.EpollSelector()),
    "fdmux.Selector": _fdmux_selector,
}

_Prepare = Callable[[Contender], Repeat]


def measure(options: Options) -> Iterator[Table]:
    for count in READY_COUNTS:
        yield _measure_wait(options, count)
    yield _measure_change(options, "register + unregister", _pair_of)
    yield _measure_change(options, "modify", _modify_of)


def _measure_wait(options: Options, count: int) -> Table:
    with ready_sockets(count) as sockets:

        def prepare(contender: Contender) -> Repeat:
            contender.watch(sockets)
            found = contender.wait(1)
            if found != count:
                raise AssertionError(f"{found} of {count} ready sockets were reported")
            return contender.wait

        return _measure(options, f"select, {count} ready", "ready fd", prepare, count)


def _measure_change(
    options: Options,
    what: str,
    operation: Callable[[Contender, socket.socket], Repeat],
) -> Table:
    # A hundred other registrations: an empty selector is not what programs change.
    with ready_sockets(101) as (changed, *others):

        def prepare(contender: Contender) -> Repeat:
            contender.watch(others)
            return operation(contender, changed)

        return _measure(options, f"{what}, among 100 others", what, prepare, 1)


def _pair_of(contender: Contender, sock: socket.socket) -> Repeat:
    return lambda count: contender.add_remove(sock, count)


def _modify_of(contender: Contender, sock: socket.socket) -> Repeat:
    contender.watch([sock])
    return lambda count: contender.modify(sock, count)


def _measure(
    options: Options, situation: str, unit: str, prepare: _Prepare, units: int
) -> Table:
    progress(f"  {situation}")
    samplers = {}
    left_out = {}
    with contextlib.ExitStack() as stack:
        for name, factory in FACTORIES.items():
            try:
                contender = factory()
            except Unavailable as reason:
                left_out[name] = str(reason)
                continue
            stack.callback(contender.close)
            samplers[name] = calibrated(prepare(contender), units)
        samples = interleave(samplers, options.rounds)
    text = f"CPU ns per {unit}"
    return Table("selector", situation, text, BASELINE, samples, left_out)
