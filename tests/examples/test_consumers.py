"""One sensor in five languages, each built against the installed wheel, and run.

What a sensor must do is in examples/sensor/scenario.py. Each package is built with the
tools that its pyproject.toml names, from the package index, and nothing of fdmux but
what is in the wheel. What a machine lacks for a package makes its tests skip.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.mark.structures import ParameterSet
    from tests.examples.conftest import Installation

# Five packages are built, and two in isolation: about 30 s on two cores.
pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
LEFT_BY_BUILDS = ("build", "__pycache__", "*.so", "*.egg-info")
OLDEST_RUSTC = (1, 80)


@dataclasses.dataclass(frozen=True)
class Consumer:
    """An example package."""

    folder: str
    module: str
    tools: tuple[str, ...] = ()  # of its pyproject.toml, beyond what is installed
    library: str = ""  # what was compiled; a pattern among the installed files


CONSUMERS = (
    Consumer(
        "nanobind-extension", "sensor_nanobind", ("nanobind>=2.0",), "sensor_nanobind.*"
    ),
    Consumer("cython-extension", "sensor_cython", ("Cython>=3.0",), "sensor_cython.*"),
    Consumer("rust-extension", "sensor_rust", (), "sensor_rust/libsensor.so"),
    Consumer("cffi-extension", "sensor_cffi", (), "sensor_cffi/_native.*"),
    Consumer("ctypes-client", "sensor_ctypes"),
)
COMPILED = tuple(consumer for consumer in CONSUMERS if consumer.library)
# nanobind also compiles its own library, which takes most of a minute.
LONG_BUILDS = {"nanobind-extension"}


def each(*consumers: Consumer) -> list[ParameterSet]:
    """Make them parameters of a test."""
    return [
        pytest.param(
            consumer,
            id=consumer.folder,
            marks=pytest.mark.builds if consumer.folder in LONG_BUILDS else (),
        )
        for consumer in consumers
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, copied, since builds leave files."""
    folder = tmp_path_factory.mktemp("consumers")
    folders = {consumer.folder for consumer in CONSUMERS}
    for name in folders | {"sensor", "native-extension"}:
        shutil.copytree(
            EXAMPLES / name,
            folder / name,
            ignore=shutil.ignore_patterns(*LEFT_BY_BUILDS),
        )
    return folder


class Builds:
    """Builds and installs each package once, on first use."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.installation = installation
        self.folder = folder
        self._built: set[str] = set()

    def build(self, consumer: Consumer) -> None:
        if consumer.folder in self._built:
            return
        skip_without_compiler(consumer)
        if consumer.tools:
            with package_index():
                self.installation.install(*consumer.tools)
        self.installation.install("--no-deps", self.folder / consumer.folder)
        self._built.add(consumer.folder)


def skip_without_compiler(consumer: Consumer) -> None:
    if consumer.folder == "nanobind-extension" and not has_cxx():
        pytest.skip("no C++ compiler (Debian: g++)")
    if consumer.folder == "rust-extension" and rustc_version() < OLDEST_RUSTC:
        pytest.skip("no rustc of 1.80 or later (Debian 13: rustc)")


def has_cxx() -> bool:
    return any(map(shutil.which, ("c++", "g++", "clang++")))


def rustc_version() -> tuple[int, ...]:
    rustc = shutil.which("rustc")
    if rustc is None:
        return ()
    done = subprocess.run(
        [rustc, "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, found.groups())) if found else ()


@contextlib.contextmanager
def package_index() -> Iterator[None]:
    """Run pip inside the block; skip if the index lacks a package other than fdmux."""
    try:
        yield
    except AssertionError as error:
        missing = re.search(r"No matching distribution found for (\S+)", str(error))
        if missing is None or missing[1].startswith("fdmux"):
            raise
        pytest.skip(f"no network: pip cannot find {missing[1]}")


@pytest.fixture(scope="module")
def builds(installation: Installation, folder: Path) -> Builds:
    return Builds(installation, folder)


@pytest.mark.parametrize("consumer", each(*CONSUMERS))
def test_consumer_leads_the_life_of_a_sensor(
    consumer: Consumer, builds: Builds
) -> None:
    builds.build(consumer)
    program = builds.folder / consumer.folder / "run.py"
    printed = builds.installation.run("python", "-W", "error", program)
    lines = printed.splitlines()
    assert all(line.startswith("ok  ") for line in lines), printed
    assert lines[-1].startswith("ok      threads and descriptors before"), printed


@pytest.mark.parametrize("consumer", each(*CONSUMERS))
def test_program_may_end_without_closing_anything(
    consumer: Consumer, builds: Builds, tmp_path: Path
) -> None:
    """The thread, its samples and the watchers are all there when Python ends."""
    builds.build(consumer)
    code = f"""
