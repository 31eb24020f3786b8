"""The source archive: what a build needs, no litter, and the same wheel from it."""

from __future__ import annotations

import hashlib
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.examples.conftest import build, build_wheel
from tests.packaging.conftest import LITTER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.examples.conftest import Installation

pytestmark = pytest.mark.slow  # fdmux is built from it

TOP_LEVEL = {
    ".gitignore",
    "CHANGELOG.md",
    "CITATION.cff",
    "CMakeLists.txt",
    "CONTRIBUTING.md",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "SECURITY.md",
    "benchmarks",
    "cmake",
    "csrc",
    "docs",
    "examples",
    "pyproject.toml",
    "python",
    "tests",
    "tools",
}


@pytest.fixture
def source(sdist: Path, tmp_path: Path) -> Path:
    """The unpacked archive, new for each test, since builds leave files."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    return tmp_path / "source" / sdist.name.removesuffix(".tar.gz")


def test_sdist_has_every_part_and_no_litter(source: Path) -> None:
    assert {path.name for path in source.iterdir()} == TOP_LEVEL
    assert not [name for name in LITTER if (source / name).exists()]
    built = {".so", ".o", ".a", ".pyc", ".whl", ".gz"}
    assert not [path for path in source.rglob("*") if path.suffix in built]


@pytest.mark.builds
def test_wheel_from_the_sdist_is_the_same_to_the_byte(
    source: Path, installation: Installation, tmp_path: Path
) -> None:
    """Built in another folder, at another time, from the archive alone."""
    wheel = build_wheel(source, tmp_path)
    assert wheel.name == installation.wheel.name
    assert digest(wheel) == digest(installation.wheel)


@pytest.mark.builds
def test_sdist_from_the_sdist_is_the_same_to_the_byte(
    source: Path, sdist: Path, tmp_path: Path
) -> None:
    build("--sdist", source, tmp_path)
    assert digest(tmp_path / sdist.name) == digest(sdist)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
