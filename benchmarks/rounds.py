"""Interleaved rounds: A B C, A B C, ... so that noise hits all contenders alike.

A contender is a function that takes one sample. Knows nothing of what is measured.
"""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Mapping

from benchmarks.progress import Countdown

Sample = Callable[[], float]
Repeat = Callable[[int], object]
Figures = dict[str, list[list[float]]]  # of each contender, of each round

# Long enough that reading the clock is lost in it, short enough that a disturbance
# spoils one sample and not the round.
SAMPLE_SECONDS = 0.003


def interleave(contenders: Mapping[str, Sample], rounds: int) -> dict[str, list[float]]:
    """Take ``rounds`` samples of each contender, one of each in turn."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    countdown = Countdown("round", rounds)
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, sample in contenders.items():
                samples[name].append(sample())
            countdown.step()
    finally:
        gc.enable()
        countdown.end()
    return samples


def interleave_figures(
    contenders: Mapping[str, Callable[[], list[float]]], rounds: int
) -> Figures:
    """As `interleave`, of contenders whose samples are several figures each."""
    figures: Figures = {name: [] for name in contenders}

    def note(name: str) -> float:
        figures[name].append(contenders[name]())
        return 0.0

    interleave({name: functools.partial(note, name) for name in contenders}, rounds)
    return figures


def column(figures: Figures, index: int, scale: float = 1.0) -> dict[str, list[float]]:
    """Return one of the figures of each round, for each contender."""
    return {
        name: [figures_of_round[index] * scale for figures_of_round in rounds]
        for name, rounds in figures.items()
    }


def thread_nanoseconds(repeat: Repeat, count: int) -> float:
    """Return the CPU time that ``repeat(count)`` takes in this thread."""
    start = time.thread_time_ns()
    repeat(count)
    return float(time.thread_time_ns() - start)


def calibrated(repeat: Repeat, units: int) -> Sample:
    """Make a sampler: CPU nanoseconds for one unit of ``repeat``.

    Args:
        repeat: Does the operation as many times as it is told.
        units: What one operation counts for, such as its number of ready fds.
    """
    count = 1
    while thread_nanoseconds(repeat, count) < SAMPLE_SECONDS * 1e9:
        count *= 2
    return lambda: thread_nanoseconds(repeat, count) / (count * units)
