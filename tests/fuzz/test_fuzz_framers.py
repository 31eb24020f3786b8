"""The framers in C on random bytes in random pieces (fuzz_framers.c)."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from tests.compiled import include_dir

INPUTS = 50_000
SOURCE = Path(__file__).with_name("fuzz_framers.c")
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


@pytest.mark.slow
def test_framers_do_not_depend_on_how_bytes_arrive(tmp_path: Path) -> None:
    python_h = sysconfig.get_path("include")
    if shutil.which("gcc") is None or not (Path(python_h) / "Python.h").exists():
        pytest.skip("needs gcc with its sanitizers, and Python.h (Debian: python3-dev)")
    program = tmp_path / "fuzz_framers"
    command = [
        "gcc",
        "-g",
        "-O1",
        "-std=gnu11",
        *SANITIZERS,
        f"-DRANDOM_INPUTS={INPUTS}",
    ]
    command += ["-DPy_LIMITED_API=0x030B0000", f"-I{include_dir()}", f"-I{python_h}"]
    # The functions that call Python are never called.
    command += ["-no-pie", "-Wl,--unresolved-symbols=ignore-all"]
    subprocess.run([*command, str(SOURCE), "-o", str(program)], check=True)
    done = subprocess.run(
        [str(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
