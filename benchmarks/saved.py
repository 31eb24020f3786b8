"""Runs that were saved with --json: reading them, and comparing two."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.result import Spread, Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class NotSaved(Exception):  # noqa: N818 - reads as "it is not a saved run"
    """The file holds no run; the message names it."""


@dataclass(frozen=True)
class Run:
    """What one command has measured, and on what."""

    machine: dict[str, object]
    tables: list[Table]

    def write(self, path: Path) -> None:
        tables = [table.as_json() for table in self.tables]
        content = {"machine": self.machine, "tables": tables}
        path.write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read what `write` has written.

        Raises:
            NotSaved: The file cannot be read, or is something else.
        """
        try:
            content = json.loads(path.read_text())
            tables = [Table.of_json(table) for table in content["tables"]]
            return cls(dict(content["machine"]), tables)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotSaved(f"{path} is not a saved run: {error!r}") from None


def differences(old: Run, new: Run) -> Iterator[str]:
    """Yield a text for each table that both runs have.

    Ratios to the baseline are compared, or values where there is no baseline. Two
    figures are the same unless their middle halves lie apart.
    """
    for key in ("processor", "python", "kernel"):
        if old.machine.get(key) != new.machine.get(key):
            was, now = old.machine.get(key), new.machine.get(key)
            yield f"another {key}: {was} before, {now} now"
    before = {_key(table): table for table in old.tables}
    for table in new.tables:
        if _key(table) in before:
            yield _difference(before[_key(table)], table)


def _key(table: Table) -> tuple[str, str, str, str | None]:
    return table.row, table.situation, table.unit, table.baseline


def _difference(old: Table, new: Table) -> str:
    what = f"ratio to {new.baseline}" if new.baseline else new.unit
    lines = [
        f"{new.row}: {new.situation}, compared with the saved run",
        f"  {what:26}{'before':>10}{'now':>10}",
    ]
    for name in new.samples:
        was, now = _figure(old, name), _figure(new, name)
        if name != new.baseline and was is not None and now is not None:
            lines.append(_line(name, was, now))
    if old.is_too_noisy or new.is_too_noisy:
        which = "the saved run" if old.is_too_noisy else "this run"
        lines.append(f"  TOO NOISY to conclude: {which}")
    return "\n".join(lines)


def _figure(table: Table, name: str) -> Spread | None:
    """Return what is compared; None: it was not measured, or its baseline was not."""
    if table.baseline is not None:
        return table.ratios(name)
    return Spread.of(table.samples[name]) if name in table.samples else None


def _line(name: str, old: Spread, new: Spread) -> str:
    change = new.median - old.median
    if old.overlaps(new):
        verdict = "same"
    else:
        share = f"{abs(change / old.median):.0%} " if old.median else ""
        verdict = f"{share}{'more' if change > 0 else 'less'}"
    return f"  {name:26}{old.median:>10.2f}{new.median:>10.2f}   {verdict}"
