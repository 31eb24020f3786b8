"""The table says what was measured."""

from __future__ import annotations

import pytest
from tests.reliability.ledger import Bar, Ledger


@pytest.mark.parametrize(
    ("figure", "direction", "limit", "verdict"),
    [
        (0, "at most", 0, "met"),
        (1, "at most", 0, "MISSED"),
        (5e6, "at least", 5e6, "met"),
        (4.9e6, "at least", 5e6, "MISSED"),
    ],
)
def test_verdict_is_by_the_limit(
    figure: float, direction: str, limit: float, verdict: str
) -> None:
    ledger = Ledger()
    ledger.enter(Bar("bar", figure, "", direction, limit, "test"))  # type: ignore[arg-type] # as given
    assert ledger.rows()[0][3] == verdict


def test_tables_hold_every_bar() -> None:
    ledger = Ledger()
    ledger.enter(Bar("posts lost", 0, "", "at most", 0, "a"))
    ledger.enter(Bar("lateness", 0.12345, "ms", "at most", 2, "b"))
    assert ledger.text() == [
        "bar         figure     limit      verdict",
        "posts lost  0          at most 0  met",
        "lateness    0.1235 ms  at most 2  met",
    ]
    assert "| lateness | 0.1235 ms | at most 2 | met |" in ledger.markdown(["here"])
