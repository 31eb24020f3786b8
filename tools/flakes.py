"""Find flaky tests: run one tier of tests many times, and count failures.

    python tools/flakes.py                          50 runs of the commit tier
    python tools/flakes.py --runs 10 tests/python   other arguments for pytest

Each run has another random order, and is pinned to one CPU together with a busy
program. It prints each run, and for each test in how many runs it failed. Exit status 1
if any test failed. Its one rule: it ends only processes that it has started.
"""

from __future__ import annotations

import argparse
import collections
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parent.parent
COMMIT_TIER = ["tests/reliability", "-m", "commit"]
# Ends by itself when its parent process has ended.
BUSY_PROGRAM = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(1_000_000):
        pass
"""


def parse_arguments() -> argparse.Namespace:
    """Parse our own options; the other arguments are for pytest."""
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--cpu", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument("--load", type=int, default=1, help="how many busy programs")
    parser.add_argument("--first-seed", type=int, default=1)
    options, tests = parser.parse_known_args()
    options.tests = tests or COMMIT_TIER
    return options


def pinned(cpu: int) -> list[str]:
    """Return the beginning of a command that runs on ``cpu`` only."""
    if shutil.which("taskset") is None:
        sys.exit("flakes.py needs taskset (Debian: util-linux)")
    return ["taskset", "-c", str(cpu)]


def start_load(cpu: int) -> subprocess.Popen[bytes]:
    """Start a busy program on the same CPU."""
    code = [sys.executable, "-c", BUSY_PROGRAM, str(os.getpid())]
    return subprocess.Popen([*pinned(cpu), *code])


def failures_in(report: Path) -> list[str]:
    """Return the names of tests that failed, from pytest's report."""
    if not report.exists():
        return ["pytest itself"]
    cases = ET.parse(report).iter("testcase")  # noqa: S314 - pytest has written it for us
    return [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]


def run_once(options: argparse.Namespace, seed: int, report: Path) -> list[str]:
    """Run the tests in the order of ``seed``; print and return what failed."""
    command = [*pinned(options.cpu), sys.executable, "-m", "pytest", "-q"]
    command += ["-p", "randomly", "-p", "no:cacheprovider"]
    command += [f"--randomly-seed={seed}", f"--junitxml={report}", *options.tests]
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    failed = failures_in(report)
    if done.returncode and not failed:
        failed = [f"pytest itself, status {done.returncode}"]
    seconds = time.monotonic() - start
    print(f"seed {seed}: {seconds:.1f} s, {len(failed)} failed", flush=True)
    if failed:
        print(done.stdout[-20_000:], done.stderr[-2000:], flush=True)
    return failed


def main() -> int:
    """Run, count, print in how many runs each test failed; return the exit status."""
    options = parse_arguments()
    # A shell starts background jobs with SIGINT ignored. Children inherit that, but
    # some tests need SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    counts: collections.Counter[str] = collections.Counter()
    flaky_runs = 0
    loads = [start_load(options.cpu) for _ in range(options.load)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(options.runs):
                report = Path(folder) / f"{number}.xml"
                failed = run_once(options, options.first_seed + number, report)
                counts.update(failed)
                flaky_runs += bool(failed)
    finally:
        for load in loads:
            load.kill()
            load.wait()
    for name, count in counts.most_common():
        print(f"{count} of {options.runs}  {name}")
    print(f"{flaky_runs} of {options.runs} runs failed")
    return 1 if flaky_runs else 0


if __name__ == "__main__":
    sys.exit(main())
