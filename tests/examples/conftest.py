"""What a user has: a wheel of fdmux, installed in an environment with nothing else.

The wheel is built once for all tests here, from a copy of the tree that has only the
sources. These processes do not see the package that the other tests use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import pytest
from tests.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

NOT_COPIED = (".*", "build", "dist", "__pycache__", "*.so", "*.egg-info")
SOON = 30.0  # no program of the tests runs longer
# What the examples' pyproject.toml files ask for, besides fdmux.
BUILD_TOOLS = ("setuptools>=70.1", "scikit-build-core>=1.1")
LONG = 300.0


class Tool(Protocol):
    """What `run` is."""

    def __call__(self, *command: str | Path) -> str:
        """Run a program; return what it printed."""


@dataclasses.dataclass(frozen=True)
class Installation:
    """An environment with fdmux installed from ``wheel``."""

    wheel: Path
    prefix: Path

    @property
    def source(self) -> Path:
        """The tree from which the wheel was built."""
        return self.wheel.parents[1] / "source"

    def run(self, *command: str | Path) -> str:
        """Run one of the environment's programs; return what it printed."""
        program, *arguments = command
        return run(self.prefix / "bin" / program, *arguments)

    def install(self, *requirements: str | Path) -> None:
        """Install with pip, with the build tools of this environment."""
        self.run(
            *("python", "-m", "pip", "install", "--quiet", "--no-build-isolation"),
            *("--disable-pip-version-check", *requirements),
        )

    def install_copy(self, source: Path, folder: Path) -> Path:
        """Install an example from a copy in ``folder``, since builds leave files."""
        copy = folder / source.name
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
        self.install("--no-deps", copy)
        return copy

    def python(self, code: str) -> str:
        """Run some code in it; return what it printed."""
        return self.run("python", "-c", code).strip()

    def run_silently(self, *arguments: str | Path) -> str:
        """Run Python; it must succeed and print nothing on standard error."""
        done = subprocess.run(
            [
                *(self.prefix / "bin" / "python", "-I", "-W", "error"),
                *("-X", "faulthandler", *arguments),
            ],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=SOON,
            check=False,
        )
        assert done.stderr == ""
        assert done.returncode == 0, done.stdout
        return done.stdout


def run(*command: str | Path) -> str:
    """Run any program; if it fails, fail with its whole output."""
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH"
    }
    # Where a pip-installed cmake and ninja of the test environment lie.
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        list(map(str, command)),
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def tool() -> Tool:
    """Run any program, such as a compiler; see `run`."""
    return run


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """One environment for all tests; tests/packaging uses it as well."""
    folder = tmp_path_factory.getbasetemp() / "installation"
    environment = folder / "environment"
    ready = folder / "ready"  # written last; holds the path of the wheel
    if not ready.exists():
        shutil.rmtree(folder, ignore_errors=True)
        wheel = build_wheel(copy_tree(folder / "source"), folder / "dist")
        run(sys.executable, "-m", "venv", environment)
        Installation(wheel, environment).install(wheel, *BUILD_TOOLS)
        ready.write_text(str(wheel))
    return Installation(Path(ready.read_text()), environment)


