"""The option --c-target: which names it takes, and what a missing compiler does."""

from __future__ import annotations

import argparse
import dataclasses

import pytest
from tests.core.targets import TARGETS, chosen_targets


def test_no_list_is_this_machine() -> None:
    assert chosen_targets("") == [""]


def test_all_and_lists_are_taken() -> None:
    assert chosen_targets("all") == list(TARGETS)
    assert chosen_targets("musl,m32") == ["musl", "m32"]


def test_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="'vax'; there are musl"):
        chosen_targets("musl,vax")


def test_missing_compiler_is_the_reason_and_names_the_packages() -> None:
    target = dataclasses.replace(TARGETS["musl"], compiler="no-such-gcc")
    assert target.why_not("any") == f"needs no-such-gcc (Debian: {target.packages})"


def test_compiler_that_fails_is_the_reason() -> None:
    target = dataclasses.replace(TARGETS["musl"], compiler="false")
    assert target.why_not("any").startswith("needs false")


def test_case_that_the_emulator_cannot_run_has_its_reason() -> None:
    target = TARGETS["aarch64"]
    assert "SO_RXQ_OVFL" in target.why_not("what_the_kernel_drops_is_counted")
