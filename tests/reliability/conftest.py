"""Tiers and the table of bars.

    python -m pytest tests/reliability -m commit      each commit: three minutes
    python -m pytest tests/reliability -m nightly     before a release: 45 minutes
    python -m pytest tests/reliability -m soak        rarely: three hours

Without ``-m``, as in the whole suite, no tier runs (tests/conftest.py). `bars` enters a
figure; the run prints the table at its end, and ``--bars-to`` writes it to a file.
"""

from __future__ import annotations

import datetime as dt
import faulthandler
import os
import platform
import subprocess
from pathlib import Path

import pytest
from tests.reliability.ledger import Bar, Ledger

LEDGER = pytest.StashKey[Ledger]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGER] = Ledger()


@pytest.fixture(autouse=True)
def no_watchdog_at_night(request: pytest.FixtureRequest) -> None:
    """Keep pytest's dump of tracebacks for tests that hang, not for long ones.

    It reads frames while they run, and has crashed a nightly run.
    """
    if any(map(request.node.get_closest_marker, ("nightly", "soak"))):
        faulthandler.cancel_dump_traceback_later()


class Bars:
    """Enters figures and holds them to their limits."""

    def __init__(self, ledger: Ledger, test: str) -> None:
        self._ledger = ledger
        self._test = test

    def at_most(self, limit: float, name: str, figure: float, unit: str = "") -> None:
        self._enter(Bar(name, figure, unit, "at most", limit, self._test))

    def at_least(self, limit: float, name: str, figure: float, unit: str = "") -> None:
        self._enter(Bar(name, figure, unit, "at least", limit, self._test))

    def _enter(self, bar: Bar) -> None:
        self._ledger.enter(bar)
        assert bar.is_met, " ".join(self._ledger.rows()[-1])


@pytest.fixture
def bars(request: pytest.FixtureRequest) -> Bars:
    """Enter a figure: ``bars.at_most(0, "wakes lost", lost)``."""
    return Bars(request.config.stash[LEDGER], request.node.nodeid)


def heading() -> list[str]:
    """Say where and when: machine, interpreter, date, commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    today = dt.datetime.now(dt.UTC).date()
    machine = f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs"
    python = f"CPython {platform.python_version()}"
    return [f"{machine}, {python}, {today}, commit {commit or 'unknown'}"]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    ledger = config.stash[LEDGER]
    if not ledger.bars:
        return
    terminalreporter.section("bars")
    for line in [*heading(), *ledger.text()]:
        terminalreporter.write_line(line)
    target = config.getoption("--bars-to")
    if target:
        Path(target).write_text(ledger.markdown(heading()), encoding="utf-8")
