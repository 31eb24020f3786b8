"""Other code can link to the symbols of a reviewed list, all with our prefix."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.examples.conftest import Tool

pytestmark = [
    pytest.mark.slow,  # the wheel is built for the first of them
    pytest.mark.skipif(shutil.which("nm") is None, reason="no nm (Debian: binutils)"),
]

REVIEWED = Path(__file__).with_name("exported_symbols.txt")
DECLARED = re.compile(r"^FDMUX_API [^;]*?\b(fdmux_\w+)\(", re.MULTILINE)


def defined(tool: Tool, *arguments: str | Path) -> set[str]:
    """The names that ``nm`` says are defined."""
    lines = tool("nm", "--defined-only", *arguments).splitlines()
    return {words[2] for words in map(str.split, lines) if len(words) == 3}


def test_extension_exports_the_reviewed_list(extension: Path, tool: Tool) -> None:
    lines = REVIEWED.read_text(encoding="utf-8").splitlines()
    module = extension.name.partition(".")[0]
    reviewed = [line.split()[1] for line in lines if line.split()[0] == module]
    assert sorted(defined(tool, "--dynamic", extension)) == reviewed


def test_static_core_exports_its_header_and_internal_names_alone(
    unpacked: Path, static_core: Path, tool: Tool
) -> None:
    """Names with ``fdmux_`` are in the headers; all others begin with ``fdmux__``."""
    exported = defined(tool, "--extern-only", static_core)
    public = {name for name in exported if not name.startswith("fdmux__")}
    headers = (unpacked / "fdmux" / "include").glob("*.h")
    declared = {
        name for header in headers for name in DECLARED.findall(header.read_text())
    }
    assert len(declared) > 20
    assert public == declared
