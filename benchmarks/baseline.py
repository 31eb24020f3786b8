"""Instruction counts of the hot paths, held against those that are committed.

    python -m benchmarks.baseline            # compare: exit status 1 beyond 3 %
    python -m benchmarks.baseline --write    # this state is the new baseline

callgrind counts user-space instructions, which a busy machine does not change.
Compilers and interpreters do, so baseline.json has one set for each environment; where
there is none, nothing is held, and the command says so.
A path is driven from its own thread (programs/hot_path.py), so no figure depends on how
fast a client is.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchmarks.availability import Unavailable
from benchmarks.contenders import find
from benchmarks.instructions import instructions_of_program
from benchmarks.processes import Failed
from benchmarks.programs.hot_path import PEERS
from benchmarks.progress import progress
from benchmarks.rows import chain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATH = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.03

Counts = dict[str, float]
Saved = dict[str, Counts]  # by environment

FEW, MANY = 20, 60  # rounds; the difference leaves the start out
KINDS = {
    "stream of StreamHandler": "stream",
    "datagrams of DatagramHandler": "datagram",
    "asyncio Protocol": "protocol",
    "asyncio streams": "streams",
}


def count_echo(kind: str) -> float:
    """Return the instructions per message of 1 KiB, of path and peer together."""
    module = "benchmarks.programs.hot_path"
    few, many = (
        instructions_of_program([sys.executable, "-m", module, kind, str(count)])
        for count in (FEW, MANY)
    )
    return (many - few) / (MANY - FEW) / PEERS


def count_chain() -> float:
    """Return the instructions of an event in a C program on the core."""
    left_out: dict[str, str] = {}
    found = find({"fdmux": chain.PROGRAMS["fdmux"]}, left_out)
    if not found:
        raise Unavailable(left_out["fdmux"])
    return chain.instructions_per_event(chain.SITUATIONS[0], found["fdmux"])


HOT_PATHS: dict[str, Callable[[], float]] = {
    **{name: functools.partial(count_echo, kind) for name, kind in KINDS.items()},
    "events of a program in C": count_chain,
}


def environment() -> str:
    """Return what the counts depend on, other than fdmux."""
    compiler = os.environ.get("CC", "cc")
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=False
    ).stdout.partition("\n")[0]
    libc = " ".join(platform.libc_ver())
    machine = platform.machine()
    return f"Python {platform.python_version()}, {version}, {libc}, {machine}"


def count_all() -> Counts:
    """Count each hot path that can run here."""
    counts: Counts = {}
    for name, count in HOT_PATHS.items():
        counts[name] = round(count(), 1)
        progress(f"  {name}: {counts[name]:,.0f}")
    return counts


def read(path: Path) -> Saved:
    """Read the committed counts."""
    return cast("Saved", json.loads(path.read_text())) if path.exists() else {}


def compare(old: Mapping[str, float], new: Mapping[str, float]) -> list[str]:
    """Return a line for each hot path that is beyond the tolerance, or has no count."""
    lines = [f"{name}: not in the baseline" for name in new if name not in old]
    lines += [f"{name}: not counted" for name in old if name not in new]
    for name in old.keys() & new.keys():
        change = new[name] / old[name] - 1
        if abs(change) > TOLERANCE:
            lines.append(
                f"{name}: {new[name]:,.0f} instructions a message or event, "
                f"{change:+.1%} of {old[name]:,.0f}"
            )
    return sorted(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.baseline",
        description="Hold the instruction counts of the hot paths within 3 %.",
    )
    parser.add_argument(
        "--write", action="store_true", help="make these counts the baseline"
    )
    arguments = parser.parse_args()
    here = environment()
    saved = read(PATH)
    progress(here)
    if here not in saved and not arguments.write:
        print(f"no baseline for {here}; --write makes one")
        return 0
    try:
        counts = count_all()
    except (Unavailable, Failed) as reason:
        print(f"cannot count: {reason}")
        return 1
    if arguments.write:
        saved[here] = counts
        PATH.write_text(json.dumps(saved, indent=1, sort_keys=True) + "\n")
        return 0
    wrong = compare(saved[here], counts)
    print("\n".join(wrong) or f"{len(counts)} hot paths within {TOLERANCE:.0%}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