import os, fdmux, {consumer.module} as module
os.mkfifo({str(tmp_path / "sensor")!r})
loop = fdmux.NativeLoop()
sensor = module.attach({str(tmp_path / "sensor")!r}, loop)
while not sensor.counts()["ticks"]:
    loop.dispatch(0)
print("left alive:", module.live())
"""
    assert builds.installation.python(code) == "left alive: 1"


@pytest.mark.parametrize("consumer", each(*COMPILED))
def test_consumer_links_nothing_of_fdmux(consumer: Consumer, builds: Builds) -> None:
    builds.build(consumer)
    where = "import fdmux, pathlib; print(pathlib.Path(fdmux.__file__).parents[1])"
    installed = Path(builds.installation.python(where))
    (library,) = installed.glob(consumer.library)
    needed = output_of("readelf", "--dynamic", "--wide", str(library))
    assert "NEEDED" in needed
    assert "fdmux" not in needed
    symbols = output_of("nm", "--dynamic", str(library)).split()
    assert [name for name in symbols if name.startswith("fdmux")] == []


def output_of(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.builds
@pytest.mark.parametrize(
    ("name", "library"),
    [("cython-extension", "sensor_cython."), ("native-extension", "udp_digest.")],
    ids=["setuptools and get_include", "CMake and find_package"],
)
def test_package_is_built_in_isolation(
    installation: Installation, folder: Path, tmp_path: Path, name: str, library: str
) -> None:
    """pip builds it in an environment of its own, as a user's pip does."""
    with package_index():
        installation.run(
            *("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-cache-dir"),
            *("--disable-pip-version-check", "--find-links", installation.wheel.parent),
            *("--wheel-dir", tmp_path, folder / name),
        )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    built = [name for name in names if name.endswith(".so")]
    assert len(built) == 1
    assert built[0].startswith(library)
    assert "Requires-Dist: fdmux>=0.3" in text


def test_scenario_finds_memory_that_is_not_freed(builds: Builds) -> None:
    """A sensor whose timer keeps its memory must not pass."""
    ctypes_client = CONSUMERS[-1]
    builds.build(ctypes_client)
    code = f"""
import sys
sys.path.insert(0, {str(builds.folder / "sensor")!r})
import fdmux_table, scenario, sensor_ctypes
sensor_ctypes._on_timer_destroyed = fdmux_table.DestroyedFn(lambda key: None)
try:
    scenario.run(sensor_ctypes)
except SystemExit as error:
    print(error)
"""
    assert "WRONG   its memory is freed" in builds.installation.python(code)


def test_ctypes_transcription_agrees_with_the_header(builds: Builds) -> None:
    """Each member has the offset that cffi reads from the header."""
    builds.build(CONSUMERS[-1])
    code = """
import ctypes, fdmux, fdmux_table
from fdmux._ffi import ffi
structs = {
    "fdmux_io_options": fdmux_table.IoOptions,
    "fdmux_timer_options": fdmux_table.TimerOptions,
    "fdmux_api": fdmux_table.Table,
    "fdmux_loop_handle": fdmux_table.LoopHandle,
}
for name, struct in structs.items():
    for member, _ in struct._fields_:
        place = getattr(struct, member).offset
        assert place == ffi.offsetof("struct " + name, member), (name, member)
    if name != "fdmux_api":  # it may be longer than what the client knows of it
        assert ctypes.sizeof(struct) == ffi.sizeof("struct " + name), name
assert fdmux_table.ABI <= fdmux.ABI_VERSION
print("agrees")
"""
    assert builds.installation.python(code) == "agrees"
