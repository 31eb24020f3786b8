"""Python inside of C programs: what examples/embedding shows, built and run.

`host.c` uses the C API of Python (also 20 times in one process), `library_host.c` uses
cffi's embedding mode, without Python.h. They use the installed fdmux.
tests/docs/test_docs.py compares the excerpts in docs/embedding.md with the programs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.examples import embedded
from tests.tree import ROOT

import fdmux
from fdmux._ffi import lib

pytestmark = pytest.mark.slow  # three C files are compiled for the first of them

SOURCES = ROOT / "examples" / "embedding"
CYCLES = 20

# Replaces the service: counts what earlier cycles have left behind.
COUNTING_SERVICE = """
import importlib.util, os, pathlib
from fdmux._ffi import lib
spec = importlib.util.spec_from_file_location("real_service", os.environ["SERVICE"])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
Service = module.Service
count = getattr(lib, "fdmux_testing_allocations", lambda: 0)()
fds = len(os.listdir("/proc/self/fd"))
with pathlib.Path(os.environ["COUNTS"]).open("a") as counts:
    print(fds, count, file=counts)
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs, linked with the Python that runs this."""
    if embedded.shared_python() is None:
        pytest.skip("no shared libpython (Debian: python3-dev)")
    folder = tmp_path_factory.mktemp("embedding")
    make("cmake", "-S", SOURCES, "-B", folder, f"-DPython_EXECUTABLE={sys.executable}")
    make("cmake", "--build", folder, "-j2")
    return folder


def make(*command: str | Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"


def run(
    *command: str | Path, service: Path = SOURCES, **variables: str | Path
) -> subprocess.CompletedProcess[str]:
    return embedded.run(
        *command, folder=service, PYTHONHOME=embedded.home(), **variables
    )


def test_callbacks_run_in_the_loop_of_the_host(programs: Path) -> None:
    done = run(programs / "host")
    assert (done.returncode, done.stdout) == (0, "1 cycles, ok\n"), done.stderr


def test_exception_of_a_callback_arrives_in_c(programs: Path) -> None:
    done = run(programs / "host")
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.endswith("ValueError: the host wanted it\n")


def test_python_starts_and_ends_20_times_and_leaves_nothing(
    programs: Path, tmp_path: Path
) -> None:
    """No descriptor, and no memory of the core's (which a test build counts)."""
    (tmp_path / "service.py").write_text(COUNTING_SERVICE)
    counts = tmp_path / "counts"
    done = run(
        *(programs / "host", str(CYCLES)),
        service=tmp_path,
        SERVICE=SOURCES / "service.py",
        COUNTS=counts,
    )
    assert done.returncode == 0, done.stderr
    found = [tuple(map(int, line.split())) for line in counts.read_text().splitlines()]
    assert len(found) == CYCLES
    assert len({fds for fds, _ in found}) == 1
    assert {allocations for _, allocations in found} == {0}


def test_host_without_python_h_uses_functions_written_in_python(programs: Path) -> None:
    done = run(programs / "library_host")
    assert (done.returncode, done.stdout) == (0, "a library, ok\n"), done.stderr
    assert done.stderr.startswith("dispatch: Traceback")
    assert done.stderr.rstrip().endswith("ValueError: the host wanted it")
    assert "Python.h" not in (SOURCES / "library_host.c").read_text().split("*/")[1]


def test_library_says_so_where_python_cannot_start(programs: Path) -> None:
    """guest_start returns 0, as guest.h says, and C goes on."""
    done = run(programs / "library_host", service=programs)
    assert done.returncode == 1
    assert "No module named 'service'" in done.stderr


def test_closed_guests_leave_no_memory() -> None:
    count = getattr(lib, "fdmux_testing_allocations", None)
    if count is None:
        pytest.skip("needs a build with FDMUX_TESTING=ON")
    before = count()
    for _ in range(100):
        with fdmux.Guest() as guest:
            guest.loop.call_later(0, print)
    del guest
    assert count() == before
