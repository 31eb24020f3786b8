"""ADAPTER_CASES: what a program may rely on from an adapter, one function each.

Its one rule: a case uses the client as a program does, and looks at nothing but its
answers, the descriptors of the process and the iterations of the loop.
"""
# ruff: noqa: S101 - cases are made of asserts; run_adapter_case refuses without them

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import fdmux
from fdmux.testing.adapter_peer import HIGH_FD, Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fdmux.testing.adapter import Adapter

    AdapterCase = Callable[["Client"], str | None]

TIME_LIMIT = 5.0
QUIET = 0.05  # seconds in which nothing may happen
IDLE_ITERATIONS_MAX = 10


class Client:
    """The adapter under test in a loop of its own, and its peer.

    Attributes:
        done_count: How many requests were answered.
    """

    def __init__(self, adapter: Adapter, loop: fdmux.SelectorEventLoop) -> None:
        self.adapter = adapter
        self.loop = loop
        self.peer: Peer
        self.done_count = 0
        self._is_closed = False

    def open(self) -> None:
        """Connect."""
        self.adapter.open(self.loop, self.peer.port)

    def request(self, *, then: Callable[[], object] | None = None) -> None:
        """Ask; when it is answered, count and call ``then()``."""

        def done() -> None:
            self.done_count += 1
            if then is not None:
                then()

        self.adapter.request(done)

    def close(self) -> None:
        """Free the client; once."""
        if not self._is_closed:
            self._is_closed = True
            self.adapter.close()

    def wait_until(self, is_true: Callable[[], bool], what: str) -> None:
        """Run the loop until ``is_true()``.

        Raises:
            TimeoutError: That takes longer than `TIME_LIMIT`.
        """
        deadline = time.monotonic() + TIME_LIMIT
        while not is_true():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not after {TIME_LIMIT} s")
            self.loop.run_once(0.01)

    def wait_for_answers(self, count: int) -> None:
        """Run the loop until ``count`` requests in all were answered."""
        self.wait_until(lambda: self.done_count >= count, f"answer {count}")
        assert self.done_count == count

    def run_quietly(self) -> None:
        """Run the loop for a moment, in which no request may be answered."""
        before, deadline = self.done_count, time.monotonic() + QUIET
        while time.monotonic() < deadline:
            self.loop.run_once(0.01)
        assert self.done_count == before, "called back after the close"


def low_descriptors() -> set[str]:
    """Return the descriptors that are not the peer's, each with what it is."""
    found = set()
    for path in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):  # that of iterdir itself
            if int(path.name) < HIGH_FD:
                found.add(f"{path.name} {path.readlink()}")
    return found


def numbers(descriptors: set[str]) -> set[str]:
    """Return the numbers of descriptors."""
    return {one.partition(" ")[0] for one in descriptors}


def answers(client: Client) -> None:
    """A request is answered that was made while the client connects."""
    client.open()
    client.request()
    client.wait_for_answers(1)


def many_answers(client: Client) -> None:
    """Of 100 requests at once, each is answered once."""
    client.open()
    for _ in range(100):
        client.request()
    client.wait_for_answers(100)
    client.run_quietly()


def request_in_callback(client: Client) -> None:
    """A request that is made in a callback is answered."""
    client.open()
    client.request(then=client.request)
    client.wait_for_answers(2)


def idle(client: Client) -> None:
    """A client that waits for nothing does not keep the loop busy."""
    client.open()
    client.request()
    client.wait_for_answers(1)
    native = client.loop.native
    before, deadline = native.stats().iteration_count, time.monotonic() + QUIET
    while (left := deadline - time.monotonic()) > 0:
        client.loop.run_once(left)
    ran = native.stats().iteration_count - before
    assert ran <= IDLE_ITERATIONS_MAX, f"{ran} iterations in {QUIET} s"


def reconnect_after_loss(client: Client) -> str | None:
    """A client whose peer has closed connects again, under the same number."""
    without = low_descriptors()
    client.open()
    client.request()
    client.wait_for_answers(1)
    first = low_descriptors() - without
    client.peer.drop()
    client.run_quietly()
    return reconnect(client, without, first)


def reconnect_at_once(client: Client) -> str | None:
    """A client that is connected connects again, under the same number."""
    without = low_descriptors()
    client.open()
    client.request()
    client.wait_for_answers(1)
    return reconnect(client, without, low_descriptors() - without)


def reconnect(client: Client, without: set[str], first: set[str]) -> str | None:
    """Connect again and ask; remark if the number was not the same."""
    client.adapter.reconnect()
    client.request()
    client.wait_for_answers(2)
    second = low_descriptors() - without
    assert second.isdisjoint(first), "the connection is still the first one"
    return None if numbers(first) == numbers(second) else "under another number"


def close_in_callback(client: Client) -> None:
    """A client may be closed in its callback, with another request in flight."""
    client.open()
    client.request(then=client.close)
    client.request()
    client.wait_for_answers(1)
    client.run_quietly()


def close_in_flight(client: Client) -> None:
    """A client may be closed with a request in flight, and is silent then."""
    client.peer.is_silent = True
    client.open()
    client.request()
    client.run_quietly()
    client.close()
    client.run_quietly()


def close_while_connecting(client: Client) -> None:
    """A client may be closed as soon as it is opened."""
    client.open()
    client.close()
    client.run_quietly()


def close_of_loop(client: Client) -> None:
    """The loop may be closed with a request in flight, and the client after it."""
    client.peer.is_silent = True
    client.open()
    client.request()
    client.run_quietly()
    client.loop.close()
    client.close()
    assert client.done_count == 0


ADAPTER_CASES: dict[str, AdapterCase] = {
    case.__name__: case
    for case in (
        answers,
        many_answers,
        request_in_callback,
        idle,
        reconnect_after_loss,
        reconnect_at_once,
        close_in_callback,
        close_in_flight,
        close_while_connecting,
        close_of_loop,
    )
}


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Raise an AssertionError if the block leaves a descriptor or a thread behind."""
    descriptors, threads = low_descriptors(), threading.active_count()
    yield
    left = low_descriptors() - descriptors
    assert not left, f"descriptors left open: {sorted(left)}"
    assert threading.active_count() <= threads, "threads left running"


def run_adapter_case(kind: type[Adapter], name: str) -> str | None:
    """Run one case on an adapter; return a remark, or nothing.

    Raises:
        AssertionError: The adapter does not do what the case requires.
        TimeoutError: It does not do it in time.
        Exception: The adapter failed in another way.
        KeyError: There is no such case.
        RuntimeError: Python runs with -O, without asserts.
    """
    if not __debug__:
        raise RuntimeError(
            "run a case: Python runs with -O, which removes the asserts of the case"
        )
    case = ADAPTER_CASES[name]
    adapter = kind()
    with nothing_left():
        client = Client(adapter, fdmux.SelectorEventLoop())
        with Peer(adapter.answer) as client.peer:
            try:
                return case(client)
            finally:
                client.close()
                client.loop.close()
