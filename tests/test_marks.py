"""Each mark that silences a check names the check, and says why, on its line."""

from __future__ import annotations

import re

from tests.tree import ROOT

FOLDERS = ("python", "tests", "tools", "benchmarks", "examples")
MARK = re.compile(r"# (?:noqa|type: ignore)\b")
EXPLAINED = re.compile(
    r"# (?:noqa: [A-Z]+\d+(?:, [A-Z]+\d+)* - |type: ignore\[[a-z, -]+\] # )\S"
)


def unexplained(source: str) -> list[str]:
    return [
        line.strip()
        for line in source.splitlines()
        if len(MARK.findall(line)) > len(EXPLAINED.findall(line))
    ]


def test_every_mark_has_a_reason() -> None:
    wrong = {
        str(path.relative_to(ROOT)): lines
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py*"))
        if path.suffix in {".py", ".pyi"}
        and (lines := unexplained(path.read_text()))
        and path.name not in {"test_marks.py", "coverage_exclusions.py"}  # quote marks
    }
    assert not wrong


def test_mark_without_a_reason_is_found() -> None:
    assert unexplained("x  # noqa: E501\ny  # noqa: E501 - a URL\n") == [
        "x  # noqa: E501"
    ]
    assert unexplained("x  # type: ignore[misc]  # typed by hand") != []
    assert unexplained("x  # type: ignore[misc] # typed by hand") == []
    assert unexplained("x  # noqa") == ["x  # noqa"]
