"""The lists of what Windows and wine cannot do name tests and proofs that exist."""

from __future__ import annotations

import re

import pytest
from tests.tree import ROOT
from tools import wine_proofs, wine_python

TESTS = ROOT / "tests" / "python"
LINES = [
    line
    for line in (ROOT / "tests" / "windows_known.txt").read_text().splitlines()
    if line and line[0] != "#"
]


@pytest.mark.parametrize("line", LINES)
def test_known_failure_names_a_test_and_a_reason(line: str) -> None:
    pattern, _, reason = line.partition(" ")
    file, _, name = pattern.partition("::")
    function = re.split(r"[\[*]", name)[0]
    assert f"def {function}" in (TESTS / file).read_text(encoding="utf-8")
    assert reason.endswith(".") or reason.startswith("wine: ")


def test_reasons_of_wine_have_proofs() -> None:
    named = {line.partition("wine: ")[2] for line in LINES} - {""}
    assert named <= {proof.__name__ for proof in wine_proofs.PROOFS}


def test_bounded_share_names_files_and_modules_that_exist() -> None:
    assert all((TESTS / file).is_file() for file in wine_python.QUICK_FILES)
    assert all((TESTS / folder).is_dir() for folder in wine_python.FOLDERS)


def test_path_is_named_as_wine_does() -> None:
    assert wine_python.windows_path(ROOT).startswith("Z:\\")
    assert "/" not in wine_python.windows_path(ROOT)
