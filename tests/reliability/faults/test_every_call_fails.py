"""Every allocation and every system call of the core fails, in turn, once and for ever.

The scenarios of fault_scenarios.py and fault_streams.py, on both backends, and those of
the C tests. No crash, no leak, no hang, an exception that says what failed, and
everything usable as soon as the fault is over.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import re
import selectors
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from tests.core.building import Build, CaseError, programs
from tests.core.conftest import backends_of
from tests.reliability.faults import fault_scenarios, fault_streams
from tests.reliability.faults.fault_plans import (
    ERRORS,
    SCENARIOS,
    Plan,
    Tally,
    run_kind,
)
from tests.tree import ROOT

from fdmux import Selector, SelectorEventLoop
from fdmux._ffi import lib
from fdmux._native import backend_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.reliability.conftest import Bars

pytestmark = pytest.mark.commit
MODULES = (fault_scenarios, fault_streams)  # importing them fills SCENARIOS
BACKENDS = backend_names()
HANG = 2.0  # seconds
SOON = 20.0
SCENARIOS_MIN = 100  # counted on each backend
INJECTIONS_MIN = 1500
C_INJECTIONS_MIN = 3000
C_PROGRAMS = ("test_faults", "test_stream_faults")


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Freeze the living objects, so that the search for leaks is cheap."""
    caplog.set_level(logging.CRITICAL)  # servers log what they survive
    gc.collect()
    gc.freeze()
    yield
    lib.fdmux_testing_fail(0, 0, 0, 0)
    gc.unfreeze()


class Total(Tally):
    """The tally of a run, and where to enter it once all scenarios are in."""

    def __init__(self) -> None:
        super().__init__()
        self.done = 0
        self.bars: Bars | None = None


@pytest.fixture(scope="module")
def total() -> Iterator[Total]:
    total = Total()
    yield total
    if total.bars is None or total.done < len(SCENARIOS) * len(BACKENDS):
        return  # a selection of them
    bars = total.bars
    bars.at_least(SCENARIOS_MIN, "scenarios in which every call fails", total.done)
    bars.at_least(INJECTIONS_MIN, "failures injected below Python", total.injections)
    bars.at_most(HANG, "longest of them", total.longest, "s")


@pytest.mark.faults
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_each_call_of(name: str, backend: str, total: Total, bars: Bars) -> None:
    for kind in ERRORS:
        run_kind(SCENARIOS[name], backend, kind, total)
    total.done += 1
    total.bars = bars


@pytest.mark.slow
def test_each_call_of_the_c_tests(request: pytest.FixtureRequest, bars: Bars) -> None:
    """Run the C cases, which check everything and print the number of failures."""
    option = request.config.getoption
    try:
        built = programs(Build(option("--c-sanitize"), option("--c-werror")))
    except CaseError as error:
        if "the C tests need" in str(error):
            pytest.skip(str(error))
        raise
    printed = "".join(
        run_case(str(built / program), case, backend)
        for program in C_PROGRAMS
        for case, backend in cases_of(program)
    )
    injections = sum(
        map(int, re.findall(r"^injections: (\d+)$", printed, re.MULTILINE))
    )
    bars.at_least(C_INJECTIONS_MIN, "failures injected below C", injections)


def cases_of(program: str) -> list[tuple[str, str]]:
    """Yield each case with its backends."""
    text = (ROOT / "tests" / "core" / f"{program}.c").read_text(encoding="utf-8")
    found = re.findall(r"^(|EPOLL_|SLOW_)TEST\((\w+)\)", text, re.MULTILINE)
    return [(case, backend) for kind, case in found for backend in backends_of(kind)]


def run_case(program: str, case: str, backend: str) -> str:
    done = subprocess.run(
        [program, case],
        env={**os.environ, "FDMUX_TEST_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, f"{case}[{backend}]: {done.stderr}"
    return done.stdout


# ---- what a failure must not keep quiet ----------------------------------------------


@pytest.mark.faults
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("backend", BACKENDS)
def test_waking_that_is_forbidden_is_said_to_who_wakes(backend: str) -> None:
    """Otherwise a loop in a sandbox would hang without an explanation."""
    ran: list[str] = []
    with SelectorEventLoop(Selector(backend)) as loop:
        thread = threading.Thread(target=loop.run, args=(None,))
        thread.start()
        Plan("WRITE", errno.EPERM, True, 1).start()
        with pytest.raises(PermissionError, match="wake the loop"):
            loop.call_soon_threadsafe(ran.append, "refused")
        with pytest.raises(PermissionError, match="wake the loop"):
            loop.stop()
        lib.fdmux_testing_fail(0, 0, 0, 0)
        loop.call_soon_threadsafe(ran.append, "accepted")
        loop.stop()
        thread.join(SOON)
        assert not thread.is_alive()
        loop.run_once(0)
    assert ran == ["accepted"]


@pytest.mark.faults
@pytest.mark.usefixtures("quiet")
def test_native_timers_are_called_where_no_timerfd_is_to_be_had() -> None:
    """On a selector of the standard library timers go by the deadline instead."""
    Plan("TIMERFD", errno.EMFILE, True, 1).start()
    loop = SelectorEventLoop(selectors.SelectSelector())
    with fault_scenarios.open_native_code(loop) as count_ticks:
        while count_ticks() < fault_scenarios.TICKS:
            assert loop.run_once(SOON) == 0  # it calls nobody in Python
