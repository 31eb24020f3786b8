"""A program: one process sends signals, the other echoes messages in a loop meanwhile.

    python signal_storm.py epoll 100000

Prints the outcome as JSON. Its one rule: a message counts as arrived when it was
read, and the handler raises nowhere between the two. Needs nothing but fdmux.
"""

from __future__ import annotations

import functools
import json
import mmap
import os
import signal
import socket
import sys
import time

from fdmux import Selector, SelectorEventLoop

EVERY = 50  # signals, before the sender looks whether one was handled
RAISE_EVERY = 20
PAIRS = 4
WAIT = 0.05
WAITS = 5
TICK = 0.001
LONG = 60.0


class StormError(Exception):
    """What the handler raises."""


class Receiver:
    """Handles signals, and receives messages beside that."""

    def __init__(self, shared: mmap.mmap) -> None:
        self._shared = shared
        self.handled = self.raised = self.caught = self.interrupted = 0
        self._raise_at = RAISE_EVERY
        self.received = [0] * PAIRS
        self.may_raise = False

    def on_signal(self, _number: int, _frame: object) -> None:
        self.handled += 1
        self._shared[:8] = self.handled.to_bytes(8, "little")
        if self.may_raise and self.handled >= self._raise_at:
            self._raise_at = self.handled + RAISE_EVERY
            self.may_raise = False  # the next only when this one has arrived
            self.raised += 1
            raise StormError

    def on_message(self, number: int, sock: socket.socket) -> None:
        may_raise, self.may_raise = self.may_raise, False
        self.received[number] += len(sock.recv(1))
        self.may_raise = may_raise

    def iterate(self, loop: SelectorEventLoop) -> None:
        try:
            self.may_raise = True
            loop.run(1.0, max_iterations=1)
            self.may_raise = False
        except StormError:
            self.caught += 1
        except InterruptedError:
            self.interrupted += 1


def send(shared: mmap.mmap, count: int, target: int) -> None:
    """Send signals in groups, each after some of the one before were handled."""
    for number in range(count):
        if number % EVERY == 0:
            before = shared[:8]
        os.kill(target, signal.SIGUSR1)
        if number % EVERY == EVERY - 1:
            deadline = time.monotonic() + LONG
            while shared[:8] == before and time.monotonic() < deadline:
                time.sleep(0.0001)  # leaves the processor to the one who handles
    shared[8] = 1


def exchange(
    loop: SelectorEventLoop, receiver: Receiver, shared: mmap.mmap
) -> list[int]:
    """Send messages to and fro until the storm is over; returns how many."""
    sent = [0] * PAIRS
    pairs = [socket.socketpair() for _ in range(PAIRS)]
    for number, (here, _there) in enumerate(pairs):
        loop.register_read(here, functools.partial(receiver.on_message, number))
    deadline = time.monotonic() + LONG
    while not shared[8]:
        for number, (_here, there) in enumerate(pairs):
            sent[number] += there.send(b"m")
        while receiver.received != sent and time.monotonic() < deadline:
            receiver.iterate(loop)
    return sent


def lateness(backend: str) -> list[float]:
    """Wait a few times among signals; returns how late each wait ended."""
    found = []
    signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
    with Selector(backend) as selector:
        for _ in range(WAITS):
            start = time.monotonic()
            assert selector.select(WAIT) == []
            found.append(time.monotonic() - start - WAIT)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return found


def main() -> None:
    backend, count = sys.argv[1], int(sys.argv[2])
    shared = mmap.mmap(-1, 16)
    receiver = Receiver(shared)
    for number in (signal.SIGUSR1, signal.SIGALRM):
        signal.signal(number, receiver.on_signal)
        signal.siginterrupt(number, True)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        send(shared, count, parent)
        os._exit(0)
    with SelectorEventLoop(Selector(backend)) as loop:
        sent = exchange(loop, receiver, shared)
    os.waitpid(child, 0)
    late = lateness(backend)
    facts = {
        "handled": receiver.handled,
        "raised": receiver.raised,
        "caught": receiver.caught,
        "interrupted": receiver.interrupted,
        "messages": sum(sent),
        "lost": sum(sent) - sum(receiver.received),
        "earliest": min(late),
        "latest": max(late),
    }
    print(json.dumps(facts))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
