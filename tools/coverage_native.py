"""Measure how much of csrc is reached: make a build with counters, and run gcov on it.

One build has the core, the extension and the C tests, with faults; so C tests and
Python tests add to the same counters. Its one rule: it deletes the old build first, as
counters of old sources would remain.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from tests.core.building import run_tool, tool
from tests.core.conftest import CASE, backends_of
from tests.tree import ROOT
from tools.coverage_reached import Reached

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = ROOT / "build" / "coverage"
PACKAGES = FOLDER / "packages"
TIME_MAX = 120.0
TEST_BUILDS_ONLY = ("csrc/platform/testing.c", "csrc/core/verify.c")
FLAGS = "--coverage -O0 -fprofile-update=atomic"


class Branch(TypedDict):
    """A branch of a line, as gcov writes it."""

    count: int


class Line(TypedDict):
    """A line with code in it."""

    line_number: int
    count: int
    branches: list[Branch]


class File(TypedDict):
    """A source, or a header with code in it."""

    file: str
    lines: list[Line]


def build() -> None:
    """Build everything with counters, and install it as a package for Python."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    at_exit = FOLDER / "coverage_exit.o"
    source = ROOT / "tools" / "coverage_exit.c"
    run_tool([tool("gcc"), "-c", str(source), "-o", str(at_exit)])
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    options = {
        "FDMUX_BUILD_TESTS": "ON",
        "FDMUX_TESTING": "ON",
        "FDMUX_PYTHON": "ON",
        "Python_EXECUTABLE": sys.executable,
        "CMAKE_BUILD_TYPE": "Debug",
        "CMAKE_C_FLAGS": FLAGS,
        "CMAKE_EXE_LINKER_FLAGS": f"-Wl,--wrap=_exit {at_exit}",
    }
    chosen = [f"-D{name}={value}" for name, value in options.items()]
    cmake = tool("cmake")
    run_tool([cmake, "-S", str(ROOT), "-B", str(FOLDER), *generator, *chosen])
    run_tool([cmake, "--build", str(FOLDER), "--parallel", "2"])
    package = PACKAGES / "fdmux"
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "python" / "fdmux", package, ignore=ignore)
    run_tool([cmake, "--install", str(FOLDER), "--prefix", str(package)])


def run_cases() -> list[str]:
    """Run each case of the C tests; return the names of those that failed."""
    failed = []
    for source in sorted((ROOT / "tests" / "core").glob("test_*.c")):
        program = FOLDER / "tests" / "core" / source.stem
        for kind, case in CASE.findall(source.read_text(encoding="utf-8")):
            for backend in backends_of(kind):
                done = subprocess.run(
                    [str(program), case],
                    env={**os.environ, "FDMUX_TEST_BACKEND": backend},
                    stdin=subprocess.DEVNULL,
                    check=False,
                    timeout=TIME_MAX,
                    stdout=subprocess.DEVNULL,
                )
                if done.returncode != 0:
                    failed.append(f"{source.stem}::{case}[{backend}]")
    return failed


def reached_files() -> dict[str, Reached]:
    """Return the counts of each source that release builds contain."""
    found: dict[str, Reached] = defaultdict(Reached)
    for file in gcov():
        path = Path(file["file"])
        name = str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
        if name.startswith("csrc/") and name not in TEST_BUILDS_ONLY:
            add(found[name], file["lines"])
    return found


def add(reached: Reached, lines: list[Line]) -> None:
    """Add the counts of one object."""
    for line in lines:
        number = line["line_number"]
        reached.add_line(number, line["count"])
        for index, branch in enumerate(line["branches"]):
            reached.add_branch(number, index, branch["count"])


def gcov() -> Iterator[File]:
    """Return the counts of each object of the core and of the extension."""
    for notes in sorted(FOLDER.rglob("*.gcno")):
        if not {"fdmux_core.dir", "_ffi.dir"}.intersection(notes.parts):
            continue
        data = notes.with_suffix(".gcda")
        done = subprocess.run(
            ["gcov", "--branch-probabilities", "--json-format", "--stdout", str(data)],
            cwd=FOLDER,
            capture_output=True,
            text=True,
            check=True,
        )
        yield from json.loads(done.stdout)["files"]
