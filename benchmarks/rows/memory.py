"""Row `memory`: bytes in C for each idle io watcher, at 10,000 watchers.

Two figures, since neither tells all: what malloc handed out (mallinfo2, with its own
overhead, arrays that grow ahead of need included), and what of it became resident
(/proc/self/statm), which is what the machine misses. Both count the loop itself and all
that the program must keep for a watcher. See programs/native/chain.h.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benchmarks.contenders import find, start
from benchmarks.result import Table
from benchmarks.rounds import progress
from benchmarks.rows.chain import (
    BASELINE,
    PROGRAMS,
    SPARE_DESCRIPTORS,
    check_descriptors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.options import Options

WATCHERS = 10_000


def measure(options: Options) -> Iterator[Table]:
    del options  # memory is the same in each round
    check_descriptors(WATCHERS + SPARE_DESCRIPTORS)
    left_out: dict[str, str] = {}
    libraries = {name: PROGRAMS[name] for name in PROGRAMS if name != BASELINE}
    found = find(libraries, left_out)
    situation = f"{WATCHERS:,} idle io watchers"
    progress(f"  {situation}")
    with contextlib.ExitStack() as stack:
        programs = start(found, [WATCHERS, 0, 0, 0, 0], None, stack)
        figures = {name: program.run_round() for name, program in programs.items()}
    for index, kind in enumerate(("allocated", "resident")):
        samples = {name: [both[index] / WATCHERS] for name, both in figures.items()}
        unit = f"bytes {kind} per watcher"
        yield Table("memory", situation, unit, None, samples, left_out)
