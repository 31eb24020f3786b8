"""Conformance cases about timers, hooks, and calls from other threads."""
# ruff: noqa: S101 - cases are made of asserts; run_case refuses to run without them

from __future__ import annotations

import functools
import statistics
import threading
from typing import TYPE_CHECKING

from fdmux.testing.cases_io import session_of, socket_pair
from fdmux.testing.native import READ

if TYPE_CHECKING:
    import socket

    from fdmux.testing.host import Host

DELAY = 0.0002
TIMES = 20
REARMED = 1000
THREADS, POSTS = 4, 250
WAITS = 20


def timer_of_200_us(kind: type[Host]) -> str:
    """Native timers of 0.2 ms are never early, even if the host counts in ms."""
    late: list[float] = []
    with session_of(kind) as session:
        deadline = 0

        def on_timer(timer: int) -> None:
            nonlocal deadline
            late.append((session.code.now() - deadline) / 1e6)
            if len(late) == TIMES:
                session.stop()
            else:
                deadline = session.code.arm(timer, DELAY)

        def main() -> None:
            nonlocal deadline
            deadline = session.code.arm(session.code.timer(on_timer), DELAY)

        session.run(main)
    assert len(late) == TIMES
    assert min(late) >= 0
    return f"median {statistics.median(late):.2f} ms late"


def timers_of_0_ms(kind: type[Host]) -> str:
    """A timer that arms itself again at once does not starve Python."""
    counts = {"timer": 0, "turns": 0}
    with session_of(kind) as session:

        def on_timer(timer: int) -> None:
            counts["timer"] += 1
            session.code.arm(timer, 0)

        def take_turn() -> None:
            counts["turns"] += 1
            if counts["timer"] >= REARMED:
                session.stop()
            else:
                session.call_later(0, take_turn)

        def main() -> None:
            session.code.arm(session.code.timer(on_timer), 0)
            session.call_later(0, take_turn)

        session.run(main)
    assert counts["turns"] > 1, counts
    return f"{counts['turns']} turns beside {counts['timer']} expiries"


def posts_from_threads(kind: type[Host]) -> None:
    """Calls from other threads run in the loop's thread, each once and in order."""
    seen: list[list[int]] = [[] for _ in range(THREADS)]
    ran_in: set[int] = set()
    with session_of(kind) as session:

        def on_post(thread: int, number: int) -> None:
            seen[thread].append(number)
            ran_in.add(threading.get_ident())
            if sum(map(len, seen)) == THREADS * POSTS:
                session.stop()

        def post_all(thread: int) -> None:
            for number in range(POSTS):
                call = functools.partial(on_post, thread, number)
                assert session.code.post(call) == 0

        threads = [
            threading.Thread(target=post_all, args=(number,), daemon=True)
            for number in range(THREADS)
        ]

        def main() -> None:
            for thread in threads:
                thread.start()

        try:
            session.run(main)
        finally:
            join_started(threads)  # before the loop closes
    assert seen == [list(range(POSTS))] * THREADS
    assert ran_in == {threading.get_ident()}


def join_started(threads: list[threading.Thread]) -> None:
    """Join the threads that ``main`` has started."""
    for thread in threads:
        if thread.ident is not None:
            thread.join()


def hooks_before_waits(kind: type[Host]) -> None:
    """A hook runs before the host waits: once it is added, and after each wake."""
    with session_of(kind) as session, socket_pair() as (left, right):
        library = Library(left, right)

        def main() -> None:
            session.code.watch(left.fileno(), READ, library.on_ready)
            session.call_later(0, begin)

        def begin() -> None:
            library.unsent = 1  # it was called before its adapter adds the hook
            session.code.hook(library.flush)
            session.call_later(0, call_library)

        def call_library() -> None:
            if library.arrived == WAITS:
                session.stop()
                return
            if library.arrived == library.sent > 0:
                library.unsent = 1
                session.code.wake()
            session.call_later(0, call_library)

        session.run(main)
        assert library.arrived == library.sent == WAITS


class Library:
    """Sends what it was asked to send when its hook runs, and counts what arrives."""

    def __init__(self, left: socket.socket, right: socket.socket) -> None:
        self.left, self.right = left, right
        self.unsent = self.sent = self.arrived = 0

    def flush(self, _hook: int) -> None:
        """Send; called before each wait."""
        if self.unsent:
            self.unsent = 0
            self.sent += self.right.send(b"x")

    def on_ready(self, _token: int, _events: int) -> None:
        """Receive."""
        self.arrived += len(self.left.recv(WAITS))
