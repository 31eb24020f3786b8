"""The releases whose headers are kept here, and a consumer compiled against each.

A folder with a fdmux.h is a release; the headers of the tree are called ``current``.
See README.md for what to do when a release is made.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import pytest
from tests.tree import HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
CURRENT = HEADERS
FROZEN = sorted(path.parent for path in HERE.glob("*/fdmux.h"))
RELEASES = [*FROZEN, CURRENT]
C_FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
# Zero the rest of a structure by naming its first member alone.
C_FLAGS += ["-Wno-missing-field-initializers"]


class Consumer(Protocol):
    """The module compiled from consumer.c."""

    def start(self, owner: object, /) -> None: ...
    def counts(self) -> tuple[int, int, int, int, int, int]: ...
    def finish(self) -> bytes: ...
    def import_core(self) -> tuple[int, int]: ...
    def adopt(self, owner: object, /) -> None: ...
    def has_table(self) -> bool: ...


def release_name(headers: Path) -> str:
    return "current" if headers == CURRENT else headers.name


def compile_c(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the C compiler; skip where there is none."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler (Debian: gcc)")
    command = ["cc", *C_FLAGS, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def build_consumer(headers: Path, folder: Path) -> Path:
    python = sysconfig.get_path("include")
    if not (Path(python) / "Python.h").exists():
        pytest.skip("needs Python.h (Debian: python3-dev)")
    built = folder / "consumer.so"
    done = compile_c(
        *("-shared", "-fPIC", "-pthread", f"-I{headers}", f"-isystem{python}"),
        *("-DPy_LIMITED_API=0x030B0000", HERE / "consumer.c", "-o", built),
    )
    assert done.returncode == 0, done.stderr
    return built


def load(library: Path) -> Consumer:
    """Import one module; all of them are named ``consumer``."""
    loader = importlib.machinery.ExtensionFileLoader("consumer", str(library))
    spec = importlib.util.spec_from_loader("consumer", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return cast("Consumer", module)


@pytest.fixture(params=FROZEN, ids=release_name)
def frozen(request: pytest.FixtureRequest) -> Path:
    """The headers of a release."""
    return cast("Path", request.param)


@pytest.fixture(scope="session", params=RELEASES, ids=release_name)
def consumer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Consumer:
    headers = cast("Path", request.param)
    name = f"consumer-{release_name(headers)}"
    return load(build_consumer(headers, tmp_path_factory.mktemp(name)))


@pytest.fixture
def make_capsule() -> Callable[[int, bytes], object]:
    """Make a capsule around an address, as C code does; the name must stay."""
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

    def make(address: int, name: bytes) -> object:
        return cast("object", new(address, name, None))

    return make
