"""Streams and transports under random calls (fuzz_delivery.py)."""

from __future__ import annotations

import pytest
from tests.fuzz.fuzz_delivery import run_one

SEEDS = 60


@pytest.mark.slow
def test_streams_and_transports_keep_their_rules() -> None:
    for seed in range(SEEDS):
        run_one(seed)