def copy_tree(folder: Path, root: Path = ROOT) -> Path:
    """Copy the sources, without what a developer's tree has besides."""
    return Path(
        shutil.copytree(root, folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
    )


def build_wheel(source: Path, folder: Path) -> Path:
    build("--wheel", source, folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def build(kind: str, source: Path, folder: Path) -> None:
    # Without isolation where the tools are at hand: it saves their download.
    has_tools = all(map(importlib.util.find_spec, ("scikit_build_core", "cffi")))
    isolation = ["--no-isolation"] if has_tools else []
    command = [sys.executable, "-m", "build", kind, *isolation]
    run(*command, "--outdir", folder, source)


@pytest.fixture(scope="session")
def example(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The examples, copied, since builds leave files, and installed."""
    folder = tmp_path_factory.mktemp("examples") / "examples"
    shutil.copytree(
        ROOT / "examples", folder, ignore=shutil.ignore_patterns(*NOT_COPIED)
    )
    installation.install(
        "--no-deps", folder / "native-extension", folder / "minimal-extension"
    )
    return folder


@contextlib.contextmanager
def running_server(
    name: str,
    *arguments: str,
    modules: Path | None = None,
    program: str = "server.py",
    said: list[str] | None = None,
) -> Iterator[tuple[str, int]]:
    """Run ``examples/NAME/server.py``, or another program; ends it by SIGTERM.

    It runs on the fdmux under test, and finds what is built in ``modules`` as well.

    What it says at its end goes to ``said``.
    What it said on standard error, such as the traceback of a callback, fails the test.
    """
    path = [str(modules)] if modules else []
    path += filter(None, [os.environ.get("PYTHONPATH")])
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(path)}
    with subprocess.Popen(
        [sys.executable, "-W", "error", program, *arguments],
        cwd=ROOT / "examples" / name,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            host, _, port = server.stdout.readline().split()[-1].rpartition(":")
            yield host, int(port)
            server.terminate()
            output, errors = server.communicate(timeout=10)
        finally:
            server.kill()
    if said is not None:
        said.append(output)
    assert errors == ""
    assert server.returncode == 0


def example_module(name: str, module: str) -> ModuleType:
    """Import a module of an example, which has no package."""
    folder = str(ROOT / "examples" / name)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(folder)


def real_client(program: str, package: str) -> str:
    """Find a program that is not ours, or skip."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program} (Debian: {package})")
    return found


@pytest.fixture(scope="session")
def resp_framer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the module resp_framer, built by the headers alone."""
    python = sysconfig.get_path("include")
    if shutil.which("cc") is None or not (Path(python) / "Python.h").exists():
        pytest.skip("needs a C compiler and Python.h (Debian: gcc, python3-dev)")
    folder = tmp_path_factory.mktemp("resp_framer")
    run(
        *("cc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"),
        *("-shared", "-fPIC", "-DPy_LIMITED_API=0x030B0000", f"-isystem{python}"),
        *(f"-I{ROOT / 'csrc' / 'include'}", "-o", folder / "resp_framer.abi3.so"),
        ROOT / "examples" / "resp" / "resp_framer.c",
    )
    return folder


@pytest.fixture(scope="module", params=["python", "native"])
def resp_server(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    parser = str(request.param)
    modules = None
    if parser == "native":
        modules = cast("Path", request.getfixturevalue("resp_framer"))
    with running_server("resp", "--parser", parser, modules=modules) as address:
        yield address


@pytest.fixture(scope="module")
def http_server() -> Iterator[tuple[str, int]]:
    pytest.importorskip("h11")
    with running_server("http-hello") as address:
        yield address


@pytest.fixture(scope="session")
def resp() -> ModuleType:
    return example_module("resp", "resp")


@pytest.fixture(scope="session")
def session() -> ModuleType:
    return example_module("resp", "session")


@pytest.fixture(scope="session")
def store() -> ModuleType:
    return example_module("resp", "store")


@pytest.fixture(scope="session")
def resp_handler(request: pytest.FixtureRequest) -> ModuleType:
    """The handler of examples/resp, with its framer in C if that can be built."""
    with contextlib.ExitStack() as stack:
        if shutil.which("cc") is not None:
            folder = str(request.getfixturevalue("resp_framer"))
            sys.path.insert(0, folder)
            stack.callback(sys.path.remove, folder)
        return example_module("resp", "server")


@pytest.fixture(scope="session")
def hello() -> ModuleType:
    pytest.importorskip("h11")
    return example_module("http-hello", "hello")


@pytest.fixture(scope="session")
def redis_cli() -> str:
    return real_client("redis-cli", "redis-tools")


@pytest.fixture(scope="session")
def redis_benchmark() -> str:
    return real_client("redis-benchmark", "redis-tools")


@pytest.fixture(scope="session")
def wrk() -> str:
    return real_client("wrk", "wrk")


@pytest.fixture(scope="session")
def curl() -> str:
    return real_client("curl", "curl")


def check_links(installation: Installation, module: str) -> None:
    """Check that an installed extension links nothing of fdmux, and is abi3."""
    library = installation.python(f"import {module}; print({module}.__file__)")
    needed = output("readelf", "--dynamic", "--wide", library)
    assert "NEEDED" in needed
    assert "fdmux" not in needed
    symbols = output("nm", "--dynamic", library)
    assert f"PyInit_{module}" in symbols
    assert "fdmux" not in symbols
    assert ".abi3." in library


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout
