"""The interpreter exits in hostile states: at once, silently, with the right code.

The states are the functions of programs/exit_states.py. Each runs in processes of its
own, a few at once, and a watchdog ends one that hangs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from tests.compiled import compile_shared
from tests.reliability.echo_process import PROGRAMS

if TYPE_CHECKING:
    from tests.reliability.conftest import Bars

PROGRAM = PROGRAMS / "exit_states.py"
WATCHDOG = 10.0
SECONDS_MAX = 5.0  # below the watchdog; a tenth of a second on a machine at rest
AT_ONCE = 3


class Ending(NamedTuple):
    """How a process ended."""

    state: str
    code: int | None  # None: the watchdog ended it
    output: str
    seconds: float


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).with_name("native_exit.c")
    return compile_shared(tmp_path_factory.mktemp("exit") / "native_exit.so", source)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", str(PROGRAM), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )


def end(state: str, library: Path) -> Ending:
    start = time.monotonic()
    try:
        done = run(state, str(library))
    except subprocess.TimeoutExpired as expired:
        return Ending(state, None, str(expired.output), WATCHDOG)
    return Ending(state, done.returncode, done.stdout, time.monotonic() - start)


def check_endings(bars: Bars, library: Path, times: int) -> None:
    expected: dict[str, int] = json.loads(run().stdout)
    states = [state for state in expected for _ in range(times)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        endings = list(pool.map(lambda state: end(state, library), states))
    wrong = [one for one in endings if one.code not in {expected[one.state], None}]
    hung = [one for one in endings if one.code is None]
    loud = [one for one in endings if one.output]
    slowest = max(endings, key=lambda one: one.seconds)
    for ending in {*wrong, *hung, *loud, slowest}:
        print(ending)  # noqa: T201 - which one it was
    title = "interpreter exit"
    bars.at_least(20, f"{title}: hostile states", len(expected))
    bars.at_least(20 * times, f"{title}: runs", len(endings))
    bars.at_most(0, f"{title}: that hung", len(hung))
    bars.at_most(0, f"{title}: with another exit code", len(wrong))
    bars.at_most(0, f"{title}: that printed something", len(loud))
    longest = f"{title}: the longest, start included"
    bars.at_most(SECONDS_MAX, longest, slowest.seconds, "s")


@pytest.mark.commit
@pytest.mark.slow
def test_interpreter_ends_in_every_hostile_state(bars: Bars, library: Path) -> None:
    check_endings(bars, library, times=3)


@pytest.mark.nightly
def test_interpreter_ends_a_thousand_times(bars: Bars, library: Path) -> None:
    check_endings(bars, library, times=50)
