"""The native examples, built against the installed wheel by header only, and run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.examples.conftest import check_links

if TYPE_CHECKING:
    from pathlib import Path

    from tests.examples.conftest import Installation

pytestmark = pytest.mark.slow  # two extensions are compiled for the first of them

MODULES = {"native-extension": "udp_digest", "minimal-extension": "counter"}


@pytest.mark.parametrize("name", MODULES)
def test_example_runs(name: str, installation: Installation, example: Path) -> None:
    printed = installation.run("python", "-W", "error", example / name / "run.py")
    assert printed
    assert "WRONG" not in printed


@pytest.mark.parametrize("module", MODULES.values())
def test_example_links_nothing_of_fdmux(
    module: str, installation: Installation, example: Path
) -> None:
    assert example.is_dir()
    check_links(installation, module)


def test_extension_names_what_it_cannot_use(
    installation: Installation, example: Path
) -> None:
    """A table of another ABI is refused when the extension is imported."""
    assert example.is_dir()
    code = """
import ctypes, fdmux
api = ctypes.create_string_buffer(4096)  # abi_major, abi_minor, struct_size
ctypes.cast(api, ctypes.POINTER(ctypes.c_uint32))[0] = 99
name = ctypes.c_char_p(b"fdmux._C_API")
new = ctypes.pythonapi.PyCapsule_New
new.restype = ctypes.py_object
new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
fdmux._C_API = new(ctypes.addressof(api), name, None)
try:
    import udp_digest
except ImportError as error:
    print(error)
"""
    assert "the installed fdmux has 99.0: upgrade fdmux" in installation.python(code)
