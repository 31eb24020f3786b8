"""A table of results: medians, ratios to the baseline, and their spread.

Ratios are taken round by round and the median comes last: a slow phase of the
machine hits both sides of a ratio and drops out.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    Json = Mapping[str, object]

# If the middle half of paired ratios is wider than this share of their median, for half
# of the contenders, then the machine did other things meanwhile.
NOISE_MAX = 0.15
ROUNDS_MIN = 4  # fewer have no quartiles to speak of


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

    @property
    def width(self) -> float:
        """The middle half, as a share of the median."""
        return (self.upper - self.lower) / self.median if self.median else 0.0

    def has(self, value: float) -> bool:
        return self.lower <= value <= self.upper

    def overlaps(self, other: Spread) -> bool:
        return self.lower <= other.upper and other.lower <= self.upper

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

    def as_json(self) -> dict[str, object]:
        return {"name": self.name, "at_most": self.at_most, "of": self.of}

    @classmethod
    def of_json(cls, entry: Json) -> Limit:
        name, of = cast("str", entry["name"]), cast("str | None", entry["of"])
        return cls(name, cast("float", entry["at_most"]), of)


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

    def limited(self, limit: Limit) -> Spread | None:
        """Return the figures that ``limit`` is about; None: they were not measured."""
        if limit.of is not None:
            return self._ratios_to(limit.of, limit.name)
        values = self.samples.get(limit.name)
        return Spread.of(values) if values else None

    @property
    def rounds(self) -> int:
        return len(next(iter(self.samples.values()), []))

    def noise(self) -> float | None:
        """How wide the middle half of the ratios is; None: there is nothing to tell.

        A share of the median, and of the contender in the middle, since one of them may
        be noisy by itself.
        """
        if self.rounds < ROUNDS_MIN:
            return None
        spreads = [
            ratios.width
            for name in self.samples
            if name != self.baseline and (ratios := self.ratios(name))
        ]
        return statistics.median(spreads) if spreads else None

    @property
    def is_too_noisy(self) -> bool:
        noise = self.noise()
        return noise is not None and noise > NOISE_MAX

    def as_json(self) -> dict[str, object]:
        return {
            "row": self.row,
            "situation": self.situation,
            "unit": self.unit,
            "baseline": self.baseline,
            "results": {name: self._entry(name) for name in self.samples},
            "left_out": self.left_out,
            "limits": [
                {**limit.as_json(), "found": found.median if found else None}
                for limit in self.limits
                for found in [self.limited(limit)]
            ],
            "noise": self.noise(),
            "is_too_noisy": self.is_too_noisy,
        }

    @classmethod
    def of_json(cls, entry: Json) -> Table:
        """Read what `as_json` has written.

        Raises:
            KeyError, TypeError, ValueError: It has not.
        """
        results = cast("Mapping[str, Json]", entry["results"])
        samples = {
            name: cast("list[float]", result["samples"])
            for name, result in results.items()
        }
        if not all(samples.values()):
            raise ValueError("a contender without samples")
        limits = cast("list[Json]", entry["limits"])
        return cls(
            cast("str", entry["row"]),
            cast("str", entry["situation"]),
            cast("str", entry["unit"]),
            cast("str | None", entry["baseline"]),
            samples,
            cast("dict[str, str]", entry["left_out"]),
            tuple(Limit.of_json(limit) for limit in limits),
        )

    def _entry(self, name: str) -> dict[str, object]:
        ratios = self.ratios(name)
        return {
            "value": Spread.of(self.samples[name]).as_json(),
            "ratio": ratios.as_json() if ratios else None,
            "samples": self.samples[name],
        }

    def as_text(self) -> str:
        plural = "" if self.rounds == 1 else "s"
        ratio = f"; ratio to {self.baseline}" if self.baseline else ""
        spread = "ratios" if self.baseline else "values"
        lines = [
            f"{self.row}: {self.situation}",
            f"  {self.unit}; {self.rounds} round{plural}{ratio}",
            f"  {'':26}{'median':>10}{'ratio':>8}   middle half of the {spread}",
        ]
        lines += [self._line(name) for name in self.samples]
        lines += [f"  {name:26}left out: {why}" for name, why in self.left_out.items()]
        lines += [self._verdict(limit) for limit in self.limits]
        if self.is_too_noisy:
            lines.append(
                f"  TOO NOISY to conclude: the middle half is {self.noise():.0%} wide, "
                f"more than {NOISE_MAX:.0%}"
            )
        return "\n".join(lines)

    def as_markdown(self) -> str:
        """Return it for a page: medians, ratios, limits and whether they hold."""
        ratio = f"ratio to {self.baseline}" if self.baseline else "ratio"
        lines = [
            f"**{self.situation}** ({self.unit})",
            "",
            f"| | median | {ratio} | middle half | limit |",
            "|---|---|---|---|---|",
        ]
        for name in self.samples:
            median = shown(Spread.of(self.samples[name]).median)
            ratios = self.ratios(name)
            half = f"{ratios.lower:.2f} to {ratios.upper:.2f}" if ratios else ""
            figure = f"{ratios.median:.2f}" if ratios else ""
            cells = (name, median, figure, half, self._limit_cell(name))
            lines.append(f"| {' | '.join(cells)} |")
        if self.is_too_noisy:
            lines += ["", "Too noisy to conclude."]
        return "\n".join(lines)

    def _limit_cell(self, name: str) -> str:
        """Return the limits of a contender that were measured."""
        found = [
            (limit, spread.median)
            for limit in self.limits
            if limit.name == name and (spread := self.limited(limit))
        ]
        return ", ".join(
            f"{limit.at_most:.2f} of {limit.of or self.unit}"
            + ("" if median <= limit.at_most else f" (**{median:.2f}**)")
            for limit, median in found
        )

    def _line(self, name: str) -> str:
        values = Spread.of(self.samples[name])
        ratios = self.ratios(name)
        median = shown(values.median)
        if self.baseline is None:
            spread = f"{values.lower:,.2f} to {values.upper:,.2f}"
            return f"  {name:26}{median:>10}{'-':>8}   {spread}"
        if ratios is None:
            return f"  {name:26}{median:>10}{'-':>8}"
        spread = f"{ratios.lower:.2f} to {ratios.upper:.2f}"
        return f"  {name:26}{median:>10}{ratios.median:>8.2f}   {spread}"

    def _verdict(self, limit: Limit) -> str:
        found = self.limited(limit)
        if found is None:
            return f"  limit: {limit}: not measured"
        verdict = "held" if found.median <= limit.at_most else "MISSED"
        if self.rounds >= ROUNDS_MIN and found.has(limit.at_most):
            verdict += ", within the noise"
        return f"  limit: {limit}: {found.median:.3f}, {verdict}"


def shown(value: float) -> str:
    """Write a figure with the digits that mean something."""
    return f"{value:,.1f}" if value >= 100 else f"{value:.2f}"
