"""The wheel: what is in it, and that it works where nothing else is installed."""

from __future__ import annotations

import json
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.tree import HEADERS

if TYPE_CHECKING:
    from tests.examples.conftest import Installation

pytestmark = pytest.mark.slow  # the wheel is built for the first of them

EXPECTED = {
    "fdmux/__init__.py",
    "fdmux/__main__.py",
    "fdmux/_delivery.pyi",
    "fdmux/_ffi.pyi",
    "fdmux/commands/demo.py",
    "fdmux/commands/tour/__init__.py",
    "fdmux/include/fdmux.h",
    "fdmux/include/fdmux_frame.h",
    "fdmux/include/fdmux_python.h",
    "fdmux/include/fdmux_stream.h",
    "fdmux/include/fdmux_tls.h",
    "fdmux/include/fdmux_datagram.h",
    *(
        f"fdmux/include/fdmux/adapters/{path.name}"
        for path in (HEADERS / "adapters").glob("*.h")
    ),
    "fdmux/lib/cmake/fdmux/fdmuxConfig.cmake",
    "fdmux/lib/cmake/fdmux/fdmuxConfigVersion.cmake",
    "fdmux/lib/libfdmux.a",
    "fdmux/lib/pkgconfig/fdmux.pc",
    "fdmux/py.typed",
}
IS_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def names(installation: Installation) -> set[str]:
    with zipfile.ZipFile(installation.wheel) as wheel:
        return set(wheel.namelist())


def read(installation: Installation, name: str) -> bytes:
    """Read a file of the wheel's .dist-info."""
    with zipfile.ZipFile(installation.wheel) as wheel:
        (path,) = (
            path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")
        )
        return wheel.read(path)


def test_wheel_has_every_part(installation: Installation) -> None:
    assert names(installation) >= EXPECTED


def test_wheel_has_the_extension(installation: Installation) -> None:
    extensions = [name for name in names(installation) if name.endswith(".so")]
    if IS_FREE_THREADED:
        assert len(extensions) == 2
    else:
        assert sorted(extensions) == ["fdmux/_delivery.abi3.so", "fdmux/_ffi.abi3.so"]
        assert "-cp311-abi3-" in installation.wheel.name


def test_wheel_has_nothing_else(installation: Installation) -> None:
    """No tests and no sources: the top level has the package and its metadata alone."""
    found = names(installation)
    tops = {name.partition("/")[0] for name in found}
    info = {top for top in tops if top.endswith(".dist-info")}
    assert len(info) == 1
    assert tops == {"fdmux"} | info
    assert not [name for name in found if name.endswith((".c", ".pyc", ".o"))]


def test_metadata(installation: Installation) -> None:
    metadata = message_from_bytes(read(installation, "METADATA"))
    required = [
        text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text
    ]
    assert len(required) == 1
    assert required[0].startswith("cffi")
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Version"] == installation.run("fdmux", "--version").split()[1]
    assert b"MIT License" in read(installation, "licenses/LICENSE")
    entry_points = read(installation, "entry_points.txt").decode()
    assert "[console_scripts]\nfdmux = fdmux.__main__:main" in entry_points


def test_release_build_has_no_fault_injection(installation: Installation) -> None:
    code = "from fdmux._ffi import lib; print(hasattr(lib, 'fdmux_testing_fail'))"
    assert installation.python(code) == "False"


def test_demo_passes(installation: Installation) -> None:
    as_module = installation.run("python", "-m", "fdmux", "demo").splitlines()
    assert "steps, all ok, " in as_module[-1]


def test_console_script_knows_where_its_parts_lie(installation: Installation) -> None:
    include = Path(installation.run("fdmux", "--include-dir").strip())
    assert include.is_relative_to(installation.prefix)
    assert (include / "fdmux_python.h").is_file()
    assert installation.run("fdmux", "--cflags") == f"-I{include}\n"
    cmake = Path(installation.run("fdmux", "--cmake-dir").strip())
    assert (cmake / "fdmuxConfig.cmake").is_file()
    pkgconfig = Path(installation.run("fdmux", "--pkgconfig-dir").strip())
    assert (pkgconfig / "fdmux.pc").is_file()
    facts = json.loads(installation.run("fdmux", "info", "--json"))
    assert facts["include_dir"] == str(include)
    assert facts["python"].endswith(sys.version.split()[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="epoll is Linux's")
def test_backends_of_linux_are_both_there(installation: Installation) -> None:
    facts = json.loads(installation.run("fdmux", "info", "--json"))
    assert list(facts["features"]) == ["epoll", "poll"]
