"""The public header compiles alone, without a warning, as C99 and as C++17."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.tree import HEADERS

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
#include <fdmux_api.h>
int use(struct fdmux_loop *loop);
int use(struct fdmux_loop *loop)
{
    struct fdmux_io_options options = {sizeof options, 0, FDMUX_READ, 0, 0, 0, 0, 0};
    uint64_t io;
    return fdmux_get_api()->io_add(loop, &options, &io);
}
"""
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]


@pytest.mark.parametrize(
    ("compiler", "suffix", "standard"),
    [
        pytest.param("cc", ".c", "c99", id="c99"),
        pytest.param("c++", ".cpp", "c++17", id="c++17"),
    ],
)
def test_header_compiles_alone(
    compiler: str, suffix: str, standard: str, tmp_path: Path
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} on this machine")
    source = tmp_path / f"use{suffix}"
    source.write_text(SOURCE)
    done = subprocess.run(
        [compiler, f"-std={standard}", *WARNINGS, f"-I{HEADERS}", str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_header_includes_nothing_but_stddef_and_stdint() -> None:
    text = (HEADERS / "fdmux.h").read_text()
    included = {line for line in text.splitlines() if line.startswith("#include")}
    assert included == {"#include <stddef.h>", "#include <stdint.h>"}
