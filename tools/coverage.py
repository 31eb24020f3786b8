"""Measure how much of csrc and of python/fdmux the tests reach, faults included.

    python tools/coverage.py            builds, runs, prints two tables: ten minutes
    python tools/coverage.py --list     the same, with the lines that were not reached
    python tools/coverage.py --report   what the last run has measured, once more

gcov measures csrc under the C tests and the Python suite (coverage_native.py);
coverage.py, which must be installed, measures python/fdmux under the Python suite
(coverage_python.py). coverage_exclusions.py lists the lines that tests need not reach,
with reasons, which are printed too. Exit status 1 if a limit is not met.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose coverage.py would hide the package

from tools import coverage_native, coverage_python  # noqa: E402 - after the change of sys.path
from tools.coverage_exclusions import EXCLUSIONS  # noqa: E402 - after the change of sys.path

if TYPE_CHECKING:
    from tools.coverage_reached import Reached

# In percent, of lines and of branches.
LIMITS = {"csrc": (100.0, 95.0), "python/fdmux": (100.0, 95.0)}


def apply_exclusions(files: dict[str, Reached]) -> list[str]:
    """Leave out excluded lines of these files; return exclusions that match no line."""
    problems = []
    for exclusion in EXCLUSIONS:
        reached = files.get(exclusion.file)
        if reached is None:
            continue
        source = (ROOT / exclusion.file).read_text(encoding="utf-8").splitlines()
        numbers = exclusion.range_in(source)
        if numbers is None:
            problems.append(f"excluded but gone: {exclusion.file}: {exclusion.text}")
        else:
            reached.leave_out(numbers, is_of_branches=exclusion.is_of_branches)
    return problems


def percent(counts: list[int]) -> float:
    """Return the percentage of counts that are not 0."""
    return 100 * sum(map(bool, counts)) / len(counts) if counts else 100.0


def share(counts: list[int]) -> str:
    """Return the number and percentage of counts that are not 0, as text."""
    reached = sum(map(bool, counts))
    return f"{reached:>6} of {len(counts):>5} {percent(counts):6.2f} %"


def print_table(title: str, files: dict[str, Reached], *, with_lines: bool) -> None:
    """Print one line for each source."""
    print(f"\n{title:38}{'lines':>24}   {'branches':>24}")
    for name, reached in sorted(files.items()):
        if not reached.lines:
            continue
        lines = share(list(reached.lines.values()))
        branches = share(list(reached.branches.values()))
        print(f"{name:38}{lines}   {branches}")
        if with_lines and reached.missing:
            print(f"    not reached: {', '.join(map(str, reached.missing))}")
        if with_lines and reached.one_way:
            print(f"    left in one way: {', '.join(map(str, reached.one_way))}")


def judge(title: str, files: dict[str, Reached]) -> bool:
    """Print the sums and their limits; return whether both are met."""
    lines = [n for one in files.values() for n in one.lines.values()]
    branches = [n for one in files.values() for n in one.branches.values()]
    is_met = True
    for what, counts, limit in zip(
        ("lines", "branches"), (lines, branches), LIMITS[title], strict=True
    ):
        met = percent(counts) >= limit
        verdict = "met" if met else "NOT MET"
        print(f"{what} of {title}: {share(counts)}, at least {limit} %: {verdict}")
        is_met = is_met and met
    return is_met


def print_exclusions(title: str) -> None:
    """Print each exclusion with its reason."""
    ours = [one for one in EXCLUSIONS if one.file.startswith(title)]
    print(f"\nexcluded in {title}: {len(ours)}")
    for exclusion in ours:
        what = "a branch of " if exclusion.is_of_branches else ""
        print(f"  {exclusion.file}: {what}{exclusion.text.strip()}")
        print(f"      {exclusion.reason}")


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="with line numbers")
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    failed: list[str] = []
    if importlib.util.find_spec("coverage") is None:
        parser.error("needs coverage.py: pip install coverage")
    if not arguments.report:
        # A shell starts background jobs with SIGINT ignored. Children inherit that, but
        # some tests need SIGINT.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        coverage_native.build()
        failed = coverage_native.run_cases() + coverage_python.run_suites()
    verdicts = []
    for title, module in (("csrc", coverage_native), ("python/fdmux", coverage_python)):
        files = module.reached_files()
        failed += apply_exclusions(files)
        print_table(title, files, with_lines=arguments.list)
        print_exclusions(title)
        verdicts.append((title, files))
    print()
    are_met = [judge(title, files) for title, files in verdicts]
    print("\n".join(failed))
    return 0 if all(are_met) and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
