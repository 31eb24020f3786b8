"""Makes every case of every C test program a pytest case, once per backend.

``tests/core/test_timer.c::order_is_deadline_then_arming[epoll]``: names come from the
source by a regular expression, so collecting builds nothing. The programs are built
once a session, incrementally, into ``build/ctests-<configuration>``. ``--c-target``
runs each case for other systems instead (targets.py): ``...[epoll-musl]``.
"""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pytest
from tests.core.emulated import REASONS, lacking, needed
from tests.core.targets import TARGETS
from tests.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest._code.code import TerminalRepr, TracebackStyle

CASE = re.compile(
    r"^(|SET_|EDGE_|BELL_|EPOLL_|KQUEUE_|POLL_|SLOW_|UNIT_)TEST\((\w+)\)", re.MULTILINE
)
BACKENDS = ROOT / "csrc" / "backends" / "list.def"
MODELS = {"model", "oldest"}  # values of --c-kqueue beside a prefix
CASE_TIMEOUT = 90.0  # above the alarm of the program itself (check.c)
# Some cases count what happens within 5 or 50 ms. An emulator that shares its processor
# is too slow for that now and then; what is wrong fails each time.
TRIES_EMULATED = 3
SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "second_deadlock_stack=1",
}


class CaseError(Exception):
    """A C case failed; the text is what it and its tools printed."""


@dataclasses.dataclass(frozen=True)
class Build:
    """One configuration of the C tests, built on first use."""

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

    def configure(self) -> None:
        cmake = tool("cmake")
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        options = {
            "FDMUX_BUILD_TESTS": "ON",
            "FDMUX_TESTING": "ON",
            "FDMUX_SANITIZE": self.sanitize,
            "FDMUX_WERROR": "ON" if self.werror else "OFF",
            "FDMUX_KQUEUE": self.kqueue,
        }
        if self.target:
            options |= TARGETS[self.target].cmake_options()
        run_tool(
            [cmake, "-S", str(ROOT), "-B", str(self.directory), *generator]
            + [f"-D{name}={value}" for name, value in options.items()]
        )

    def make(self) -> None:
        """Build; other processes of this run wait, and then find it built."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (self.directory / "CMakeCache.txt").exists():
                self.configure()
            run_tool([tool("cmake"), "--build", str(self.directory), "--parallel", "2"])


@functools.cache
def all_backends() -> list[str]:
    """Return the backends of this system, by compiling their list."""
    compiler = shutil.which("cc")
    if compiler is None:  # the cases fail for want of it, each with a message
        text = BACKENDS.read_text(encoding="utf-8")
        return re.findall(r"^FDMUX__BACKEND\((\w+)\)", text, re.MULTILINE)
    expand = ["-E", "-P", "-x", "c", "-DFDMUX__BACKEND(name)=name"]
    done = subprocess.run(
        [compiler, *expand, str(BACKENDS)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def backends_of(kind: str, kqueue: str = "") -> list[str]:
    """Return the backends for a kind of case; ``EPOLL_`` cases name their own."""
    backends = ["kqueue"] if kqueue else all_backends()
    if kind in {"", "SLOW_"}:
        return backends
    if kind == "UNIT_":
        return ["unit"]
    if kind == "KQUEUE_" and kqueue not in MODELS:
        return []
    without = {"SET_": {"poll"}, "EDGE_": {"poll"}, "BELL_": {"kqueue"}}.get(kind)
    if without is None:
        return [name for name in backends if name == kind.lower().rstrip("_")]
    if kind == "EDGE_" and kqueue == "oldest":
        return []
    return [name for name in backends if name not in without]


@functools.cache
def build_once(build: Build) -> str:
    """Build the test programs; return what failed, or an empty text."""
    try:
        build.make()
    except CaseError as error:
        return str(error)
    return ""


def programs(build: Build) -> Path:
    """Return the folder of the test programs, after building them."""
    problem = build_once(build)
    if problem:
        raise CaseError(problem)
    return build.directory / "tests" / "core"


@functools.cache
def lacking_once(programs: Path) -> set[str]:
    return lacking(programs)


def tool(name: str) -> str:
    """Find a program on the PATH, or beside this Python, where pip puts it."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name) or shutil.which(name, path=beside)
    if found is None:
        raise CaseError(f"the C tests need {name}: pip install {name}")
    return found


