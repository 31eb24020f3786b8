"""Makes every case of every C test program a pytest case, once per backend.

``tests/core/test_timer.c::order_is_deadline_then_arming[epoll]``: names come from the
source by a regular expression, so collecting builds nothing. The programs are built
while others run, incrementally, into ``build/ctests-<configuration>`` (building.py).
``--c-target`` runs each case for other systems instead (targets.py): ``[epoll-musl]``.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, TypedDict

import pytest
from tests.core.building import Build, Builder, CaseError, programs
from tests.core.emulated import REASONS, lacking, needed
from tests.core.targets import TARGETS
from tests.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from _pytest._code.code import TerminalRepr, TracebackStyle

CASE = re.compile(
    r"^(|SET_|EDGE_|BELL_|EPOLL_|KQUEUE_|AFD_|POLL_|SLOW_|UNIT_)TEST\((\w+)\)",
    re.MULTILINE,
)
BUILDER = pytest.StashKey[Builder]()
PROBE = "kqueue_probe"
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
def lacking_once(programs: Path) -> set[str]:
    return lacking(programs)


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

    @property
    def build(self) -> Build:
        option = self.config.getoption
        return Build(
            option("--c-sanitize"),
            option("--c-werror"),
            self.found["target"],
            option("--c-kqueue"),
        )

    @property
    def cannot_run(self) -> str:
        """Return why the case cannot run on its target here, or an empty text."""
        target = TARGETS.get(self.found["target"])
        return target.why_not(self.found["case"]) if target else ""

    def runtest(self) -> None:
        if self.cannot_run:
            pytest.skip(f"{self.found['target']}: {self.cannot_run}")
        target = TARGETS.get(self.found["target"])
        emulator = target.emulator if target else ()
        program = self.program()
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
        """Wait for the program of this file; skip what cannot be in it."""
        program = self.built(self.path.stem)
        if self.path.stem.startswith("test_tls") and not program.exists():
            pytest.skip("no headers of OpenSSL for it (Debian, native: libssl-dev)")
        kqueue = self.build.kqueue
        if kqueue and kqueue not in MODELS:
            need = needed(self.path.stem, self.found["case"])
            if need is not None and need in lacking_once(self.built(PROBE).parent):
                pytest.skip(f"the emulation lacks {REASONS[need]}")
        return program

    def built(self, program: str) -> Path:
        builder = self.config.stash.get(BUILDER, None)
        if builder is None:
            return programs(self.build) / program
        return builder.wait(self.build, program)

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


@pytest.hookimpl(trylast=True)  # after the order was made random
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Put the C cases last, one target after the other; what Builder needs."""
    targets: list[str] = config.getoption("--c-target") or [""]
    items.sort(
        key=lambda item: (
            targets.index(item.found["target"]) if isinstance(item, CItem) else -1
        )
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which programs will be needed, in which order."""
    # A worker of pytest-xdist is handed the items in an order of its own.
    if session.config.option.collectonly or hasattr(session.config, "workerinput"):
        return
    wanted: dict[tuple[Build, str], None] = {}
    for item in session.items:
        if isinstance(item, CItem) and not item.cannot_run:
            if item.build.kqueue and item.build.kqueue not in MODELS:
                wanted[item.build, PROBE] = None
            wanted[item.build, item.path.stem] = None
    session.config.stash[BUILDER] = Builder(list(wanted))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if BUILDER in session.config.stash:
        session.config.stash[BUILDER].close()
