"""``fdmux demo``: a tour of fdmux on loopback, each step checked.

After a step that fails the tour goes on, and the exit code is 1. A step that shows what
this system does not have is skipped.
The steps are in tour/; each is short enough to be read as an example.
"""

from __future__ import annotations

import argparse
import dataclasses
import faulthandler
import sys
import time
import traceback
from typing import TYPE_CHECKING

from fdmux.commands.failure import NotHereError
from fdmux.commands.output import painted, write, write_json

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
  $ fdmux demo --json

exit status: 0 if no step failed, 1 if one did"""


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
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object at the end"
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
        taken = []
        for title, step in STEPS:
            taken.append(take(title, step, with_traceback=arguments.traceback))
            if not arguments.json:
                write(line_of(taken[-1]))
    finally:
        faulthandler.cancel_dump_traceback_later()
    took = time.monotonic() - began
    skipped_count = sum(one.skipped for one in taken)
    failed_count = sum(not one.passed for one in taken) - skipped_count
    if arguments.json:
        steps = [dataclasses.asdict(one) for one in taken]
        write_json({"steps": steps, "failed": failed_count, "seconds": round(took, 3)})
    else:
        bad = painted(f"{failed_count} FAILED", "bad")
        verdict = bad if failed_count else painted("all ok", "good")
        skipped = f", {skipped_count} skipped" if skipped_count else ""
        write(f"{len(taken)} steps, {verdict}{skipped}, {took:.1f} s\n")
    return 1 if failed_count else 0


@dataclasses.dataclass(frozen=True)
class Taken:
    """How one step ended; the fields are the names in the JSON.

    Attributes:
        seen: What the step says, the error, or why it was skipped.
        skipped: Whether it shows what this system does not have; it did not pass then.
    """

    title: str
    passed: bool
    seen: str
    skipped: bool = False


def take(title: str, step: Step, *, with_traceback: bool) -> Taken:
    """Run one step."""
    try:
        return Taken(title, passed=True, seen=step())
    except NotHereError as reason:
        return Taken(title, passed=False, seen=str(reason), skipped=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
        if with_traceback:
            traceback.print_exc()
        return Taken(title, passed=False, seen=f"{type(error).__name__}: {error}")


def line_of(taken: Taken) -> str:
    """Return the line for people; the colour does not move its columns."""
    word, style = ("ok", "good") if taken.passed else ("FAILED", "bad")
    if taken.skipped:
        word, style = "skipped", "left out"
    gap = " " * (8 - len(word))
    return f"{painted(word, style)}{gap}{taken.title:<28}{taken.seen}\n"
