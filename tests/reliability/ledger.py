"""The ledger: the table of measured figures that a run prints at its end.

A bar is one promise as a number with a limit. A test enters the figure it measured and
fails if that misses the limit, so the table also shows the figures of what passed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["at most", "at least"]


@dataclass(frozen=True)
class Bar:
    """One measured promise."""

    name: str
    figure: float
    unit: str
    direction: Direction
    limit: float
    test: str

    @property
    def is_met(self) -> bool:
        if self.direction == "at most":
            return self.figure <= self.limit
        return self.figure >= self.limit


def number(value: float) -> str:
    """Write a figure as people read it: whole numbers whole, others in four digits."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.4g}"


@dataclass
class Ledger:
    """What one run has measured."""

    bars: list[Bar] = field(default_factory=list)

    def enter(self, bar: Bar) -> None:
        self.bars.append(bar)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return bar, figure, limit and verdict of each, in the order of measuring."""
        return [
            (
                bar.name,
                f"{number(bar.figure)} {bar.unit}".strip(),
                f"{bar.direction} {number(bar.limit)}",
                "met" if bar.is_met else "MISSED",
            )
            for bar in self.bars
        ]

    def markdown(self, heading: list[str]) -> str:
        """Return the table for a document, under ``heading``."""
        lines = [
            *heading,
            "",
            "| bar | figure | limit | verdict |",
            "|---|---|---|---|",
        ]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows()]
        return "\n".join(lines) + "\n"

    def text(self) -> list[str]:
        """Return the table as lines of equal columns."""
        rows = [("bar", "figure", "limit", "verdict"), *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return [
            "  ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            ).rstrip()
            for row in rows
        ]
