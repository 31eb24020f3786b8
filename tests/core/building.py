"""Builds the C test programs, while the cases of those that are ready run.

Most cases wait, so one processor would idle: a thread compiles the next programs in the
order in which they are needed. Programs are built a few at a time, since each call of
CMake costs a moment. This file knows CMake, and no case.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.core.targets import TARGETS
from tests.tree import ROOT

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROGRAMS_AT_ONCE = 6
# A case that counts milliseconds should not wait for a compiler.
POLITE = ("nice", "-n", "5")


class CaseError(Exception):
    """A C case failed; the text is what it and its tools printed."""


@dataclasses.dataclass(frozen=True)
class Build:
    """One configuration of the C tests."""

    sanitize: str
    werror: bool
    target: str = ""
    kqueue: str = ""

    @property
    def directory(self) -> Path:
        werror = "werror" if self.werror else ""
        words = [self.target, *self.sanitize.split(","), werror]
        if self.kqueue:
            words.append(f"kqueue-{Path(self.kqueue).name}")
        return ROOT / "build" / "-".join(["ctests", *filter(None, words)])

    @property
    def programs(self) -> Path:
        """The folder of the test programs."""
        return self.directory / "tests" / "core"

    def configure(self) -> None:
        cmake = tool("cmake")
        options = {
            "FDMUX_BUILD_TESTS": "ON",
            "FDMUX_TESTING": "ON",
            "FDMUX_SANITIZE": self.sanitize,
            "FDMUX_WERROR": "ON" if self.werror else "OFF",
            "FDMUX_KQUEUE": self.kqueue,
        }
        if self.target:
            options |= TARGETS[self.target].cmake_options()
        ninja = find_tool("ninja")
        if ninja:
            options["CMAKE_MAKE_PROGRAM"] = ninja
        generator = ["-G", "Ninja"] if ninja else []
        run_tool(
            [cmake, "-S", str(ROOT), "-B", str(self.directory), *generator]
            + [f"-D{name}={value}" for name, value in options.items()]
        )

    def make(self, *targets: str) -> None:
        """Build these targets of CMake, or all; skip those that it does not have."""
        with locked(self.directory):
            if not (self.directory / "CMakeCache.txt").exists():
                self.configure()
            command = [tool("cmake"), "--build", str(self.directory), "--parallel", "2"]
            if targets:
                known = [name for name in targets if name in targets_of(self)]
                if not known:
                    return
                command += ["--target", *known]
            is_beside = bool(targets) and find_tool(POLITE[0]) is not None
            run_tool([*(POLITE if is_beside else ()), *command])


@functools.cache
def targets_of(build: Build) -> set[str]:
    """Ask CMake for its targets; which there are depends on the libraries it finds."""
    command = [tool("cmake"), "--build", str(build.directory), "--target", "help"]
    return {word.rstrip(":") for word in run_tool(command).split()}


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Let other processes wait, and then find all built, where there are such locks."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.cache
def build_once(build: Build) -> str:
    """Build all test programs; return what failed, or an empty text."""
    try:
        build.make()
    except CaseError as error:
        return str(error)
    return ""


def programs(build: Build) -> Path:
    """Return the folder of the test programs, after building all of them."""
    problem = build_once(build)
    if problem:
        raise CaseError(problem)
    return build.programs


class Builder:
    """Builds programs in a thread, from the first call of `wait` on.

    Meanwhile descriptors of this process come and go, and it must not fork, so no test
    in Python may run.

    Args:
        wanted: The programs, in the order in which they will be asked for.
    """

    def __init__(self, wanted: Sequence[tuple[Build, str]]) -> None:
        self.wanted = wanted
        self.pool = concurrent.futures.ThreadPoolExecutor(1, "builder")
        self.built: dict[tuple[Build, str], concurrent.futures.Future[None]] = {}

    def wait(self, build: Build, program: str) -> Path:
        """Return the program, which is not there if CMake does not know it."""
        if not self.built:
            self.begin()
        self.built[build, program].result()
        return build.programs / program

    def begin(self) -> None:
        for build, pairs in itertools.groupby(self.wanted, lambda pair: pair[0]):
            names = [program for _, program in pairs]
            for i in range(0, len(names), PROGRAMS_AT_ONCE):
                some = names[i : i + PROGRAMS_AT_ONCE]
                future = self.pool.submit(build.make, *some)
                self.built |= {(build, name): future for name in some}

    def close(self) -> None:
        """Build no more."""
        self.pool.shutdown(cancel_futures=True)


def find_tool(name: str) -> str | None:
    """Find a program on the PATH, or beside this Python, where pip puts it."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(name) or shutil.which(name, path=beside)


def tool(name: str) -> str:
    """Find a program that must be there."""
    found = find_tool(name)
    if found is None:
        raise CaseError(f"the C tests need {name}: pip install {name}")
    return found


def run_tool(command: Sequence[str]) -> str:
    """Run a program; return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CaseError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout
