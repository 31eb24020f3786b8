"""Build for Windows, and run the tests of the core under wine.

``python tools/wine.py`` builds the C tests with mingw-w64, and runs each case on each
backend. The cases of a program share a process, since wine takes long to start one;
after a case that fails, another process runs the rest. ``--quick`` runs the programs of
QUICK alone.
Files that tests/core/windows names as lacking, and cases that ask for what Windows
lacks, are counted, and so is what tools/wine_known.txt lists, each with its reason.

It leaves wine's own settings alone: ``--prefix`` is a folder for those of this run.
docs/windows.md says what was run, and what was not.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "tests" / "core"
COMPILER = "x86_64-w64-mingw32-gcc"
CASE = re.compile(r"^(|BELL_|AFD_|POLL_|SLOW_|UNIT_)TEST\((\w+)\)", re.MULTILINE)
BACKENDS = ("afd", "poll")
# Cases of sets are left out: AFD keeps none, its polls report once.
OF_KIND = {
    "AFD_": ("afd",),
    "BELL_": ("poll",),  # a loop on afd has none
    "POLL_": ("poll",),
    "UNIT_": ("afd",),
}
LACKS = 77  # POSIX_LACKS of tests/core/windows/posix.h
PROGRAM_TIMEOUT = 60.0  # for all cases of a process, and more for each
CASE_TIMEOUT = 2.0
TRIES = 3  # of a case that fails
SLOW = {"test_faults": 120.0, "test_misuse_queue": 120.0}  # instead, for each case
# A bounded share for every run of the checks.
QUICK = (
    "test_dispatch",
    "test_handle",
    "test_io",
    "test_removal",
    "test_stream",
    "test_timer",
    "test_wake",
)
KNOWN = Path(__file__).with_name("wine_known.txt")


@dataclasses.dataclass(frozen=True)
class Case:
    """One case of one program, on one backend."""

    program: str
    name: str
    backend: str

    def __str__(self) -> str:
        """Return what a person reads, and types to run it alone."""
        return f"{self.program}::{self.name}[{self.backend}]"


@dataclasses.dataclass(frozen=True)
class Result:
    """How a case has ended."""

    case: Case
    status: int | None  # None: it did not end
    output: str

    @property
    def verdict(self) -> str:
        """Return ``ok``, ``lacks`` or ``failed``."""
        if self.status == 0:
            return "ok"
        return "lacks" if self.status == LACKS else "failed"


def build(directory: Path) -> None:
    """Configure and compile; what is up to date is left alone."""
    cmake = shutil.which("cmake") or str(Path(sys.executable).parent / "cmake")
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    options = {
        "CMAKE_SYSTEM_NAME": "Windows",
        "CMAKE_C_COMPILER": COMPILER,
        "FDMUX_BUILD_TESTS": "ON",
        "FDMUX_TESTING": "ON",
        "FDMUX_PYTHON": "OFF",
    }
    commands = [
        [cmake, "-S", str(ROOT), "-B", str(directory), *generator]
        + [f"-D{name}={value}" for name, value in options.items()],
        [cmake, "--build", str(directory), "--parallel", "2"],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def make_prefix(prefix: Path) -> None:
    """Make wine's settings, unless they are there; wine 8 is Windows 7 at first."""
    if prefix.exists():
        return
    prefix.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "WINEPREFIX": str(prefix), "WINEDEBUG": "-all"}
    for command in (["wineboot", "-i"], ["winecfg", "-v", "win10"]):
        subprocess.run(
            command,
            input="",
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )


def cases_of(directory: Path, only: str) -> list[Case]:
    """List the cases of the programs that were built."""
    found = []
    for program in sorted((directory / "tests" / "core").glob("test_*.exe")):
        text = (TESTS / f"{program.stem}.c").read_text(encoding="utf-8")
        for kind, name in CASE.findall(text):
            backends = OF_KIND.get(kind, BACKENDS)
            found += [Case(program.stem, name, backend) for backend in backends]
    return [case for case in found if only in str(case)]


def run_program(
    directory: Path, prefix: Path, program: str, backend: str, names: list[str]
) -> tuple[int | None, list[str]]:
    """Run some cases in one process. Returns its status, and the lines it printed."""
    environment = {
        **os.environ,
        "FDMUX_TEST_BACKEND": backend,
        "WINEPREFIX": str(prefix),
        "WINEDEBUG": "-all",
    }
    command = ["wine", str(directory / "tests" / "core" / f"{program}.exe"), *names]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    )
    try:
        each = SLOW.get(program, CASE_TIMEOUT)
        output, _ = process.communicate("", PROGRAM_TIMEOUT + each * len(names))
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        return None, output.splitlines()
    return process.returncode, output.splitlines()


@functools.cache
def read_known() -> dict[str, str]:
    """Return the reason for each case that is known to fail."""
    known = {}
    reason = ""
    for line in KNOWN.read_text(encoding="utf-8").splitlines():
        if line.startswith("= "):
            reason = line[2:]
        elif "::" in line:
            cases = [line] if line.endswith("]") else [f"{line}[{b}]" for b in BACKENDS]
            known.update(dict.fromkeys(cases, reason))
    return known


def run_again(directory: Path, prefix: Path, result: Result) -> Result:
    """Run a case that has failed alone, up to twice: some measure milliseconds."""
    case = result.case
    for _ in range(TRIES - 1):
        if result.verdict != "failed" or str(case) in read_known():
            break
        status, lines = run_program(
            directory, prefix, case.program, case.backend, [case.name]
        )
        result = Result(case, status, "\n".join(lines))
    return result


def run_cases(directory: Path, prefix: Path, cases: list[Case]) -> list[Result]:
    """Run the cases of one program on one backend."""
    results = []
    rest = list(cases)
    while rest:
        first = rest[0]
        names = [case.name for case in rest]
        status, lines = run_program(
            directory, prefix, first.program, first.backend, names
        )
        # With one case alone no name is printed.
        begun = max(1, sum(name in lines for name in names))
        last = rest[begun - 1]
        after = lines[lines.index(last.name) + 1 :] if last.name in lines else lines
        results += [Result(case, 0, "") for case in rest[: begun - 1]]
        failed = Result(last, status, "\n".join(after))
        results.append(run_again(directory, prefix, failed))
        rest = rest[begun:]
    return results


def explain(result: Result) -> str:
    """Return the end of what a case printed."""
    lines = [line for line in result.output.splitlines() if "wine32" not in line]
    return " / ".join(lines[-3:])


def report(results: list[Result], *, is_verbose: bool) -> int:
    """Print what is not as it should be, and the counts. Returns the exit status."""
    reasons = read_known()
    counts = {"ok": 0, "lacks": 0, "known": 0, "failed": 0}
    for result in results:
        known = reasons.get(str(result.case))
        verdict = result.verdict
        if verdict == "failed" and known is not None:
            verdict = "known"
        counts[verdict] += 1
        if verdict == "failed" or (is_verbose and verdict != "ok"):
            said = known or explain(result)
            print(f"{verdict}: {result.case} ({result.status}): {said}")
        if verdict == "ok" and known is not None and is_verbose:
            print(f"ok, but known to fail: {result.case}: {known}")
    print(
        ", ".join(f"{count} {verdict}" for verdict, count in counts.items()), flush=True
    )
    return 1 if counts["failed"] else 0


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--quick", action="store_true", help="a bounded share")
    parser.add_argument("--verbose", action="store_true", help="name what is lacking")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "windows")
    parser.add_argument("--prefix", type=Path, default=ROOT / "build" / "wineprefix")
    options = parser.parse_args()
    for program in ("wine", COMPILER):
        if shutil.which(program) is None:
            print(f"left out: there is no {program} here")
            return 0
    build(options.build)
    make_prefix(options.prefix)
    cases = cases_of(options.build, options.only)
    if options.quick:
        cases = [case for case in cases if case.program in QUICK]
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.program, case.backend), []).append(case)

    def run(group: list[Case]) -> list[Result]:
        return run_cases(options.build, options.prefix, group)

    results = []
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        running = [pool.submit(run, group) for group in groups.values()]
        for done in concurrent.futures.as_completed(running):
            results += done.result()
            report(done.result(), is_verbose=options.verbose)
    return report(results, is_verbose=options.verbose)


if __name__ == "__main__":
    sys.exit(main())
