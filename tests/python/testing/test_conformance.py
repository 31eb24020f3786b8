"""The conformance kit on every host that is installed; one process for each host."""

from __future__ import annotations

import json
import re

import pytest

from fdmux.testing import CASES, HOSTS, Host, report, run_case, session
from fdmux.testing.__main__ import main
from fdmux.testing.known.selectors import PlainSelector

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", HOSTS)
def test_host_passes_every_case(name: str) -> None:
    found = report.examine(name)
    if found.missing:
        pytest.skip(f"{name} {found.missing}")
    assert [result.case for result in found.results] == list(CASES)
    failed = [f"{each.case}: {each.error}" for each in found.results if each.error]
    assert not failed, "\n".join(failed)


# ---- the kit itself ------------------------------------------------------------------


class Deaf(PlainSelector):
    """A host that watches the descriptor and never dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.selector.select = lambda _timeout=None: []  # type: ignore[method-assign,assignment] # on purpose


class Absent(PlainSelector):
    name = "absent"
    module = "no_such.module"
    package = "no-such"


class Failing(PlainSelector):
    name = "failing"


@pytest.mark.parametrize("case", ["fd_ready", "posts_from_threads", "timers_of_0_ms"])
def test_kit_finds_a_host_that_never_dispatches(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "TIME_LIMIT", 0.05)
    with pytest.raises(TimeoutError, match="not done after"):
        run_case(Deaf, case)


def test_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", "asyncio", "--case", "fd_ready", "--case", "run_twice"]) == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"^\| asyncio \| Python 3\S+ +\| ok \| ok \|$", printed, re.MULTILINE
    )
    assert "2. `run_twice`: A loop that runs again" in printed


def test_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", "asyncio", "--case", "fd_ready", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert (told["host"], told["missing"]) == ("asyncio", "")
    (result,) = told["results"]
    assert (result["case"], result["error"]) == ("fd_ready", "")


def test_host_that_is_not_installed_is_marked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HOSTS, "absent", Absent)
    assert main(["--host", "absent", "--case", "fd_ready"]) == 0
    assert "| absent | needs no-such | - |" in capsys.readouterr().out


def test_host_that_fails_makes_the_command_fail(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HOSTS, "failing", Failing)
    # The child, which does not have this file, ends before it prints anything.
    assert main(["--host", "failing", "--case", "fd_ready"]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"^\| failing \| .* \| FAIL \|$", printed, re.MULTILINE)
    assert "FAIL failing, fd_ready:\nthe process ended without a result" in printed
    assert "no host 'failing'" in printed


def test_command_lists_the_hosts_for_an_unknown_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--host", "nonesuch"]) == 2
    assert "no host 'nonesuch'" in capsys.readouterr().out
    assert issubclass(report.find_host("fdmux.testing.known.trio:Trio"), Host)
