"""No file of the wheel tells in which folder it was built: all folders build alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.packaging.conftest import compiler

if TYPE_CHECKING:
    from pathlib import Path

    from tests.examples.conftest import Installation, Tool

pytestmark = pytest.mark.slow  # the wheel is built for the first of them


def test_no_file_of_the_wheel_names_it(
    installation: Installation, unpacked: Path
) -> None:
    folder = str(installation.source.parent).encode()
    files = [path for path in unpacked.rglob("*") if path.is_file()]
    assert unpacked / "fdmux" / "__init__.py" in files
    assert not [path for path in files if folder in path.read_bytes()]


def test_debug_information_would_not_name_it(
    installation: Installation,
    commands: dict[str, list[str]],
    tool: Tool,
    tmp_path: Path,
) -> None:
    """Distributions build with CFLAGS=-g."""
    source = installation.source / "csrc" / "core" / "loop.c"
    built = tmp_path / "loop.o"
    tool(*compiler(commands["loop.c"]), "-g", "-o", built, "-c", source)
    assert b"./csrc/core/loop.c" in built.read_bytes()
    assert str(installation.source).encode() not in built.read_bytes()
