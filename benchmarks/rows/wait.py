"""Row `wait`: the question "is this socket readable?", asked once.

Measured where the answer is yes, and where it is no and nobody waits (timeout 0):
both are the call's own cost. Every contender must give the right answer first.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import selectors
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from benchmarks.availability import Unavailable, load_fdmux
from benchmarks.progress import progress
from benchmarks.ready_sockets import ready_sockets
from benchmarks.result import Table
from benchmarks.rounds import Repeat, Sample, calibrated, interleave

if TYPE_CHECKING:
    from benchmarks.options import Options

BASELINE = "DefaultSelector per call"
Ask = Callable[[socket.socket, float], bool]


class _WaitReadable(Protocol):
    def __call__(
        self, sockets: Sequence[socket.socket], timeout: float
    ) -> Sequence[object]: ...


def _ask_new_selector() -> Ask:
    def ask(sock: socket.socket, timeout: float) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            return bool(selector.select(timeout))

    return ask


def _ask_kept_selector(selector: selectors.BaseSelector) -> Ask:
    def ask(sock: socket.socket, timeout: float) -> bool:
        selector.register(sock, selectors.EVENT_READ)
        try:
            return bool(selector.select(timeout))
        finally:
            selector.unregister(sock)

    return ask


def _ask_new_poll() -> Ask:
    def ask(sock: socket.socket, timeout: float) -> bool:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    return ask


def _ask_fdmux() -> Ask:
    wait_readable = cast("_WaitReadable", load_fdmux("wait_readable"))

    def ask(sock: socket.socket, timeout: float) -> bool:
        return bool(wait_readable([sock], timeout))

    return ask


def measure(options: Options) -> Iterator[Table]:
    with ready_sockets(1) as (ready,):
        yield _measure(options, "1 socket, readable, timeout 1.0", ready, 1.0)
    idle, peer = socket.socketpair()
    with idle, peer:
        yield _measure(options, "1 socket, not readable, timeout 0", idle, 0.0)


def _measure(
    options: Options, situation: str, sock: socket.socket, timeout: float
) -> Table:
    progress(f"  {situation}")
    samplers: dict[str, Sample] = {}
    left_out = {}
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(selectors.DefaultSelector())
        contenders: dict[str, Callable[[], Ask]] = {
            BASELINE: _ask_new_selector,
            "DefaultSelector kept": lambda: _ask_kept_selector(kept),
            "select.poll per call": _ask_new_poll,
            "fdmux.wait_readable": _ask_fdmux,
        }
        for name, make in contenders.items():
            try:
                repeat = _repeat(name, make(), sock, timeout)
            except Unavailable as reason:
                left_out[name] = str(reason)
                continue
            samplers[name] = calibrated(repeat, 1)
        samples = interleave(samplers, options.rounds)
    return Table("wait", situation, "CPU ns per call", BASELINE, samples, left_out)


def _repeat(name: str, ask: Ask, sock: socket.socket, timeout: float) -> Repeat:
    expected = timeout > 0  # the row waits only where the socket is readable
    if ask(sock, timeout) is not expected:
        raise AssertionError(f"{name} gave the wrong answer, not {expected}")

    def repeat(count: int) -> None:
        for _ in itertools.repeat(None, count):
            ask(sock, timeout)

    return repeat
