"""python -m fdmux.testing: print the table of hosts and cases, or an adapter's cases.

Exit codes: 0 if all cases passed on all installed hosts, 1 if a case failed, 2 if a
named host or adapter does not exist.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from fdmux.testing.cases import CASES
from fdmux.testing.cases_adapter import ADAPTER_CASES
from fdmux.testing.known import HOSTS
from fdmux.testing.report import examine, examine_adapter, find_host

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fdmux.testing.report import Report, Result

EXAMPLES = """\
examples:
  $ python -m fdmux.testing                               all hosts, all cases
  $ python -m fdmux.testing --host asyncio --case fd_ready
  $ python -m fdmux.testing --host mypackage.host:MyHost  a host of yours
  $ python -m fdmux.testing --adapter mypackage:MyAdapter

exit status: 0 all passed, 1 a case failed, 2 no such host or adapter

"""


def summary_of(case: str) -> str:
    """Return the first line of a case's docstring."""
    return (CASES[case].__doc__ or "").partition("\n")[0]


def legend(cases: Sequence[str]) -> Iterable[str]:
    """Return the lines that explain the columns."""
    for number, case in enumerate(cases, 1):
        yield f"{number}. `{case}`: {summary_of(case)}"


def mark(result: Result) -> str:
    """Return the cell of one case."""
    return "FAIL" if result.error else "ok"


def row(report: Report, cases: Sequence[str]) -> list[str]:
    """Return the row of one host."""
    if report.missing:
        return [report.host, report.missing, *("-" for _ in cases)]
    return [report.host, report.version, *map(mark, report.results)]


def table(reports: Sequence[Report], cases: Sequence[str]) -> Iterable[str]:
    """Return the lines of the table, in Markdown."""
    numbers = [str(number) for number in range(1, len(cases) + 1)]
    rows = [["host", "version", *numbers], *(row(report, cases) for report in reports)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    for cells in rows:
        padded = map(str.ljust, cells, widths)
        yield f"| {' | '.join(padded)} |"


def remarks(reports: Iterable[Report]) -> Iterable[str]:
    """Return the errors and remarks of the cases."""
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
        description="Run the conformance cases on hosts of native code.",
        epilog=EXAMPLES + f"Hosts: {', '.join(HOSTS)}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host", action="append", metavar="NAME", help="one of these, or module:Class"
    )
    parser.add_argument(
        "--adapter", metavar="NAME", help="instead of hosts, an adapter: module:Class"
    )
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object for each host"
    )
    options = parser.parse_args(arguments)
    if options.adapter and (options.host or options.case):
        parser.error("--adapter runs its own cases: leave out --host and --case")
    return options


def say(line: str) -> None:
    """Write a line and flush it, as some hosts take a second."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def say_json(report: Report) -> None:
    """Write the results of one host or adapter for a program."""
    say(json.dumps(dataclasses.asdict(report)))


def main_adapter(name: str, *, as_json: bool) -> int:
    """Run all cases on an adapter, print a line for each, and return the exit code."""
    try:
        report = examine_adapter(name)
    except (LookupError, ImportError) as error:
        say(str(error))
        return 2
    if as_json:
        say_json(report)
        return 0 if report.is_good else 1
    for result in report.results:
        summary = (ADAPTER_CASES[result.case].__doc__ or "").partition("\n")[0]
        say(f"{mark(result):4}  {result.case}: {summary}")
    for line in remarks([report]):
        say(line)
    return 0 if report.is_good else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases, print the table, and return the exit code."""
    options = parse(arguments)
    if options.adapter:
        return main_adapter(options.adapter, as_json=options.json)
    names: list[str] = options.host or list(HOSTS)
    cases: list[str] = options.case or list(CASES)
    try:
        for name in names:
            find_host(name)
    except (LookupError, ImportError) as error:
        say(str(error))
        return 2
    reports = [examine(name, tuple(cases)) for name in names]
    if options.json:
        for report in reports:
            say_json(report)
        return 0 if all(report.is_good for report in reports) else 1
    for line in (*table(reports, cases), "", *legend(cases), ""):
        say(line)
    for line in remarks(reports):
        say(line)
    return 0 if all(report.is_good for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