def run_tool(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CaseError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


class Found(TypedDict):
    """What one match of the regular expression says about a case."""

    case: str
    backend: str
    line: int
    target: str


class CFile(pytest.File):
    """One C source; its cases, for each backend they are for."""

    def collect(self) -> Iterator[CItem]:
        text = self.path.read_text(encoding="utf-8")
        targets = self.config.getoption("--c-target")
        kqueue = self.config.getoption("--c-kqueue")
        for match in CASE.finditer(text):
            kind, case = match.groups()
            line = text.count("\n", 0, match.start())
            backends = backends_of(kind, kqueue)
            for backend, target in itertools.product(backends, targets):
                found = Found(case=case, backend=backend, line=line, target=target)
                words = "-".join(filter(None, (backend, target)))
                item = CItem.from_parent(self, name=f"{case}[{words}]", found=found)
                if kind == "SLOW_":
                    item.add_marker("slow")
                yield item


class CItem(pytest.Item):
    """One case on one backend: a process of its own."""

    def __init__(self, *, name: str, parent: CFile, found: Found) -> None:
        super().__init__(name, parent)
        self.found = found

    def runtest(self) -> None:
        target = TARGETS.get(self.found["target"])
        problem = target.why_not(self.found["case"]) if target else ""
        if problem:
            pytest.skip(f"{self.found['target']}: {problem}")
        program = self.program()
        emulator = target.emulator if target else ()
        tries = TRIES_EMULATED if emulator else 1
        while True:
            tries -= 1
            try:
                self.run_case([*emulator, str(program), self.found["case"]])
            except CaseError:
                if tries == 0:
                    raise
            else:
                return

    def program(self) -> Path:
        """Build the program of this file; skip what cannot be in it."""
        option = self.config.getoption
        kqueue: str = option("--c-kqueue")
        target = self.found["target"]
        build = Build(option("--c-sanitize"), option("--c-werror"), target, kqueue)
        program = programs(build) / self.path.stem
        if self.path.stem.startswith("test_tls") and not program.exists():
            pytest.skip("no headers of OpenSSL for it (Debian, native: libssl-dev)")
        if kqueue and kqueue not in MODELS:
            need = needed(self.path.stem, self.found["case"])
            if need is not None and need in lacking_once(program.parent):
                pytest.skip(f"the emulation lacks {REASONS[need]}")
        return program

    def run_case(self, command: list[str]) -> None:
        """Run the program; raise with what it printed if it fails."""
        environment = {**os.environ, **SANITIZER_ENVIRONMENT}
        environment["FDMUX_TEST_BACKEND"] = self.found["backend"]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=CASE_TIMEOUT,
                env=environment,
            )
        except subprocess.TimeoutExpired as error:
            raise CaseError(f"{self.name} did not end: {error}") from None
        if done.returncode != 0 or done.stderr:
            ended = f"{self.name} ended with {done.returncode}"
            raise CaseError(f"{done.stdout}{done.stderr}{ended}")

    def repr_failure(
        self,
        excinfo: pytest.ExceptionInfo[BaseException],
        style: TracebackStyle | None = None,
    ) -> str | TerminalRepr:
        if isinstance(excinfo.value, CaseError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self.found["line"], self.name


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> CFile | None:
    if file_path.suffix != ".c" or not file_path.name.startswith("test_"):
        return None
    collected: CFile = CFile.from_parent(parent, path=file_path)
    return collected
