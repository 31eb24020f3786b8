"""Headers and the import library of CPython for Windows, made on another system.

The modules use the limited API, whose headers are the same everywhere but for
``pyconfig.h``, and whose symbols abi3info lists (a part of the extra ``wheels``). So a
wheel for Windows is built without a CPython for Windows. It knows nothing of wheels.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sysconfig
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OLDEST = (3, 11)  # the limited API that we ask for
MACHINES = {"AMD64": "i386:x86-64", "ARM64": "arm64"}  # as dlltool calls them
# What the headers of the limited API ask for. Windows has 32 bits in a long, and 16 in
# a wchar_t; symbols come out of a DLL.
PYCONFIG = """\
#ifndef Py_CONFIG_H
#define Py_CONFIG_H
#include <io.h>
#define MS_WIN32
#define MS_WIN64
#define MS_WINDOWS
#define NT_THREADS
#define HAVE_DECLSPEC_DLL
#define Py_ENABLE_SHARED 1
#define PLATFORM "win32"
#define SIZEOF_VOID_P 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_LONG_LONG 8
#define SIZEOF_LONG 4
#define SIZEOF_INT 4
#define SIZEOF_SHORT 2
#define SIZEOF_WCHAR_T 2
#define SIZEOF_DOUBLE 8
#define SIZEOF_FLOAT 4
#define HAVE_LONG_LONG 1
#define HAVE_STDDEF_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_WCHAR_H 1
#endif
"""


class Version(Protocol):
    """A version of Python, as abi3info has it."""

    major: int
    minor: int


class Named(Protocol):
    """A symbol, as abi3info has it."""

    name: str


class Entry(Protocol):
    """What abi3info knows of a symbol."""

    added: Version


def write_root(folder: Path, processor: str, zig: Path) -> Path:
    """Write ``include`` and ``libs``, as ``FDMUX_PYTHON_ROOT`` has to be; return it."""
    root = folder / "windows-python"
    shutil.copytree(sysconfig.get_path("include"), root / "include", dirs_exist_ok=True)
    (root / "include" / "pyconfig.h").write_text(PYCONFIG)
    (root / "libs").mkdir(exist_ok=True)
    definitions = root / "libs" / "python3.def"
    definitions.write_text(
        "\n".join(["LIBRARY python3.dll", "EXPORTS", *exports(), ""])
    )
    command = [zig, "dlltool", "-m", MACHINES[processor], "-d", definitions]
    subprocess.run(
        [*map(str, command), "-l", str(root / "libs" / "python3.lib")], check=True
    )
    return root


def exports() -> list[str]:
    """Return the symbols of the limited API, as a definition file has them."""
    abi3info = importlib.import_module("abi3info")
    functions: Mapping[Named, Entry] = abi3info.FUNCTIONS
    data: Mapping[Named, Entry] = abi3info.DATAS
    return [
        *(f"    {name}" for name in old_enough(functions)),
        *(f"    {name} DATA" for name in old_enough(data)),
    ]


def old_enough(entries: Mapping[Named, Entry]) -> list[str]:
    """Return the names of those that the oldest Python has."""
    return sorted(
        symbol.name
        for symbol, entry in entries.items()
        if (entry.added.major, entry.added.minor) <= OLDEST
    )
