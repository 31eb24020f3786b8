"""Starts, pins, times and ends the processes that the rows measure.

Everything waits with a bound, and what was started is ended, by its own handle.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import subprocess
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from benchmarks.build import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

START_SECONDS = 120.0  # under valgrind, or on a busy machine
LOAD_SECONDS = 5


class Failed(Exception):  # noqa: N818 - reads as "the load generator failed"
    """A process did not do what it was started for."""


class Child:
    """A process that talks in lines."""

    def __init__(self, name: str, command: Sequence[str], core: int | None) -> None:
        self.name = name
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        if core is not None:
            os.sched_setaffinity(self.process.pid, {core})

    def read_line(self, timeout: float) -> str:
        """Return the next line; an ended or silent process raises `Failed`."""
        output = _present(self.process.stdout)
        line = b""
        deadline = time.monotonic() + timeout
        while not line.endswith(b"\n"):
            left = max(0.0, deadline - time.monotonic())
            if not select.select([output], [], [], left)[0]:
                raise Failed(f"{self.name} said nothing for {timeout} s")
            part = output.read(1)
            if not part:
                raise Failed(f"{self.name} ended with status {self.process.wait()}")
            line += part
        return line.decode().strip()

    def write_line(self) -> None:
        _present(self.process.stdin).write(b"\n")

    def close_input(self) -> None:
        _present(self.process.stdin).close()

    def end(self) -> None:
        """Terminate the process if it still runs, and close its pipes."""
        self.process.terminate()
        self.process.wait(10)
        _present(self.process.stdin).close()
        _present(self.process.stdout).close()


def _present(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise Failed("the process was started without pipes")
    return pipe


def cpu_clock(pid: int) -> int:
    """Return the clock of a process's CPU time, user and system, all threads.

    Counts nanoseconds, where /proc/PID/stat counts ticks of 10 ms.
    """
    clock = ctypes.c_int()
    libc = ctypes.CDLL(None)
    error = libc.clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, os.strerror(error), f"the CPU clock of process {pid}")
    return clock.value


def cores(is_pinned: bool) -> tuple[int | None, int | None]:
    """Return a core for what is measured and another for what drives it."""
    available = sorted(os.sched_getaffinity(0))
    if not is_pinned or len(available) < 2:
        return None, None
    return available[0], available[-1]


class Server(Child):
    """An echo server: its port, and the CPU time it has used."""

    def __init__(self, name: str, command: Sequence[str], core: int | None) -> None:
        super().__init__(name, command, core)
        try:
            self.port = int(self.read_line(START_SECONDS))
            self._clock = cpu_clock(self.process.pid)
        except BaseException:
            self.end()
            raise

    def cpu_nanoseconds(self) -> int:
        return time.clock_gettime_ns(self._clock)


@dataclass(frozen=True)
class Load:
    """How the load generator drives a server.

    The warm-up comes before the measured messages: what happens once per connection
    belongs there, so it has at least one message for each.
    """

    program: str
    connections: int
    message_size: int
    warmup: int
    messages: int
    core: int | None

    def cpu_per_message(self, server: Server) -> float:
        """Return the server's CPU microseconds per message of one run."""
        with self.started(server.name, server.port) as generator:
            before = server.cpu_nanoseconds()
            count = generator.run_messages()
            return (server.cpu_nanoseconds() - before) / 1000 / count

    def elapsed_per_message(self, server: Server) -> float:
        """Return how many microseconds of the clock a message took, in one run."""
        with self.started(server.name, server.port) as generator:
            count, nanoseconds = generator.run_timed()
            return nanoseconds / 1000 / count

    @contextlib.contextmanager
    def started(self, name: str, port: int) -> Iterator[LoadGenerator]:
        """Connect and warm up; on the way out, insist that every byte was right."""
        numbers = (port, self.connections, self.message_size, self.warmup)
        bounds = (self.messages, LOAD_SECONDS)
        command = [self.program, *(str(number) for number in numbers + bounds)]
        generator = LoadGenerator(f"load against {name}", command, self.core)
        try:
            generator.await_ready()
            yield generator
            generator.finish()
        finally:
            generator.end()


class LoadGenerator(Child):
    """A running load generator; see programs/native/load.c for what it says."""

    def await_ready(self) -> None:
        line = self.read_line(START_SECONDS)
        if line != "ready":
            raise Failed(f"{self.name} said {line!r} instead of 'ready'")

    def run_messages(self) -> int:
        """Send and verify the messages; return how many came back."""
        return self.run_timed()[0]

    def run_timed(self) -> tuple[int, int]:
        """The same; return how long it took, too, in nanoseconds."""
        self.write_line()
        line = self.read_line(LOAD_SECONDS + START_SECONDS)
        word, count, nanoseconds = line.split()
        if word != "done" or int(count) == 0:
            raise Failed(f"{self.name} said {line!r}")
        return int(count), int(nanoseconds)

    def finish(self) -> None:
        """Let it look for surplus bytes and end."""
        self.close_input()
        status = self.process.wait(START_SECONDS)
        if status != 0:
            raise Failed(f"{self.name} ended with status {status}")
