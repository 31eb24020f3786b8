"""The soak: an hour of mixed load, after which memory and descriptors are as before.

Clients come and go, others never read, descriptors run out, signals arrive, receives
and sends are cut short. Every echo is compared. `--soak-seconds 60` tries it out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import random
import secrets
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest
from tests.reliability.echo_process import EchoProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.reliability.conftest import Bars
    from tests.reliability.echo_process import Facts

LONG = 60.0
CHURN_PERIOD = 1 / 200
SIGNAL_PERIOD = 1 / 10
SLOW_CLIENTS = 20
SLOW_CHUNK = bytes(64 * 1024)
STALL_TIMEOUT = 5.0
MESSAGE_MAX = 8 * 1024
# Latencies below this are the scheduler's, and their ratio says nothing.
FLOOR_MS = 5.0
MIB = 1024.0  # in KiB
CLIENTS_IN_A_DIP = 5


@dataclasses.dataclass
class Course:
    """The figures so far: (time since the start, figure).

    ``descriptors`` are those of the server without its connections.
    """

    latencies: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    memory: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    descriptors: list[int] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)
    exchanges: int = 0
    stalled: int = 0
    signals: int = 0


class Soak:
    """One run: the actions and when each is due."""

    def __init__(self, server: EchoProcess, seconds: float, seed: str) -> None:
        self._server = server
        self._seconds = seconds
        self._random = random.Random(seed)
        self._start = time.monotonic()
        self._slow: list[socket.socket] = []
        self.course = Course()

    @property
    def age(self) -> float:
        return time.monotonic() - self._start

    def run(self) -> None:
        """Do each action when it is due, until the time is over."""
        turns: list[tuple[float, Callable[[], None]]] = [
            (CHURN_PERIOD, self._churn),
            (SIGNAL_PERIOD, self._send_signal),
            (0.1, self._feed_slow),
            (self._seconds / 100, self._note_memory),
            (self._seconds / 30, self._run_out_of_descriptors),
            (self._seconds / 20, self._cut_short),
        ]
        due = [period for period, _turn in turns]
        try:
            while self.age < self._seconds:
                for index, (period, turn) in enumerate(turns):
                    if self.age >= due[index]:
                        due[index] = max(due[index] + period, self.age)
                        turn()
                time.sleep(max(min(due) - self.age, 0))  # the pace is the subject
        finally:
            for sock in self._slow:
                sock.close()

    # What clients do ---------------------------------------------------------------

    def _exchange(self, sock: socket.socket) -> None:
        """Send a message, and compare all of the echo."""
        message = self._random.randbytes(self._random.randrange(1, MESSAGE_MAX))
        sock.sendall(message)
        echo = b""
        while len(echo) < len(message):
            data = sock.recv(65536)
            if not data:
                break
            echo += data
        self.course.exchanges += 1
        if echo != message:
            self._fail(f"echo of {len(message)} bytes: {len(echo)}, or others")

    def _fail(self, what: str) -> None:
        self.course.errors.append(f"after {self.age:.1f} s: {what}")

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._server.address, timeout=LONG)

    def _churn(self) -> None:
        begin = time.monotonic()
        try:
            with self._connect() as sock:
                self._exchange(sock)
        except OSError as error:
            self._fail(f"churn: {error!r}")
        self.course.latencies.append((self.age, (time.monotonic() - begin) * 1000))

    def _feed_slow(self) -> None:
        """Keep some clients that send and never read; the server ends stalled ones."""
        while len(self._slow) < SLOW_CLIENTS:
            sock = self._connect()
            sock.setblocking(False)
            self._slow.append(sock)
        for sock in list(self._slow):
            try:
                sock.send(SLOW_CHUNK)
            except BlockingIOError:
                continue
            except ConnectionError:
                self.course.stalled += 1
                self._slow.remove(sock)
                sock.close()

    # What happens to the server ----------------------------------------------------

    def _send_signal(self) -> None:
        self._server.signal(signal.SIGUSR1)
        self.course.signals += 1

    def _note_memory(self) -> None:
        facts = self._server.facts()
        self.course.memory.append((self.age, facts["rss_kib"]))
        self.course.descriptors.append(int(facts["descriptors"] - facts["open"]))

    def _run_out_of_descriptors(self) -> None:
        """A client that connects during a shortage is served after it."""
        self._server.spare(0)
        try:
            with contextlib.ExitStack() as stack:
                waiting = [
                    stack.enter_context(self._connect())
                    for _ in range(CLIENTS_IN_A_DIP)
                ]
                time.sleep(0.3)  # accepting fails, and backs off
                self._server.spare(-1)
                for sock in waiting:
                    self._exchange(sock)
        except OSError as error:
            self._fail(f"out of descriptors: {error!r}")
        finally:
            self._server.spare(-1)

    def _cut_short(self) -> None:
        self._server.short(self._random.randrange(1, 64))
        try:
            with self._connect() as sock:
                for _ in range(20):
                    self._exchange(sock)
        except OSError as error:
            self._fail(f"cut short: {error!r}")
        finally:
            self._server.short(0)


def between(points: list[tuple[float, float]], start: float, end: float) -> list[float]:
    return sorted(figure for age, figure in points if start <= age < end)


def p99(points: list[tuple[float, float]], start: float, end: float) -> float:
    figures = between(points, start, end)
    return figures[int(len(figures) * 0.99)]


def enter(bars: Bars, course: Course, seconds: float) -> None:
    """Compare the last twelfth with the one after the first: minutes 5 and 60."""
    title = f"soak of {seconds / 60:g} minutes"
    early, late = (seconds / 12, seconds / 6), (seconds * 11 / 12, seconds + LONG)
    bars.at_least(seconds * 20, f"{title}: exchanges", course.exchanges)
    bars.at_most(0, f"{title}: errors", len(course.errors))
    bars.at_least(1, f"{title}: clients closed as stalled", course.stalled)
    # Memory goes up and down with the queues of the slow; a leak raises its floor.
    quarters = (seconds / 12, seconds / 3), (seconds * 3 / 4, seconds + LONG)
    then_kib, now_kib = (between(course.memory, *quarter)[0] for quarter in quarters)
    drift = now_kib - then_kib
    bars.at_most(1, f"{title}: memory gained after a twelfth", drift / MIB, "MiB")
    then, now = p99(course.latencies, *early), p99(course.latencies, *late)
    ratio = max(now, FLOOR_MS) / max(then, FLOOR_MS)
    bars.at_most(
        1.2, f"{title}: p99 at the end ({now:.2f} ms), of early", ratio, "times"
    )


def facts_after_a_while(server: EchoProcess) -> Facts:
    """Return facts once the loop has opened its timer, which it keeps."""
    with socket.create_connection(server.address, timeout=LONG) as sock:
        for _ in range(
            100
        ):  # several waits with one deadline: see csrc/core/dispatch.c
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
    return server.facts_when(lambda facts: not facts["open"])


def check_as_before(bars: Bars, server: EchoProcess, base: Facts) -> None:
    left = server.facts_when(lambda facts: not facts["open"])
    for name in ("descriptors", "registrations", "io_live"):
        bars.at_most(0, f"soak: {name} left", left[name] - base[name])
    bars.at_least(1, "soak: signals handled", left["signals"])


@pytest.mark.soak
def test_everything_at_once_for_an_hour(
    bars: Bars, pytestconfig: pytest.Config
) -> None:
    faulthandler.cancel_dump_traceback_later()  # pytest's, after two minutes
    seconds = float(pytestconfig.getoption("--soak-seconds"))
    seed = secrets.token_hex(8)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    with EchoProcess(stall_timeout=STALL_TIMEOUT) as server:
        base = facts_after_a_while(server)
        soak = Soak(server, seconds, seed)
        soak.run()
        print("memory in KiB:", *(f"{kib:.0f}" for _age, kib in soak.course.memory))  # noqa: T201 - to see where it grew
        print("descriptors:", *soak.course.descriptors)  # noqa: T201 - the same
        print("\n".join(soak.course.errors[:100]))  # noqa: T201 - what to look into
        check_as_before(bars, server, base)
    enter(bars, soak.course, seconds)
