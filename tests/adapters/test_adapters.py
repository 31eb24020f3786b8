"""Each adapter against its real server, in every host; see docs/adapters.md.

A test is one library in one host, or all libraries at once in one loop. To write the
table of the page:

    python -m pytest tests/adapters -m adapters --matrix-to docs/adapters.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.adapters import built, matrix
from tests.adapters.conftest import skip
from tests.adapters.servers import MissingError
from tests.adapters.trials import HOSTS, PLAIN, SCENARIOS, run_trials
from tests.tree import HEADERS

if TYPE_CHECKING:
    from tests.adapters.conftest import Workshop
    from tests.adapters.trials import Report

REQUEST_COUNT = 1000  # of drivers/trial.c


def run(
    workshop: Workshop, host: str, scenarios: tuple[str, ...], *libraries: str
) -> list[Report]:
    try:
        program = workshop.program(host, libraries)
        servers = {library: workshop.server(library) for library in libraries}
    except MissingError as error:
        skip(error)
        raise AssertionError from error
    reports = run_trials(host, program, scenarios, servers)
    assert len(reports) == len(scenarios) * len(libraries)
    return reports


def has_passed(report: Report) -> bool:
    if report.scenario in {"requests", "reconnect"} and report.error == "":
        return report.verified == REQUEST_COUNT
    return report.error == ""


@pytest.mark.adapters
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("library", built.LIBRARIES)
def test_library_passes_every_scenario(
    library: str, host: str, workshop: Workshop, request: pytest.FixtureRequest
) -> None:
    reports = run(workshop, host, SCENARIOS, library)
    passed = frozenset(one.scenario for one in reports if has_passed(one))
    cell = matrix.Cell(reports[0].version, passed)
    workshop.cells[library, host] = cell
    assert passed == set(SCENARIOS), reports
    if not request.config.getoption("--matrix-to"):
        assert str(cell) == matrix.committed()[library, host]


@pytest.mark.adapters
@pytest.mark.parametrize("host", HOSTS)
def test_all_libraries_share_one_loop(host: str, workshop: Workshop) -> None:
    scenarios = tuple(name for name in SCENARIOS if name != "timeout")
    reports = run(workshop, host, scenarios, *built.LIBRARIES)
    assert [one for one in reports if not has_passed(one)] == []


# libpulse aborts when its main loop cannot add an event.
@pytest.mark.adapters
@pytest.mark.parametrize("library", sorted(built.LIBRARIES.keys() - {"pulse"}))
def test_opening_survives_each_failing_call(library: str, workshop: Workshop) -> None:
    """In C, under the sanitizers: memory, epoll_ctl and the like fail one by one."""
    (report,) = run(workshop, PLAIN, ("failing calls",), library)
    assert report.error == ""
    assert report.failed >= 3


def test_committed_table_has_every_adapter_and_host() -> None:
    headers = HEADERS / "adapters"
    shipped = {path.stem for path in headers.glob("*.h")}
    assert shipped == set(built.LIBRARIES)
    expected = {(library, host) for library in shipped for host in HOSTS}
    assert set(matrix.committed()) == expected
    every = str(matrix.Cell("", frozenset(SCENARIOS)))
    assert set(matrix.committed().values()) == {every}
