"""``fdmux demo``: the tour of every helper, each step checked.

Its one rule: a step that fails is reported and the tour goes on; the exit code tells.
What the steps are is in tour/, each short enough to be read as an example.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux.commands.arguments import Subparsers

    Step = Callable[[], str]

# Steps give up by themselves; should one hang all the same, the process ends then, with
# a traceback and code 1.
TIME_MAX = 120.0

EXAMPLE = """\
example:
  $ fdmux demo && echo this install works"""


def add_parser(commands: Subparsers) -> None:
    """Describe ``demo`` to the parser."""
    parser = commands.add_parser(
        "demo",
        help="show every helper at work on loopback, and check it",
        description="Run a tour of every helper on loopback. Takes a few seconds.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--traceback", action="store_true", help="print where a failed step failed"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Go through the steps; 1 if one failed."""
    from fdmux.commands.tour import STEPS  # noqa: PLC0415 - asyncio takes its time

    began = time.monotonic()
    faulthandler.dump_traceback_later(
        TIME_MAX, exit=True, file=sys.__stderr__ or sys.stderr
    )
    try:
        passed = [
            take(title, step, with_traceback=arguments.traceback)
            for title, step in STEPS
        ]
    finally:
        faulthandler.cancel_dump_traceback_later()
    failed_count = passed.count(False)
    verdict = f"{failed_count} FAILED" if failed_count else "all ok"
    took = time.monotonic() - began
    sys.stdout.write(f"{len(passed)} steps, {verdict}, {took:.1f} s\n")
    return 1 if failed_count else 0


def take(title: str, step: Step, *, with_traceback: bool) -> bool:
    """Run one step and print its line; return whether it passed."""
    try:
        seen = step()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
        seen = f"{type(error).__name__}: {error}"
        sys.stdout.write(f"FAILED  {title:<28}{seen}\n")
        if with_traceback:
            traceback.print_exc()
        return False
    sys.stdout.write(f"ok      {title:<28}{seen}\n")
    sys.stdout.flush()
    return True
