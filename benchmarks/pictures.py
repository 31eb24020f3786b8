"""Draws tables as SVG: one picture of each row, for light pages and for dark ones.

Each table is a panel: a dot is the median of the paired ratios to the baseline, the bar
through it the middle half, a tick the limit that we set. Needs matplotlib, so nothing
imports this file before a picture is asked for.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.result import Spread, Table

WIDTH = 7.6  # inches; 72 points each
LINE_HEIGHT = 0.23
TITLE_HEIGHT = 0.3
PANEL_HEIGHT = 0.75  # title, axis and the space between two panels
LOG_RANGE = 4.0  # ratios further apart than this need a logarithmic axis


@dataclass(frozen=True)
class Theme:
    """The colours of one kind of page."""

    name: str
    page: str
    ink: str
    faint: str
    own: str
    peer: str


THEMES = (
    Theme(
        "light", "#ffffff", "#1f2328", faint="#d1d9e0", own="#0969da", peer="#6e7781"
    ),
    Theme("dark", "#0d1117", "#e6edf3", faint="#3d444d", own="#58a6ff", peer="#9198a1"),
)


def draw(tables: list[Table], folder: Path) -> list[Path]:
    """Write ``folder``/ROW-THEME.svg for each row; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for row, group in itertools.groupby(tables, key=lambda table: table.row):
        shown = [table for table in group if _names(table)]
        for theme in THEMES if shown else ():
            paths.append(folder / f"{row}-{theme.name}.svg")
            _draw_row(shown, theme, paths[-1])
    return paths


def _names(table: Table) -> list[str]:
    """Return what is drawn, the best on top."""
    if table.baseline not in table.samples:
        return []
    names = [name for name in table.samples if name != table.baseline]
    return sorted(names, key=lambda name: _ratio(table, name).median)


def _ratio(table: Table, name: str) -> Spread:
    ratios = table.ratios(name)
    if ratios is None:
        raise KeyError(name)  # not for a name of `_names`
    return ratios


def _draw_row(tables: list[Table], theme: Theme, path: Path) -> None:
    settings = {
        "svg.fonttype": "none",  # text stays text: it can be found, and read aloud
        "font.family": "sans-serif",
        "svg.hashsalt": path.name,  # the same figures are the same file
        "font.size": 9,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "axes.edgecolor": theme.faint,
    }
    heights = [PANEL_HEIGHT + LINE_HEIGHT * len(_names(table)) for table in tables]
    with mpl.rc_context(settings):
        figure = Figure(
            figsize=(WIDTH, TITLE_HEIGHT + sum(heights)), layout="constrained"
        )
        for axes, table in zip(_panels(figure, heights), tables, strict=True):
            _draw_table(axes, table, theme)
        units = " and ".join(dict.fromkeys(table.unit for table in tables))
        title = f"{units}; less is better"
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        metadata = {"Date": None, "Title": f"{tables[0].row}: {title}"}
        figure.savefig(path, format="svg", facecolor=theme.page, metadata=metadata)


def _panels(figure: Figure, heights: list[float]) -> Iterator[Axes]:
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    return (figure.add_subplot(grid[i]) for i in range(len(heights)))


def _draw_table(axes: Axes, table: Table, theme: Theme) -> None:
    names = _names(table)
    spreads = [_ratio(table, name) for name in names]
    limits = {
        limit.name: limit.at_most
        for limit in table.limits
        if limit.of == table.baseline and limit.name in names
    }
    for place, (name, spread) in enumerate(zip(names, spreads, strict=True)):
        colour = theme.own if name.startswith("fdmux") else theme.peer
        axes.plot([spread.lower, spread.upper], [place, place], color=colour, lw=3)
        axes.plot([spread.median], [place], "o", color=colour, ms=6)
        limit = limits.get(name, 0.0)
        axes.annotate(
            f"{spread.median:.2f}",
            (max(spread.upper, spread.median, limit), place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
    for name, limit in limits.items():
        axes.plot([limit], [names.index(name)], "|", color=theme.ink, ms=10)
    axes.axvline(1.0, color=theme.ink, lw=0.8, ls=":")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(theme.own if name.startswith("fdmux") else theme.peer)
    _scale(axes, spreads)
    axes.grid(axis="x", color=theme.faint, lw=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    noise = " (too noisy to conclude)" if table.is_too_noisy else ""
    axes.set_title(
        f"{table.situation}; ratio to {table.baseline}{noise}",
        loc="left",
        fontsize=9,
    )
    axes.patch.set_alpha(0.0)


def _scale(axes: Axes, spreads: list[Spread]) -> None:
    """Show 1.0, and leave room for the figures; 0 is at the left unless far away."""
    low = min(1.0, *(spread.lower for spread in spreads))
    high = max(1.0, *(spread.upper for spread in spreads))
    if low <= 0 or high / low <= LOG_RANGE:
        axes.set_xlim(0, high * 1.12)
        return
    axes.set_xscale("log")
    axes.set_xlim(low * 0.8, high * math.pow(high / low, 0.12))
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
