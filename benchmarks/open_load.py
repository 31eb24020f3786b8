"""Drives programs/native/latency_load.c: requests that leave when they are due."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.build import build
from benchmarks.processes import Child, Failed

# The generator ends itself before that, see ALARM_SECONDS there.
RUN_SECONDS = 130.0


@dataclass(frozen=True)
class OpenLoad:
    """A schedule: ``bursts`` of all connections at once, or ``open``, with random gaps.

    The interval is that between two bursts, or the mean one between two requests.
    """

    schedule: str
    connections: int
    message_size: int
    warmup: int
    requests: int
    interval_us: int

    def run(self, name: str, port: int, core: int | None) -> list[float]:
        """Return microseconds: p10, p50, p99, and how late requests left (p99)."""
        program = str(build("latency_load.c", "-lm"))
        child = Child(f"load against {name}", [program, *self._words(port)], core)
        try:
            figures = child.read_line(RUN_SECONDS).split()
            status = child.process.wait(RUN_SECONDS)
        finally:
            child.end()
        if status != 0 or len(figures) != 4:
            raise Failed(f"{child.name} said {figures}, ended with status {status}")
        return [int(nanoseconds) / 1000 for nanoseconds in figures]

    def _words(self, port: int) -> list[str]:
        shape = (self.connections, self.message_size)
        numbers = (*shape, self.warmup, self.requests, self.interval_us)
        return [str(port), self.schedule, *(str(number) for number in numbers)]
