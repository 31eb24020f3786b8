"""Endpoints of datagrams under random calls (fuzz_datagrams.py)."""

from __future__ import annotations

import pytest
from tests.fuzz.fuzz_datagrams import run_one

SEEDS = 60


@pytest.mark.slow
def test_endpoints_and_transports_keep_their_rules() -> None:
    for seed in range(SEEDS):
        run_one(seed)
