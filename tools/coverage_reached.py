"""What was reached in one source: lines, and the ways out of them; and what counts.

Its one rule: an exclusion names its line by what stands there, so it follows the line
about, and one that names nothing any more is an error (`Exclusion.range_in`).
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Exclusion:
    """Lines that need not be reached, or ways out of a line, and why.

    The first line is the first that holds ``text``, below the first that holds
    ``within``; the last one is the first from there on that holds ``through``.
    """

    file: str
    text: str
    reason: str
    within: str = ""
    through: str = ""
    is_of_branches: bool = False

    def range_in(self, source: list[str]) -> range | None:
        """Find the numbers of its lines; ``None`` if they are there no more."""
        start = find(source, self.within, 0) if self.within else 0
        first = None if start is None else find(source, self.text, start)
        if first is None:
            return None
        last = find(source, self.through, first) if self.through else first
        return None if last is None else range(first + 1, last + 2)


def find(source: list[str], text: str, start: int) -> int | None:
    """Find the first line from ``start`` on that holds ``text``."""
    for index in range(start, len(source)):
        if text in source[index]:
            return index
    return None


@dataclasses.dataclass
class Reached:
    """How often each line was reached, and each way out: (line, which or where to)."""

    lines: dict[int, int] = dataclasses.field(default_factory=dict)
    branches: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)

    def add_line(self, number: int, count: int) -> None:
        """Add up: a source may be compiled into several objects."""
        self.lines[number] = self.lines.get(number, 0) + count

    def add_branch(self, number: int, which: int, count: int) -> None:
        """Add up, as `add_line`."""
        key = (number, which)
        self.branches[key] = self.branches.get(key, 0) + count

    def leave_out(self, numbers: range, *, is_of_branches: bool) -> int:
        """Forget what was not reached there; returns how much that was."""
        branches = [k for k, n in self.branches.items() if k[0] in numbers and not n]
        lines = [k for k in numbers if self.lines.get(k) == 0]
        for key in branches:
            del self.branches[key]
        if is_of_branches:
            return len(branches)
        for number in lines:
            del self.lines[number]
        return len(branches) + len(lines)

    @property
    def missing(self) -> list[int]:
        """The lines that nothing has reached."""
        return sorted(number for number, count in self.lines.items() if not count)

    @property
    def one_way(self) -> list[int]:
        """The lines that were reached, but not left in every way."""
        missing = {number for (number, _), count in self.branches.items() if not count}
        return sorted(missing - set(self.missing))
