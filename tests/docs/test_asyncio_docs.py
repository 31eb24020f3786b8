"""docs/asyncio.md: its programs run unchanged."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from tests.tree import ROOT

TEXT = (ROOT / "docs" / "asyncio.md").read_text(encoding="utf-8")
# Programs with a name need a package, and are tested in test_asyncio_programs.py.
PROGRAM = re.compile(r"(?<!-->\n)```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRAMS = PROGRAM.findall(TEXT)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_program_runs(number: int) -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAMS[number]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_document_shows_streams_servers_native_code_and_the_guest() -> None:
    assert len(PROGRAMS) == 4
    assert "Guest" in "".join(PROGRAMS)
