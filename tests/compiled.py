"""C code of tests, compiled against the public headers alone.

Its one rule: nothing of fdmux is linked; the code gets the table of functions and the
loop as plain pointers, as an extension does through the capsules.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import ClassVar, Protocol

import pytest
from tests.tree import HEADERS, ROOT

import fdmux


class HasLoop(Protocol):
    def __fdmux_loop__(self) -> object: ...


class LoopRef(ctypes.Structure):
    """struct fdmux_loop_handle of fdmux_api.h: what a ``fdmux.loop`` capsule has."""

    _fields_: ClassVar = [("api", ctypes.c_void_p), ("loop", ctypes.c_void_p)]
    api: int
    loop: int


def include_dir() -> str:
    """Return the folder of fdmux.h: of the installed package, or of the source tree."""
    try:
        return fdmux.get_include()
    except FileNotFoundError:
        return str(HEADERS)


def compile_shared(target: Path, *sources: Path, flags: tuple[str, ...] = ()) -> Path:
    """Compile ``sources`` to the shared object ``target``."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler as cc (Debian: gcc)")
    command = ["cc", "-O2", "-std=gnu11", "-pthread", "-shared", "-fPIC"]
    command += ["-Wall", "-Wextra", "-Werror", f"-I{include_dir()}", *flags]
    subprocess.run([*command, *map(str, sources), "-o", str(target)], check=True)
    return target


def load_beside(test: str, source: str, folder: Path) -> ctypes.CDLL:
    """Compile the C file ``source`` beside the file ``test``, and load it."""
    path = Path(test).with_name(source)
    return ctypes.CDLL(str(compile_shared(folder / f"{path.stem}.so", path)))


def compile_native_echo(folder: Path) -> Path:
    """Build the module of examples/native-echo into ``folder``; return that."""
    source = ROOT / "examples" / "native-echo" / "src"
    if not source.exists():
        pytest.skip("the native echo service is not in this tree")
    python_h = sysconfig.get_path("include")
    if not (Path(python_h) / "Python.h").exists():
        pytest.skip("needs Python.h (Debian: python3-dev)")
    compile_shared(
        folder / "native_echo.abi3.so",
        *(source / "module.c", source / "echo.c"),
        flags=("-DPy_LIMITED_API=0x030B0000", f"-I{python_h}"),
    )
    return folder


def compile_extension(source: Path, folder: Path) -> Path:
    """Compile a C file that includes fdmux_python.h, as an abi3 module."""
    python_h = sysconfig.get_path("include")
    if not (Path(python_h) / "Python.h").exists():
        pytest.skip("needs Python.h (Debian: python3-dev)")
    flags = ("-DPy_LIMITED_API=0x030B0000", f"-I{python_h}")
    return compile_shared(folder / f"{source.stem}.abi3.so", source, flags=flags)


def capsule_pointer(capsule: object, name: bytes) -> int:
    """Open a capsule as C code does; ValueError if it has another name."""
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return int(get_pointer(capsule, name))


class NativeLoad:
    """The functions of one C file, called with the table and the loop of ``owner``."""

    def __init__(self, library: ctypes.CDLL, owner: HasLoop) -> None:
        self._library = library
        self.capsule = owner.__fdmux_loop__()  # keeps what it points at
        ref = LoopRef.from_address(capsule_pointer(self.capsule, b"fdmux.loop"))
        self.loop_address, self.table_address = ref.loop, ref.api

    def call(self, name: str, *arguments: object) -> int:
        """Call ``name(api, loop, ...)``, which returns an int64_t."""
        function = self._library[name]
        function.restype = ctypes.c_int64
        api = ctypes.c_void_p(self.table_address)
        loop = ctypes.c_void_p(self.loop_address)
        return int(function(api, loop, *arguments))
