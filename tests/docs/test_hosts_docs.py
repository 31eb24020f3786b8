"""docs/hosts.md: its examples run, and its table lists all hosts and cases."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from tests.tree import ROOT

from fdmux.testing import CASES, HOSTS
from fdmux.testing.__main__ import legend

TEXT = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(
    r"<!-- test: hosts/(\w+) -->\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
EXAMPLES = dict(EXAMPLE.findall(TEXT))
NEEDED = {"qt": "PySide6.QtCore", "glib": "gi.repository.GLib"}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name: str) -> None:
    module = NEEDED.get(name, name)
    package = {"qt": "PySide6-Essentials", "glib": "PyGObject"}.get(name, name)
    found = subprocess.run(
        [sys.executable, "-c", f"import {module}"], capture_output=True, check=False
    )
    if found.returncode:
        pytest.skip(f"needs {package}")
    subprocess.run([sys.executable, "-W", "error", "-c", EXAMPLES[name]], check=True)


def test_there_is_an_example_for_each_library() -> None:
    assert set(EXAMPLES) == {"trio", "anyio", "gevent", "qt", "glib"}


def test_table_has_every_host_and_case_and_no_failure() -> None:
    kit = TEXT.partition("<!-- kit:begin -->")[2].partition("<!-- kit:end -->")[0]
    rows = [line.split("|")[1:-1] for line in kit.splitlines() if line.startswith("|")]
    assert [row[0].strip() for row in rows[2:]] == list(HOSTS)
    for row in rows[2:]:
        assert {cell.strip() for cell in row[2:]} == {"ok"}
        assert len(row) == len(CASES) + 2
    assert list(legend(list(CASES))) == re.findall(r"^\d+\. .*$", kit, re.MULTILINE)
