"""What users get: the wheel of tests/examples, unpacked, and a source archive.

The wheel is built once for both folders of tests (``installation``).
"""

from __future__ import annotations

import json
import shlex
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.examples.conftest import build, copy_tree, installation, tool
from tests.tree import ROOT

if TYPE_CHECKING:
    from tests.examples.conftest import Installation

__all__ = ["installation", "tool"]  # fixtures

EXTENSIONS = ("_delivery", "_ffi")
# Files of a developer's tree that belong in no package.
LITTER = (
    ".hypothesis/examples/0",
    ".pytest_cache/README.md",
    ".venv/bin/python",
    "benchmarks/results/echo.json",
    "build/ctests/CMakeCache.txt",
    "compile_commands.json",
    "dist/fdmux-0.0.1.tar.gz",
    "python/fdmux/__pycache__/loop.cpython-311.pyc",
    "python/fdmux/_delivery.abi3.so",
    "python/fdmux/_ffi.abi3.so",
    "tests/core/check.o",
)


@pytest.fixture(scope="session")
def sdist(
    installation: Installation,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A source archive of the wheel's tree, made while such files were there."""
    folder = tmp_path_factory.mktemp("sdist")
    source = copy_tree(folder / "worked-in", installation.source)
    shutil.copy(ROOT / ".gitignore", source)
    for name in LITTER:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("litter")
    build("--sdist", source, folder / "dist")
    (archive,) = (folder / "dist").iterdir()
    return archive


@pytest.fixture(scope="session")
def unpacked(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The files of the wheel."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(installation.wheel) as wheel:
        wheel.extractall(folder)
    return folder


@pytest.fixture(scope="session", params=EXTENSIONS)
def extension(request: pytest.FixtureRequest, unpacked: Path) -> Path:
    """Each module that is not Python."""
    (extension,) = unpacked.glob(f"fdmux/{request.param}.*.so")
    return extension


@pytest.fixture(scope="session")
def static_core(unpacked: Path) -> Path:
    return unpacked / "fdmux" / "lib" / "libfdmux.a"


@pytest.fixture(scope="session")
def commands(installation: Installation) -> dict[str, list[str]]:
    """How the wheel's files were compiled, by their names."""
    (file,) = installation.source.glob("build/*/compile_commands.json")
    return {
        Path(each["file"]).name: shlex.split(each["command"])
        for each in json.loads(file.read_text())
    }


def compiler(command: list[str]) -> list[str]:
    """The compiler of a command and its flags, without the files."""
    return command[: command.index("-o")]
