"""asyncio inside of foreign loops: what examples/guest-asyncio shows, built and run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from tests.examples import embedded
from tests.tree import ROOT

import fdmux

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = pytest.mark.slow  # C files are compiled for the first of them

SOURCES = ROOT / "examples" / "guest-asyncio"
RESULT = "result: STREAMS IN A FOREIGN LOOP AND A THREAD\nexception: ValueError\n"


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return embedded.run(
        *command, folder=SOURCES, QT_QPA_PLATFORM="offscreen", **variables
    )


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs, linked with the Python that runs this."""
    if embedded.shared_python() is None:
        pytest.skip("no shared libpython (Debian: python3-dev)")
    try:
        cmake_dir = fdmux.get_cmake_dir()
    except FileNotFoundError:
        pytest.skip("this fdmux was built in place, without what C programs need")
    folder = tmp_path_factory.mktemp("guest")
    options = [
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dfdmux_DIR={cmake_dir}",
    ]
    commands: list[list[str | Path]] = [
        ["cmake", "-S", SOURCES, "-B", folder, *options],
        ["cmake", "--build", folder, "-j2"],
    ]
    for command in commands:
        done = run(*command)
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return folder


@pytest.mark.parametrize("host", ["core", "libuv"])
def test_loop_of_a_c_program_drives_asyncio(host: str, programs: Path) -> None:
    program = programs / f"{host}_guest"
    if not program.exists():
        pytest.skip("no headers of libuv, or no pkg-config (Debian: libuv1-dev)")
    done = run(program, PYTHONHOME=embedded.home())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"the host's timer: served\n{RESULT}{host}: ok\n"


@pytest.mark.parametrize(
    ("host", "module", "package"),
    [
        ("Qt", "PySide6.QtCore", "PySide6-Essentials"),
        ("GLib", "gi.repository.GLib", "PyGObject"),
    ],
)
def test_loop_of_a_desktop_drives_asyncio(host: str, module: str, package: str) -> None:
    if run(sys.executable, "-c", f"import {module}").returncode:
        pytest.skip(f"needs {package}")
    done = run(sys.executable, SOURCES / f"{host.lower()}_guest.py")
    assert (done.returncode, done.stdout) == (0, f"{RESULT}{host}: ok\n"), done.stderr
    assert done.stderr == ""


def test_example_uses_nothing_of_the_hosts() -> None:
    """All hosts run the same asyncio program."""
    source = (SOURCES / "service.py").read_text(encoding="utf-8")
    imported = [line for line in source.splitlines() if "import" in line]
    assert imported == [
        "from __future__ import annotations",
        "import asyncio",
        "import time",
        "import fdmux.hosts.asyncio",
    ]
