"""The table of docs/adapters.md: which scenarios passed, by library and host.

Its one rule: a run of the tests writes it, and each test compares its own cell.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tests.adapters.trials import HOSTS, SCENARIOS
from tests.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

PAGE = ROOT / "docs" / "adapters.md"
BEGIN, END = "<!-- matrix:begin -->\n", "<!-- matrix:end -->\n"


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one library did in one host."""

    version: str
    passed: frozenset[str]

    def __str__(self) -> str:
        numbers = (
            str(number) if scenario in self.passed else "-"
            for number, scenario in enumerate(SCENARIOS, 1)
        )
        return " ".join(numbers)


Cells = dict[tuple[str, str], Cell]


def line_of(words: Iterable[str]) -> str:
    return f"| {' | '.join(words)} |\n"


def rows_of(cells: Mapping[tuple[str, str], Cell]) -> Iterator[str]:
    """Yield the lines of the table.

    Raises:
        KeyError: A library has not run in every host.
    """
    yield line_of(["library", "version", *HOSTS])
    yield line_of(["---"] * (2 + len(HOSTS)))
    for library in dict.fromkeys(library for library, _host in cells):
        row = [cells[library, host] for host in HOSTS]
        yield line_of([f"`{library}.h`", row[0].version, *map(str, row)])


def write(cells: Mapping[tuple[str, str], Cell], page: Path) -> None:
    """Replace the table of ``page``."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "".join(rows_of(dict(sorted(cells.items()))))
    page.write_text(before + BEGIN + table + END + after)


def committed(page: Path = PAGE) -> dict[tuple[str, str], str]:
    """Return the cells of the page, by library and host."""
    table = page.read_text().partition(BEGIN)[2].partition(END)[0]
    header, _rule, *lines = [
        [word.strip() for word in line.strip("| \n").split("|")]
        for line in table.splitlines()
    ]
    return {
        (words[0].strip("`").removesuffix(".h"), host): cell
        for words in lines
        for host, cell in zip(header[2:], words[2:], strict=True)
    }
