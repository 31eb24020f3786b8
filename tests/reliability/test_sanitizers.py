"""Tools that watch memory accesses report nothing, with nothing suppressed.

ThreadSanitizer, valgrind's memcheck and helgrind run the C tests; gcc -fanalyzer reads
the sources. Address- and UndefinedBehaviorSanitizer are part of each commit
(docs/testing.md). valgrind knows no epoll_pwait2, so it sees the older call.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.core.building import Build, CaseError, programs
from tests.core.conftest import CASE, SANITIZER_ENVIRONMENT, backends_of
from tests.tree import ROOT

if TYPE_CHECKING:
    from tests.reliability.conftest import Bars

pytestmark = pytest.mark.nightly

PROCESSES = 2
TIME_MAX = 300.0
REPORT = 99  # the exit code that valgrind is asked for
FEWER = {"FDMUX_TEST_CALLS": "5000"}  # of a million random calls
MEMCHECK = (
    "valgrind",
    "--quiet",
    f"--error-exitcode={REPORT}",
    "--leak-check=full",
    "--errors-for-leak-kinds=definite,indirect,possible",
    "--child-silent-after-fork=yes",
)
HELGRIND = ("valgrind", "--tool=helgrind", "--quiet", f"--error-exitcode={REPORT}")
# helgrind does not know the atomics of C11, so it calls every use of them a race;
# ThreadSanitizer does know them. helgrind adds checks of locks: their order and misuse.
RACE = re.compile(r"Possible data race during (read|write)")
LOCKS = re.compile(
    r"lock order|unlocked a|lock held|pthread_\w+ failed|destroy of|exiting"
)
# Cases with limits in milliseconds, which valgrind exceeds, being twenty times as slow;
# and cases whose child calls _exit(2) with the loop alive, or has a copy of the stack
# of a thread that does not exist there: memcheck takes these for leaks.
UNFIT = {
    "removed_but_dup_ed_descriptor_is_silenced_by_a_rebuild",
    "dup_of_the_old_file_does_not_speak_for_the_new_one",
    "rebuild_does_not_bring_closed_numbers_back",
    "rebuild_keeps_edge_exclusive_and_oneshot_watchers",
    "entry_left_behind_is_silenced",
    "run_goes_on_after_a_signal",
    "native_traffic_does_not_return_before_the_deadline",
    "signal_without_a_wake_is_eintr",
    "ready_watchers_are_served_alike",
    "child_of_fork_gets_echild_from_every_function_but_after_fork",
    "child_returns_although_another_thread_had_the_lock",
}
# Where several threads are at work; the others would show helgrind nothing.
THREADED = ("threads", "thread_ends", "post", "queue", "wake", "hold_threads")
ANALYZED = (
    "csrc/platform",
    "csrc/core",
    "csrc/backends",
    "csrc/stream",
    "csrc/tls",
    "csrc",
    "csrc/python",
)
INCLUDES = (
    "csrc/include",
    "csrc/platform",
    "csrc/core",
    "csrc/backends",
    "csrc/stream",
    "csrc/tls",
)
PYTHON_INCLUDES = sysconfig.get_path("include")


@dataclasses.dataclass(frozen=True)
class Case:
    """One case of a C program, on one backend."""

    program: str
    name: str
    backend: str
    is_slow: bool


def all_cases() -> list[Case]:
    found = []
    for path in sorted((ROOT / "tests" / "core").glob("test_*.c")):
        for kind, name in CASE.findall(path.read_text(encoding="utf-8")):
            found += [
                Case(path.stem, name, backend, kind == "SLOW_")
                for backend in backends_of(kind)
            ]
    return found


def fit_cases() -> list[Case]:
    return [case for case in all_cases() if not case.is_slow and case.name not in UNFIT]


def built(sanitize: str) -> Path:
    try:
        return programs(Build(sanitize, werror=False))
    except CaseError as error:
        if "the C tests need" in str(error):
            pytest.skip(str(error))
        raise


def run(folder: Path, watcher: tuple[str, ...], case: Case) -> tuple[int, str]:
    environment = {"FDMUX_TEST_BACKEND": case.backend, **SANITIZER_ENVIRONMENT, **FEWER}
    done = subprocess.run(
        [*watcher, str(folder / case.program), case.name],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIME_MAX,
    )
    return done.returncode, done.stderr


def reports_of(
    folder: Path, watcher: tuple[str, ...], cases: list[Case]
) -> tuple[list[str], int]:
    """What was reported, and how many cases ran well under the watcher."""
    reports = []
    passed = 0
    with concurrent.futures.ThreadPoolExecutor(PROCESSES) as pool:
        results = pool.map(lambda case: run(folder, watcher, case), cases)
        for case, (code, text) in zip(cases, results, strict=True):
            passed += code == 0
            if code == REPORT or "WARNING: ThreadSanitizer" in text:
                reports.append(f"{case}\n{text}")
            elif code != 0:
                print(f"{case} ended with {code}\n{text}")  # noqa: T201 - if it fails
    print("\n".join(reports))  # noqa: T201 - shown when the test fails
    return reports, passed


def need(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}: apt-get install {tool}")


def test_thread_sanitizer_reports_nothing(bars: Bars) -> None:
    cases = all_cases()
    reports, passed = reports_of(built("thread"), (), cases)
    bars.at_least(len(cases), "C cases under ThreadSanitizer", passed)
    bars.at_most(0, "reports of ThreadSanitizer", len(reports))


def test_memcheck_reports_nothing(bars: Bars) -> None:
    need("valgrind")
    cases = fit_cases()
    reports, passed = reports_of(built(""), MEMCHECK, cases)
    bars.at_least(len(cases), "C cases under memcheck", passed)
    bars.at_most(0, "reports of memcheck", len(reports))


def test_helgrind_reports_nothing(bars: Bars) -> None:
    need("valgrind")
    wanted = {f"test_{name}" for name in THREADED}
    cases = [case for case in fit_cases() if case.program in wanted]
    reports, passed = reports_of(built(""), HELGRIND, cases)
    assert all(RACE.search(text) or LOCKS.search(text) for text in reports)
    of_locks = [text for text in reports if LOCKS.search(text)]
    bars.at_least(len(cases), "C cases under helgrind", passed + len(reports))
    bars.at_most(0, "reports of helgrind about locks", len(of_locks))


def test_analyzer_of_gcc_has_no_warning(bars: Bars) -> None:
    need("gcc")
    if not Path(PYTHON_INCLUDES, "Python.h").exists():
        pytest.skip("needs Python.h: apt-get install python3-dev")
    sources = [path for folder in ANALYZED for path in (ROOT / folder).glob("*.c")]
    flags = ["-std=c11", "-O2", "-fanalyzer", "-DFDMUX_TESTING=1"]
    flags += [f"-I{ROOT / folder}" for folder in INCLUDES]
    flags.append(f"-isystem{PYTHON_INCLUDES}")
    printed = "".join(
        subprocess.run(
            ["gcc", *flags, "-c", str(source), "-o", os.devnull],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for source in sources
    )
    print(printed)  # noqa: T201 - shown when the test fails
    bars.at_least(20, "C files that gcc -fanalyzer has read", len(sources))
    warnings = re.findall(r"warning: ", printed)
    bars.at_most(0, "warnings of gcc -fanalyzer", len(warnings))
