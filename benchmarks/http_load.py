"""Drives an HTTP server with wrk, and reads what wrk says of it.

wrk takes whole seconds; SIGINT ends it sooner, and it still prints its figures.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass

from benchmarks.availability import Unavailable
from benchmarks.processes import Failed

TOO_LONG_SECONDS = 60
UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6}
REQUESTS = re.compile(r"^\s*(\d+) requests in ", re.MULTILINE)
P99 = re.compile(r"^\s*99%\s+([\d.]+)(us|ms|s)$", re.MULTILINE)


@dataclass(frozen=True)
class Answers:
    """What one run of wrk has found."""

    requests: int
    p99_us: float


def require_wrk() -> None:
    if shutil.which("wrk") is None:
        raise Unavailable("no wrk (Debian: wrk)")


def run_wrk(port: int, connections: int, seconds: float, core: int | None) -> Answers:
    """Ask as fast as the answers come; any that is not a success raises `Failed`."""
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    settings = ["-t", "1", "-c", str(connections), "-d", str(TOO_LONG_SECONDS)]
    command = [*pinned, "wrk", *settings, "--latency", f"http://127.0.0.1:{port}/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
        try:
            time.sleep(seconds)
            wrk.send_signal(signal.SIGINT)
            output, _ = wrk.communicate(timeout=TOO_LONG_SECONDS)
        finally:
            wrk.kill()
    if wrk.returncode != 0:
        raise Failed(f"wrk ended with status {wrk.returncode}")
    return read_answers(output)


def read_answers(output: str) -> Answers:
    """Read wrk's report, which has a line of its own for each kind of trouble."""
    for trouble in ("Non-2xx", "Socket errors"):
        if trouble in output:
            raise Failed(f"wrk said: {output[output.index(trouble) :].splitlines()[0]}")
    requests, p99 = REQUESTS.search(output), P99.search(output)
    if requests is None or p99 is None or int(requests[1]) == 0:
        raise Failed(f"wrk had no answers: {output!r}")
    return Answers(int(requests[1]), float(p99[1]) * UNITS_US[p99[2]])
