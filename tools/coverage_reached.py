"""The lines and branches of one source that tests reach, and those they need not.

Its one rule: an exclusion names its lines by their text. So it stays valid when lines
move, and one that matches no line is an error (`Exclusion.range_in`).
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Exclusion:
    """Lines, or branches of lines, that tests need not reach, and why.

    The first line is the first that contains ``text``, after the first that contains
    ``within``. The last line is the first from there on that contains ``through``.
    """

    file: str
    text: str
    reason: str
    within: str = ""
    through: str = ""
    is_of_branches: bool = False

    def range_in(self, source: list[str]) -> range | None:
        """Return the numbers of its lines; ``None`` if ``source`` has no such lines."""
        start = find(source, self.within, 0) if self.within else 0
        first = None if start is None else find(source, self.text, start)
        if first is None:
            return None
        last = find(source, self.through, first) if self.through else first
        return None if last is None else range(first + 1, last + 2)


def find(source: list[str], text: str, start: int) -> int | None:
    """Return the index of the first line from ``start`` on that contains ``text``."""
    for index in range(start, len(source)):
        if text in source[index]:
            return index
    return None


@dataclasses.dataclass
class Reached:
    """How often each line and each branch was reached; a branch is (line, which)."""

    lines: dict[int, int] = dataclasses.field(default_factory=dict)
    branches: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)

    def add_line(self, number: int, count: int) -> None:
        """Add a count; a source may be compiled into several objects."""
        self.lines[number] = self.lines.get(number, 0) + count

    def add_branch(self, number: int, which: int, count: int) -> None:
        """Add a count of a branch, as `add_line`."""
        key = (number, which)
        self.branches[key] = self.branches.get(key, 0) + count

    def leave_out(self, numbers: range, *, is_of_branches: bool) -> int:
        """Remove lines and branches there that were not reached; return how many."""
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
        """The lines that were not reached."""
        return sorted(number for number, count in self.lines.items() if not count)

    @property
    def one_way(self) -> list[int]:
        """The lines that were reached, but with a branch that was not."""
        missing = {number for (number, _), count in self.branches.items() if not count}
        return sorted(missing - set(self.missing))
