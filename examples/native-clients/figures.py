"""Figures of what was answered, shown once a second.

On a terminal, rich draws a table that stays in its place; elsewhere, or without rich,
it is a line a second. Knows nothing of loops.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Figure:
    """Of one server: counts since the beginning, and a sum since the last look."""

    name: str
    count: int = 0
    failed: int = 0
    _seconds: float = 0.0
    _count_before: int = 0
    _looked: float = field(default_factory=time.perf_counter)

    def answered(self, seconds: float) -> None:
        """Count an answer that took so long."""
        self.count += 1
        self._seconds += seconds

    def look(self) -> tuple[float, float]:
        """Return answers per second and their mean in ms, since the last look."""
        now = time.perf_counter()
        count = self.count - self._count_before
        per_second = count / (now - self._looked)
        mean_ms = self._seconds / count * 1000 if count else 0.0
        self._looked, self._count_before, self._seconds = now, self.count, 0.0
        return per_second, mean_ms


class Figures:
    """Those of all servers, in the order in which they were asked for first."""

    def __init__(self) -> None:
        self._all: dict[str, Figure] = {}

    def of(self, name: str) -> Figure:
        """Return the figure of a server."""
        return self._all.setdefault(name, Figure(name))

    def __iter__(self) -> Iterator[Figure]:
        return iter(self._all.values())


def print_line(figures: Figures) -> None:
    """Print a line, for a file or a pipe."""
    parts = []
    for figure in figures:
        per_second, mean_ms = figure.look()
        parts.append(f"{figure.name} {per_second:,.0f}/s {mean_ms:.1f} ms")
    print(" | ".join(parts), flush=True)


@contextlib.contextmanager
def shown() -> Iterator[Callable[[Figures], None]]:
    """Give the function that shows the figures as they are."""
    if not sys.stdout.isatty() or importlib.util.find_spec("rich") is None:
        yield print_line
        return
    from rich.live import Live  # noqa: PLC0415 - optional
    from rich.table import Table  # noqa: PLC0415 - the same

    with Live(refresh_per_second=4) as live:

        def draw(figures: Figures) -> None:
            table = Table("server", "answers", "per second", "mean ms", "failed")
            for figure in figures:
                per_second, mean_ms = figure.look()
                cells = (f"{figure.count:,}", f"{per_second:,.0f}", f"{mean_ms:.2f}")
                table.add_row(figure.name, *cells, str(figure.failed))
            live.update(table, refresh=True)

        yield draw
