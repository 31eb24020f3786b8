"""A hundred thousand signals while a loop works, with a handler that raises at times.

Signals go to a whole process, so the loop is in a process of its own
(programs/signal_storm.py). Another one sends them, and pauses after every few, since
only one signal of a kind can be pending (signal(7)).
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.reliability.echo_process import PROGRAMS

from fdmux._native import backend_names

if TYPE_CHECKING:
    from tests.reliability.conftest import Bars

PROGRAM = PROGRAMS / "signal_storm.py"
LONG = 120.0
# The machine may be busy with other things, so no more than this is promised here.
LATENESS_MAX = 0.5


@pytest.mark.commit
@pytest.mark.slow
@pytest.mark.parametrize("backend", backend_names())
def test_storm_loses_no_event_no_exception_and_no_deadline(
    bars: Bars, backend: str
) -> None:
    sent = 100_000
    done = subprocess.run(
        [sys.executable, str(PROGRAM), backend, str(sent)],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    facts: dict[str, float] = json.loads(done.stdout)
    title = f"storm of {sent:,} signals, {backend}"
    bars.at_least(sent // 50, f"{title}: times the handler ran", facts["handled"])
    bars.at_least(20, f"{title}: exceptions it raised", facts["raised"])
    lost = facts["raised"] - facts["caught"]
    bars.at_most(0, f"{title}: exceptions lost", lost)
    bars.at_least(100, f"{title}: messages meanwhile", facts["messages"])
    bars.at_most(0, f"{title}: messages lost", facts["lost"])
    bars.at_most(0, f"{title}: EINTR seen", facts["interrupted"])
    bars.at_least(0, f"{title}: earliest wait", facts["earliest"], "s late")
    bars.at_most(LATENESS_MAX, f"{title}: latest", facts["latest"], "s")
