"""The command line of the suite: ``python -m benchmarks``.

Progress goes to standard error, tables to standard output, everything to --json.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable, require
from benchmarks.check import check_load_generators
from benchmarks.check_programs import check_program_loads
from benchmarks.machine import describe_machine
from benchmarks.options import Options
from benchmarks.processes import Failed
from benchmarks.progress import duration, progress
from benchmarks.rows import ROWS, tls
from benchmarks.rows.echo import CONNECTIONS, SERVERS, SITUATIONS, SIZE
from benchmarks.saved import NotSaved, Run, differences

if TYPE_CHECKING:
    from benchmarks.result import Table


QUIET_LOAD = 0.5  # programs that run or wait for the processor


def count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{value} is not from 1 to 1,000,000")
    return value


def counts(text: str) -> tuple[int, ...]:
    return tuple(count(part) for part in text.split(","))


def names_among(known: list[str], text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in known:
            choice = ", ".join(known)
            raise argparse.ArgumentTypeError(f"{name!r} is none of {choice}")
    return names


def row_names(text: str) -> tuple[str, ...]:
    return names_among(list(ROWS), text)


def server_names(text: str) -> tuple[str, ...]:
    return names_among(list(SERVERS | tls.SERVERS), text)


def saved_run(text: str) -> Run:
    try:
        return Run.read(Path(text))
    except NotSaved as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def folder_of_pictures(text: str) -> Path:
    try:
        require("matplotlib")
    except Unavailable as reason:
        raise argparse.ArgumentTypeError(f"{reason}; it draws the pictures") from None
    return Path(text)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure fdmux beside its peers: CPU time, medians, ratios.",
        epilog="Exit status: 0 measured, 1 a row or check failed, 2 wrong arguments.",
    )
    parser.add_argument(
        "--rows",
        type=row_names,
        default=tuple(ROWS),
        metavar="NAME,...",
        help=f"only these rows (of {', '.join(ROWS)})",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few rounds: is it alive, not how fast"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="measure nothing; check that the load generators notice a wrong echo",
    )
    parser.add_argument("--rounds", type=count, help="rounds per table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument(
        "--svg",
        type=folder_of_pictures,
        metavar="FOLDER",
        help="draw a picture of each row, for light and for dark pages (matplotlib)",
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables as Markdown"
    )
    parser.add_argument(
        "--compare",
        type=saved_run,
        metavar="FILE",
        help="compare with a run that --json has saved",
    )
    parser.add_argument(
        "--saved",
        type=saved_run,
        metavar="FILE",
        help="measure nothing; print, draw and compare the run in this file",
    )
    add_echo_options(parser.add_argument_group("the echo row, and others of servers"))
    return parser


def add_echo_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--connections",
        type=counts,
        metavar="N,...",
        help="connections (1,100,1000 with 1,024 bytes, 100 with more)",
    )
    group.add_argument(
        "--sizes",
        type=counts,
        metavar="BYTES,...",
        help="message sizes (1024,16384,102400); each with each of --connections",
    )
    group.add_argument(
        "--servers",
        type=server_names,
        metavar="NAME,...",
        help="only these beside the baseline",
    )
    group.add_argument("--messages", type=count, help="messages per round")
    group.add_argument(
        "--no-pin",
        action="store_true",
        help="do not pin server and load generator to a core each",
    )
    group.add_argument(
        "--instructions",
        action="store_true",
        help="also count user-space instructions with valgrind (slow, steady)",
    )


def read_situations(arguments: argparse.Namespace) -> tuple[tuple[int, int], ...]:
    """Return the situations of the echo row."""
    is_quick: bool = arguments.quick
    connections: tuple[int, ...] | None = arguments.connections
    sizes: tuple[int, ...] | None = arguments.sizes
    if connections is None and sizes is None:
        return SITUATIONS[:2] + SITUATIONS[-1:] if is_quick else SITUATIONS
    usual = CONNECTIONS[:2] if is_quick else CONNECTIONS
    pairs = itertools.product(sizes or (SIZE,), connections or usual)
    return tuple((connections, size) for size, connections in pairs)


def read_options(arguments: argparse.Namespace) -> Options:
    is_quick: bool = arguments.quick
    return Options(
        rounds=arguments.rounds or (3 if is_quick else 15),
        is_quick=is_quick,
        situations=read_situations(arguments),
        servers=arguments.servers,
        messages=arguments.messages,
        is_pinned=not arguments.no_pin,
        has_instructions=arguments.instructions,
    )


def run_rows(names: tuple[str, ...], options: Options) -> tuple[list[Table], bool]:
    """Measure and print each row; also tell whether all of them could run."""
    tables: list[Table] = []
    ran_all = True
    begin = time.monotonic()
    for done, name in enumerate(names):
        left = (time.monotonic() - begin) / done * (len(names) - done) if done else None
        rest = "" if left is None else f", about {duration(left)} left if all are alike"
        progress(f"{name} (row {done + 1} of {len(names)}{rest}):")
        try:
            for table in ROWS[name](options):
                tables.append(table)
                print(table.as_text(), end="\n\n", flush=True)
        except (Unavailable, Failed) as reason:
            ran_all = False
            progress(f"{name}: {reason}")
    return tables, ran_all


def measure(arguments: argparse.Namespace) -> tuple[Run, bool]:
    """Measure the rows that were asked for; also tell whether all could run."""
    machine = describe_machine()
    for key, value in machine.items():
        progress(f"{key}: {value}")
    if os.getloadavg()[0] > QUIET_LOAD:
        progress("this machine is BUSY: other programs take part in the figures")
    tables, ran_all = run_rows(arguments.rows, read_options(arguments))
    return Run(machine, tables), ran_all


def show(run: Run, arguments: argparse.Namespace) -> None:
    """Save, compare and draw, as asked for."""
    if arguments.json is not None:
        run.write(arguments.json)
    if arguments.markdown is not None:
        tables = "\n\n".join(table.as_markdown() for table in run.tables)
        arguments.markdown.write_text(tables + "\n")
    if arguments.compare is not None:
        for text in differences(arguments.compare, run):
            print(text, end="\n\n", flush=True)
    noisy = sum(table.is_too_noisy for table in run.tables)
    if noisy:
        progress(f"too noisy to conclude: {noisy} of {len(run.tables)} tables")
    if arguments.svg is not None:
        from benchmarks import pictures  # noqa: PLC0415 - needs matplotlib

        for path in pictures.draw(run.tables, arguments.svg):
            progress(f"drew {path}")


def main() -> int:
    arguments = make_parser().parse_args()
    if arguments.check:
        results = [check_load_generators(), check_program_loads()]
        return 0 if all(results) else 1
    ran_all = True
    if arguments.saved is None:
        run, ran_all = measure(arguments)
    else:
        run = arguments.saved
        for table in run.tables:
            print(table.as_text(), end="\n\n")
    show(run, arguments)
    return 0 if ran_all else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
