"""A table of results: medians, ratios to the baseline, and their spread.

Ratios are taken round by round and the median comes last: a slow phase of the
machine hits both sides of a ratio and drops out.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Spread:
    """The median of some values, and the middle half around it."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper)

    def as_json(self) -> dict[str, float]:
        return {"median": self.median, "lower": self.lower, "upper": self.upper}


@dataclass(frozen=True)
class Limit:
    """What a median may be at most: a value, or a ratio to another contender's."""

    name: str
    at_most: float
    of: str | None = None

    def __str__(self) -> str:
        what = f" of {self.of}" if self.of else ""
        return f"{self.name} at most {self.at_most:.2f}{what}"


@dataclass(frozen=True)
class Table:
    """The samples of every contender in one situation, less being better.

    Without a baseline there are no ratios: of counts and differences they say nothing.
    """

    row: str
    situation: str
    unit: str
    baseline: str | None
    samples: dict[str, list[float]]
    left_out: dict[str, str] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()

    def ratios(self, name: str) -> Spread | None:
        return self._ratios_to(self.baseline, name) if self.baseline else None

    def _ratios_to(self, other: str, name: str) -> Spread | None:
        if other not in self.samples or name not in self.samples:
            return None
        pairs = zip(self.samples[name], self.samples[other], strict=True)
        return Spread.of([own / base for own, base in pairs])

    def limited(self, limit: Limit) -> float | None:
        """Return the median that ``limit`` is about; None: it was not measured."""
        if limit.of is not None:
            ratios = self._ratios_to(limit.of, limit.name)
            return ratios.median if ratios else None
        values = self.samples.get(limit.name)
        return Spread.of(values).median if values else None

    def as_json(self) -> dict[str, object]:
        return {
            "row": self.row,
            "situation": self.situation,
            "unit": self.unit,
            "baseline": self.baseline,
            "results": {name: self._entry(name) for name in self.samples},
            "left_out": self.left_out,
            "limits": [
                {"limit": str(limit), "found": self.limited(limit)}
                for limit in self.limits
            ],
        }

    def _entry(self, name: str) -> dict[str, object]:
        ratios = self.ratios(name)
        return {
            "value": Spread.of(self.samples[name]).as_json(),
            "ratio": ratios.as_json() if ratios else None,
            "samples": self.samples[name],
        }

    def as_text(self) -> str:
        rounds = len(next(iter(self.samples.values()), []))
        plural = "" if rounds == 1 else "s"
        ratio = f"; ratio to {self.baseline}" if self.baseline else ""
        spread = "ratios" if self.baseline else "values"
        lines = [
            f"{self.row}: {self.situation}",
            f"  {self.unit}; {rounds} round{plural}{ratio}",
            f"  {'':26}{'median':>10}{'ratio':>8}   middle half of the {spread}",
        ]
        lines += [self._line(name) for name in self.samples]
        lines += [f"  {name:26}left out: {why}" for name, why in self.left_out.items()]
        lines += [self._verdict(limit) for limit in self.limits]
        return "\n".join(lines)

    def _line(self, name: str) -> str:
        values = Spread.of(self.samples[name])
        ratios = self.ratios(name)
        shown = (
            f"{values.median:,.1f}" if values.median >= 100 else f"{values.median:.2f}"
        )
        if self.baseline is None:
            spread = f"{values.lower:,.2f} to {values.upper:,.2f}"
            return f"  {name:26}{shown:>10}{'-':>8}   {spread}"
        if ratios is None:
            return f"  {name:26}{shown:>10}{'-':>8}"
        spread = f"{ratios.lower:.2f} to {ratios.upper:.2f}"
        return f"  {name:26}{shown:>10}{ratios.median:>8.2f}   {spread}"

    def _verdict(self, limit: Limit) -> str:
        found = self.limited(limit)
        if found is None:
            return f"  limit: {limit}: not measured"
        verdict = "held" if found <= limit.at_most else "MISSED"
        return f"  limit: {limit}: {found:.3f}, {verdict}"
