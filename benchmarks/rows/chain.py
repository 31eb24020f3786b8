"""Row `chain`: what a native event costs above bare ``epoll_wait``.

libevent's classic benchmark: N socket pairs, A of them readable, W writes handed on
from pair to pair. Everybody reads and writes the same; what a library costs beyond bare
epoll in the same round is its own. Where nobody reads, the system calls' noise is gone,
and nanoseconds can be told apart. See programs/native/chain.h.
"""

from __future__ import annotations

import contextlib
import functools
import math
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable
from benchmarks.build import build
from benchmarks.contenders import build_on_fdmux, find, start
from benchmarks.instructions import instructions_of
from benchmarks.processes import cores
from benchmarks.progress import progress
from benchmarks.result import Table
from benchmarks.rounds import interleave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.contenders import Command, Program
    from benchmarks.options import Options

BASELINE = "epoll"
SPARE_DESCRIPTORS = 64  # the program's own, as in programs/native/chain.h
EVENTS = 100_000
EVENTS_QUICK = 10_000

PROGRAMS: dict[str, Callable[[], Command]] = {
    BASELINE: lambda: [str(build("chain_epoll.c"))],
    "fdmux": lambda: [str(build_on_fdmux("chain_fdmux.c"))],
    "libev": lambda: [str(build("chain_libev.c", "-lev"))],
    "libuv": lambda: [str(build("chain_libuv.c", "-luv"))],
    "libevent": lambda: [str(build("chain_libevent.c", "-levent_core"))],
}


@dataclass(frozen=True)
class Chain:
    """One situation; ``hop`` is the way from a pair to the next one in the chain.

    With 0 there is no chain: the active pairs are always readable, and nobody reads.
    """

    pairs: int
    active: int
    writes: int
    hop: int

    def __str__(self) -> str:
        idle = self.pairs - self.active if self.hop != 1 else 0
        rest = f", the other {idle:,} always idle" if idle else ""
        doing = "active" if self.hop else "always readable, none read"
        return f"{self.pairs:,} socket pairs, {self.active} {doing}{rest}"


SITUATIONS = (
    Chain(100, 100, 1000, 0),
    Chain(9000, 100, 1000, 0),
    Chain(100, 100, 1000, 1),
    Chain(1000, 1, 1000, 1),
    Chain(1000, 100, 1000, 1),
    Chain(9000, 100, 1000, 1),
    Chain(9000, 100, 1000, 90),
)
# The same 100 pairs are busy in both; all that changes is how many lie idle.
FEW, MANY = SITUATIONS[2], SITUATIONS[-1]
SITUATIONS_QUICK = (SITUATIONS[0], FEW, MANY)


def measure(options: Options) -> Iterator[Table]:
    left_out: dict[str, str] = {}
    found = find(PROGRAMS, left_out)
    totals: dict[Chain, dict[str, list[float]]] = {}
    for chain in SITUATIONS_QUICK if options.is_quick else SITUATIONS:
        try:
            check_descriptors(2 * chain.pairs + SPARE_DESCRIPTORS)
        except Unavailable as reason:
            progress(f"  {chain}: left out: {reason}")
            continue
        totals[chain] = _sample(options, chain, found)
        unit = "CPU ns per event, all system calls included"
        yield Table("chain", str(chain), unit, BASELINE, totals[chain], left_out)
        yield _above_epoll(chain, totals[chain], left_out)
    if FEW in totals and MANY in totals:
        yield _flatness(totals[FEW], totals[MANY], left_out)
    if options.has_instructions:
        yield _count_instructions(SITUATIONS[0], found, left_out)


def check_descriptors(count: int) -> None:
    """Raise `Unavailable` if a process may not have so many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < count:
        raise Unavailable(f"needs {count} descriptors, ulimit -Hn says {hard}")


def _sample(
    options: Options, chain: Chain, found: dict[str, Command]
) -> dict[str, list[float]]:
    progress(f"  {chain}")
    core = cores(options.is_pinned)[0]
    events = EVENTS_QUICK if options.is_quick else EVENTS
    with contextlib.ExitStack() as stack:
        programs = start(found, [*_arguments(chain), events], core, stack)
        contenders = {
            name: functools.partial(_sample_once, program)
            for name, program in programs.items()
        }
        return interleave(contenders, options.rounds)


def _arguments(chain: Chain) -> list[int]:
    return [chain.pairs, chain.active, chain.writes, chain.hop]


def _sample_once(program: Program) -> float:
    events, nanoseconds = program.run_round()
    return nanoseconds / events


def _above_epoll(
    chain: Chain, samples: dict[str, list[float]], left_out: dict[str, str]
) -> Table:
    base = samples[BASELINE]
    above = {
        name: [own - floor for own, floor in zip(samples[name], base, strict=True)]
        for name in samples
        if name != BASELINE
    }
    unit = "CPU ns per event above bare epoll_wait"
    return Table("chain", str(chain), unit, None, above, left_out)


def _flatness(
    few: dict[str, list[float]], many: dict[str, list[float]], left_out: dict[str, str]
) -> Table:
    """The cost among 9,000 divided by that among 100, round by round."""
    ratios = {
        name: [own / other for own, other in zip(many[name], few[name], strict=True)]
        for name in few
    }
    situation = f"flatness: {MANY.pairs:,} pairs, 100 active, beside {FEW.pairs}"
    return Table("chain", situation, "ratio of the costs", None, ratios, left_out)


def _count_instructions(
    chain: Chain, found: dict[str, Command], left_out: dict[str, str]
) -> Table:
    samples: dict[str, list[float]] = {}
    for name, command in found.items():
        progress(f"  instructions, {chain}: {name}")
        samples[name] = [instructions_per_event(chain, command)]
    unit = "user-space instructions per event"
    return Table("chain", str(chain), unit, None, samples, left_out)


def instructions_per_event(chain: Chain, command: Command) -> float:
    """Return what one event costs a program in user space."""
    words = [str(argument) for argument in _arguments(chain)]
    counts = [
        instructions_of([*command, *words, str(events)])
        for events in (EVENTS_QUICK, 3 * EVENTS_QUICK)
    ]
    # A round ends with a whole run, of active + writes events.
    run = chain.active + chain.writes
    runs = math.ceil(3 * EVENTS_QUICK / run) - math.ceil(EVENTS_QUICK / run)
    return (counts[1] - counts[0]) / (run * runs)
