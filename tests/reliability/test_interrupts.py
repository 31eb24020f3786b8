"""Ctrl-C and other signals are served within 100 ms, whatever keeps a loop busy.

programs/interrupted.py sends itself a signal under one kind of load, and measures how
much CPU time passes until the handler runs: time of other programs does not count.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.compiled import compile_shared
from tests.reliability.echo_process import PROGRAMS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.reliability.conftest import Bars

PROGRAM = PROGRAMS / "interrupted.py"
LATENESS_MAX_MS = 100
LONG = 60.0

LOADS = [
    "native_posts",
    "native_timers",
    "native_watchers",
    "python_calls",
    "streams",
    "streams_in_c",
    "asyncio_calls",
    "asyncio_calls_in_c",
    "asyncio_timers_in_c",
    "asyncio_due_timers",
    "asyncio_tasks",
    "asyncio_protocols",
]
# A handler of add_signal_handler is a callback of the loop: as in asyncio, it runs
# after those that are ready. So it is asked for under loads that have few at a time.
ENDLESS = ["asyncio_calls", "asyncio_tasks", "asyncio_protocols"]


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = PROGRAMS.with_name("native_busy.c")
    return compile_shared(tmp_path_factory.mktemp("busy") / "native_busy.so", source)


def check_lateness(bars: Bars, busy: Path, load: str, way: str) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(busy), load, way],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    late_ms = max(float(done.stdout), 0.0) * 1000
    name = f"signal under {load.replace('_', ' ')}, {way}: late"
    bars.at_most(LATENESS_MAX_MS, name, late_ms, "ms of CPU time")


@pytest.mark.commit
@pytest.mark.slow
@pytest.mark.parametrize("way", ["main", "thread"])
@pytest.mark.parametrize("load", LOADS)
def test_signal_is_served_under_load(
    bars: Bars, busy: Path, load: str, way: str
) -> None:
    check_lateness(bars, busy, load, way)


@pytest.mark.commit
@pytest.mark.slow
@pytest.mark.parametrize("load", ENDLESS)
def test_handler_of_asyncio_is_called_under_load(
    bars: Bars, busy: Path, load: str
) -> None:
    check_lateness(bars, busy, load, "asyncio")
