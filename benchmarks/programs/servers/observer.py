"""The observer of the servers that are observed: it reads each report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import fdmux


class Reader:
    """Keeps the last report, and counts slow callbacks."""

    report: fdmux.Report | None = None
    slow_calls = 0

    def on_report(self, report: fdmux.Report) -> None:
        self.report = report

    def on_slow(self, _what: str, _duration: float) -> None:
        self.slow_calls += 1
