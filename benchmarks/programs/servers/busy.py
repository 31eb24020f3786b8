"""What a callback of the latency row computes; native/busy.h is the same in C."""

from __future__ import annotations

import time

BUSY_NS = 200_000


def stay_busy() -> None:
    """Compute until 0.2 ms of the clock are over."""
    until = time.perf_counter_ns() + BUSY_NS
    while time.perf_counter_ns() < until:
        pass
