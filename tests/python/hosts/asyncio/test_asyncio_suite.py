"""tools/asyncio_suite*.py: some of CPython's tests, and the report of differences.

.ci/run runs all of them, which takes minutes.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

TOOL = ROOT / "tools" / "asyncio_suite.py"


def has_tests() -> bool:
    try:
        return importlib.util.find_spec("test.test_asyncio") is not None
    except ModuleNotFoundError:
        return False


def load_tool(name: str = TOOL.stem) -> ModuleType:
    path = TOOL.with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    sys.modules[name] = tool
    spec.loader.exec_module(tool)
    return tool


@pytest.mark.slow
@pytest.mark.skipif(not has_tests(), reason="this Python has no package `test`")
@pytest.mark.parametrize("loop", ["selector", "transports"])
def test_some_of_cpython_s_tests_do_not_differ(loop: str) -> None:
    parts = ["test_buffered_proto", "test_sendfile"]
    done = subprocess.run(
        [sys.executable, TOOL, "--loop", loop, "--patterns", *parts],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    stock, ours, verdict = done.stdout.splitlines()[-3:]
    assert verdict == "0 differ or broke off"
    assert " passed" in stock
    assert ours.split(None, 1)[1] == stock.split(None, 1)[1]
    found = load_tool("asyncio_suite_all").COUNTS.search(done.stdout)
    assert found is not None
    assert (found[1], found[2]) == (ours.split()[1], "0")


def test_table_of_all_pythons_shows_differences_and_failures() -> None:
    results = {
        "3.11": {"selector": (1_234, 0), "transports": (1_200, 2)},
        "3.13": {"selector": None, "transports": (1_300, 0)},
    }
    assert load_tool("asyncio_suite_all").table(results)[2:] == [
        "| 3.11 | 1,234 | 0 | 1,200 | 2 |",
        "| 3.13 | ? | ? | 1,300 | 0 |",
    ]


def test_broken_or_other_python_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "versions" / "3.11.0" / "bin" / "python"
    other.parent.mkdir(parents=True)
    other.symlink_to("/bin/false")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert load_tool("asyncio_suite_all").find_python("3.11") is None


def test_report_counts_unknown_differences(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = {
        "test.a": ("passed", "failed", "Traceback"),
        "test.b": ("passed", "missing", ""),
        "test.c": None,
    }
    known = {"*.b": "It cannot be."}
    assert load_tool().report(verdicts, known) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "DIFFERS  test.a"
    assert "Traceback" in lines
    assert "known    test.b" in lines
    assert lines[-1] == "flaky    test.c"
