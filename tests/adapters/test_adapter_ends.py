"""Ends that no server brings about: each a C program, under the sanitizers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.adapters import built
from tests.adapters.conftest import skip
from tests.adapters.servers import MissingError
from tests.adapters.trials import SANITIZER_OPTIONS

if TYPE_CHECKING:
    from tests.adapters.conftest import Workshop

HERE = Path(__file__).parent


def run_alone(source: str, library: str, workshop: Workshop) -> None:
    try:
        built.flags_of(library)
    except MissingError as error:
        skip(error)
    program = built.build_alone(
        HERE / source, library, workshop.core(), workshop.folder
    )
    done = subprocess.run(
        [program],
        env={**os.environ, **SANITIZER_OPTIONS},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.adapters
def test_calls_of_sdbus_are_answered_before_the_loss_is_told(
    workshop: Workshop,
) -> None:
    run_alone("sdbus_lost.c", "sdbus", workshop)


@pytest.mark.adapters
def test_event_of_pulse_may_outlive_the_loop(workshop: Workshop) -> None:
    run_alone("pulse_outlived.c", "pulse", workshop)
