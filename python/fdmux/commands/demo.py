"""``fdmux demo``: a tour of fdmux on loopback, each step checked.

After a step that fails the tour goes on, and the exit code is 1.
The steps are in tour/; each is short enough to be read as an example.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time
import traceback
from typing import TYPE_CHECKING

from fdmux.commands.output import write

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux.commands.arguments import Subparsers

    Step = Callable[[], str]

# Each step gives up by itself. If one hangs all the same, the process ends after this
# time, with a traceback and exit code 1.
TIME_MAX = 120.0

EXAMPLE = """\
example:
  $ fdmux demo && echo this install works

exit status: 0 if every step passed, 1 if one failed"""


def add_parser(commands: Subparsers) -> None:
    """Describe ``demo`` to the parser."""
    parser = commands.add_parser(
        "demo",
        help="show every part of fdmux at work on loopback, and check it",
        description="Run every part of fdmux on loopback: waits, connects, loops, "
        "streams,\nframing, servers, queues, C code, mounting, guests. Takes a second.",
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
    write(f"{len(passed)} steps, {verdict}, {took:.1f} s\n")
    return 1 if failed_count else 0


def take(title: str, step: Step, *, with_traceback: bool) -> bool:
    """Run one step and print its line; return whether it passed."""
    try:
        seen = step()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
        seen = f"{type(error).__name__}: {error}"
        write(f"FAILED  {title:<28}{seen}\n")
        if with_traceback:
            traceback.print_exc()
        return False
    write(f"ok      {title:<28}{seen}\n")
    return True
