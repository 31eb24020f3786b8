"""The table of platforms is what the lists say, and claims nothing beyond them."""

from __future__ import annotations

import subprocess
import sys
import tomllib

from tests.core.targets import TARGETS
from tests.tree import ROOT
from tools import platforms
from tools.targets import ALL

TOPIC = "Operating System :: "


def test_page_has_the_table_that_the_command_prints() -> None:
    text = platforms.PAGE.read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "platforms.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{platforms.BEGIN}\n{done.stdout}{platforms.END}" in text
    assert platforms.page_with_table(text) == text


def test_each_target_has_a_row() -> None:
    named = {row.target for row in platforms.ROWS} - {""}
    assert named == {target.name for target in ALL}
    assert {row.c_tests for row in platforms.ROWS} - {""} == set(TARGETS)


def test_classifiers_name_only_systems_where_python_runs_in_ci() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {each for each in project["classifiers"] if each.startswith(TOPIC)}
    ran = {row.system.split()[0] for row in platforms.ROWS if "in CI" in row.python}
    assert named == {f"{TOPIC}POSIX :: {system}" for system in ran}


def test_what_was_tried_by_hand_has_a_date() -> None:
    by_hand = [row.python for row in platforms.ROWS if "by hand" in row.python]
    assert by_hand
    assert all("2026-" in text for text in by_hand)
