"""The SDK is found and works however fdmux was installed: three ways, one program."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from tests.examples.conftest import BUILD_TOOLS, Installation, copy_tree, run

pytestmark = [
    pytest.mark.slow,  # fdmux is built again for the second of them
    pytest.mark.skipif(shutil.which("cc") is None, reason="no cc (Debian: gcc)"),
    pytest.mark.skipif(
        shutil.which("pkg-config") is None, reason="no pkg-config (Debian: pkg-config)"
    ),
]

HERE = Path(__file__).parent
PROGRAM = HERE / "use_sdk.py"
FOLDERS = ("include", "cmake", "pkgconfig")


def use_sdk(environment: Installation, folder: Path) -> dict[str, Path]:
    """Run it in an environment; return the paths that it printed."""
    return paths(environment.run("python", "-W", "error", PROGRAM, folder))


def paths(said: str) -> dict[str, Path]:
    return {name: Path(path) for name, path in json.loads(said).items()}


def test_normal_install(installation: Installation, tmp_path: Path) -> None:
    found = use_sdk(installation, tmp_path)
    package = found.pop("package").parent
    assert package.is_relative_to(installation.prefix)
    assert {path.relative_to(package).parts[0] for path in found.values()} == {
        "include",
        "lib",
    }


@pytest.mark.builds
def test_editable_install(installation: Installation, tmp_path: Path) -> None:
    """Python files are in the source tree then, but not what CMake installs."""
    source = copy_tree(tmp_path / "source", installation.source)
    environment = Installation(Path(), tmp_path / "environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment.prefix)
    pip = (
        *("python", "-m", "pip", "--python", environment.prefix / "bin" / "python"),
        *("install", "--quiet", "--no-build-isolation", "--disable-pip-version-check"),
    )
    installation.run(*pip, "cffi", *BUILD_TOOLS)
    installation.run(*pip, "--no-deps", "--editable", source)
    found = use_sdk(environment, tmp_path / "built")
    assert found["package"] == source / "python" / "fdmux" / "__init__.py"
    for name in FOLDERS:
        assert found[name].is_relative_to(environment.prefix)


@pytest.mark.builds
def test_isolated_build(installation: Installation, tmp_path: Path) -> None:
    """A user's pip does this for a package whose build requires fdmux."""
    shutil.copytree(HERE / "isolated", tmp_path / "isolated")
    shutil.copy(PROGRAM, tmp_path / "isolated")
    installation.run(
        *("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-cache-dir"),
        *("--disable-pip-version-check", "--find-links", installation.wheel.parent),
        *("--wheel-dir", tmp_path, tmp_path / "isolated"),
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = paths(archive.read("said.json").decode())
    for path in found.values():
        assert not path.is_relative_to(installation.prefix)
    assert found["include"] == found["package"].parent / "include"
