"""Events of every kind, each counted on arrival; and forks whose child always exits.

Its one rule: each event has a name that is expected exactly once, so one that a fork
lost, or gave to both processes, is known by its name.
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import sys
import traceback
from typing import TYPE_CHECKING

from fdmux import Selector, SelectorEventLoop, StreamHandler, add_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from fdmux import Stream

    Pair = tuple[socket.socket, socket.socket]
    Event = tuple[str, int]

PAIRS = 8
STREAMS = 4
LONG = 60.0


class Received(StreamHandler):
    """Records what arrives on a stream."""

    def __init__(self, traffic: Traffic, number: int) -> None:
        self._traffic = traffic
        self._number = number

    def on_data(self, _stream: Stream, data: bytes) -> None:
        self._traffic.in_on_data()
        for byte in data:
            self._traffic.note(("stream", self._number * 256 + byte))


class Traffic:
    """A loop with descriptors, streams, timers and posts, of which all must arrive."""

    def __init__(self, backend: str) -> None:
        self._stack = contextlib.ExitStack()
        self.backend = backend
        self.in_on_data: Callable[[], object] = lambda: None
        self.loop = self._stack.enter_context(SelectorEventLoop(Selector(backend)))
        self.pairs = [self._make_pair() for _ in range(PAIRS)]
        self._stream_ends = [self._make_stream(number) for number in range(STREAMS)]
        self._expected: list[Event] = []
        self._seen: collections.Counter[Event] = collections.Counter()
        self._round = 0
        self._watch(self.loop)

    def _make_pair(self) -> Pair:
        here, there = socket.socketpair()
        for sock in (here, there):
            self._stack.enter_context(sock)
            sock.setblocking(False)
        return here, there

    def _make_stream(self, number: int) -> socket.socket:
        here, there = socket.socketpair()
        self._stack.enter_context(there)
        add_stream(self.loop, here, Received(self, number))
        return there

    def _watch(self, loop: SelectorEventLoop) -> None:
        for number, (here, _there) in enumerate(self.pairs):
            loop.register_read(here, self._reader(number))

    def _reader(self, number: int) -> Callable[[socket.socket], None]:
        def read(sock: socket.socket) -> None:
            self.note(("descriptor", number * 256 + sock.recv(1)[0]))

        return read

    def note(self, event: Event) -> None:
        self._seen[event] += 1

    def send(self) -> None:
        """Send one event to each descriptor and stream; add a timer and a post."""
        self._round += 1
        byte = bytes([self._round])
        for number, (_here, there) in enumerate(self.pairs):
            there.send(byte)
            self._expect("descriptor", number * 256 + self._round)
        for number, there in enumerate(self._stream_ends):
            there.send(byte)
            self._expect("stream", number * 256 + self._round)
        self.loop.call_soon_threadsafe(self.note, self._expect("post", self._round))
        self.loop.call_later(0.001, self.note, self._expect("timer", self._round))

    def _expect(self, kind: str, number: int) -> Event:
        self._expected.append((kind, number))
        return self._expected[-1]

    def move(self) -> None:
        """Watch the descriptors in a new loop; all else ended with the old one."""
        self.loop = self._stack.enter_context(SelectorEventLoop(Selector(self.backend)))
        self._watch(self.loop)
        self._stream_ends = []
        self._expected = [one for one in self._expected if one[0] == "descriptor"]

    def lost_and_twice(self) -> tuple[int, int]:
        """Run until all events arrived; return how many were lost and duplicated."""
        deadline = self.loop.time() + LONG / 3
        while not all(self._seen[one] for one in self._expected):
            if self.loop.time() > deadline:
                break
            self.loop.run_once(1.0)
        self.loop.run_once(0)  # duplicates would arrive now
        lost = sum(1 for one in self._expected if not self._seen[one])
        return lost, self._seen.total() - len(self._seen)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()


@contextlib.contextmanager
def only_the_parent_goes_on() -> Iterator[None]:
    """Exit a child that was forked in the block when it leaves it: 1 if it raised."""
    parent = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != parent:
            error = sys.exc_info()[1]
            if error is not None:
                traceback.print_exception(error)
            os._exit(error is not None)


def fork(child: Callable[[], object]) -> int:
    """Fork; the child runs ``child`` and exits, the parent gets its process id."""
    with only_the_parent_goes_on():
        number = os.fork()
        if number == 0:
            child()
    return number


def succeeded(number: int) -> bool:
    """Wait for a child; return whether it exited with 0."""
    _, status = os.waitpid(number, 0)
    return os.waitstatus_to_exitcode(status) == 0
