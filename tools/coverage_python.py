"""Measure how much of python/fdmux the Python tests reach, with coverage.py.

The default suite and the commit tier run on the package that coverage_native.py makes.
Processes that they start or fork are measured too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TypedDict

from tests.tree import ROOT
from tools.coverage_native import FOLDER, PACKAGES
from tools.coverage_reached import Reached

# Left out: a test whose signals interrupt coverage.py as well, and tests in which an
# interpreter must end without output, while coverage.py writes its data.
SUITES = (
    ["tests/python", "tests/docs", "tests/reliability"],
    [
        "tests/reliability",
        "-m",
        "commit",
        "--ignore=tests/reliability/test_signal_storm.py",
        "--ignore=tests/reliability/test_interpreter_exit.py",
    ],
)
SETTINGS = f"""\
[run]
branch = true
source = fdmux
data_file = {FOLDER}/python.data
parallel = true
patch =
    subprocess
    _exit
    fork
[paths]
ours =
    python/fdmux
    build/coverage/packages/fdmux
"""


class File(TypedDict):
    """A module, as coverage.py reports it."""

    executed_lines: list[int]
    missing_lines: list[int]
    executed_branches: list[list[int]]
    missing_branches: list[list[int]]


def coverage(*arguments: str) -> list[str]:
    """Return the command line of coverage.py for a command, with our settings."""
    verb, *others = arguments
    settings = f"--rcfile={FOLDER / 'coverage.ini'}"
    return [sys.executable, "-m", "coverage", verb, settings, *others]


def run_suites() -> list[str]:
    """Run the tests; return the lines in which pytest names failures."""
    (FOLDER / "coverage.ini").write_text(SETTINGS, encoding="utf-8")
    failed = []
    for suite in SUITES:
        done = subprocess.run(
            coverage("run", "-m", "pytest", "-q", "-p", "no:randomly", *suite),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(PACKAGES)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        lines = done.stdout.splitlines()
        failed += [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        log = FOLDER / f"{suite[0].replace('/', '-')}.log"
        log.write_text(done.stdout + done.stderr, encoding="utf-8")
        print(f"{' '.join(suite)}: {lines[-1]}", flush=True)
    return failed


def reached_files() -> dict[str, Reached]:
    """Return the counts of each module, of all processes together."""
    report = FOLDER / "python.json"
    for command in (
        coverage("combine", "--quiet", "--keep"),
        coverage("json", "--quiet", "-o", str(report)),
    ):
        subprocess.run(command, cwd=ROOT, check=True)
    files: dict[str, File] = json.loads(report.read_text(encoding="utf-8"))["files"]
    return {name: reached(file) for name, file in files.items()}


def reached(file: File) -> Reached:
    """Return counts of 0 or 1, as coverage.py keeps no numbers."""
    found = Reached()
    for count, lines in enumerate((file["missing_lines"], file["executed_lines"])):
        for number in lines:
            found.add_line(number, count)
    for count, pairs in enumerate(
        (file["missing_branches"], file["executed_branches"])
    ):
        for number, where_to in pairs:
            found.add_branch(number, where_to, count)
    return found
