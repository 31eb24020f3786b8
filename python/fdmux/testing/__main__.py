"""python -m fdmux.testing: the table of hosts and cases.

Its exit code is 1 if a case has failed; hosts that are not installed do not count.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fdmux.testing.cases import CASES
from fdmux.testing.known import HOSTS
from fdmux.testing.report import examine, find_host

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fdmux.testing.report import Report, Result


def summary_of(case: str) -> str:
    """Return the first line of what a case says it is."""
    return (CASES[case].__doc__ or "").partition("\n")[0]


def legend(cases: Sequence[str]) -> Iterable[str]:
    """Say what the columns are."""
    for number, case in enumerate(cases, 1):
        yield f"{number}. `{case}`: {summary_of(case)}"


def mark(result: Result) -> str:
    """Say in one word how a case ended."""
    return "FAIL" if result.error else "ok"


def row(report: Report, cases: Sequence[str]) -> list[str]:
    """Return the cells of one host."""
    if report.missing:
        return [report.host, report.missing, *("-" for _ in cases)]
    return [report.host, report.version, *map(mark, report.results)]


def table(reports: Sequence[Report], cases: Sequence[str]) -> Iterable[str]:
    """Lay out the table; it is Markdown as well."""
    numbers = [str(number) for number in range(1, len(cases) + 1)]
    rows = [["host", "version", *numbers], *(row(report, cases) for report in reports)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    for cells in rows:
        padded = map(str.ljust, cells, widths)
        yield f"| {' | '.join(padded)} |"


def remarks(reports: Iterable[Report]) -> Iterable[str]:
    """Say what failed, and what the cases had to say."""
    for report in reports:
        for result in report.results:
            if result.error:
                yield f"\nFAIL {report.host}, {result.case}:\n{result.error}"
            elif result.remark:
                yield f"{report.host}, {result.case}: {result.remark}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m fdmux.testing",
        description="Does a loop host native code as it should? Host by case.",
        epilog=f"Hosts: {', '.join(HOSTS)}.",
    )
    parser.add_argument(
        "--host", action="append", metavar="NAME", help="one of these, or module:Class"
    )
    parser.add_argument("--case", action="append", choices=list(CASES))
    return parser.parse_args(arguments)


def say(line: str) -> None:
    """Write a line at once: some hosts take a second."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine hosts and print what came out; returns the exit code."""
    options = parse(arguments)
    names: list[str] = options.host or list(HOSTS)
    cases: list[str] = options.case or list(CASES)
    try:
        for name in names:
            find_host(name)
    except (LookupError, ImportError) as error:
        say(str(error))
        return 2
    reports = [examine(name, tuple(cases)) for name in names]
    for line in (*table(reports, cases), "", *legend(cases), ""):
        say(line)
    for line in remarks(reports):
        say(line)
    return 0 if all(report.is_good for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
