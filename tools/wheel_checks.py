"""Check a wheel for any system on any machine: its tag, its modules, what they need.

The tools that repair wheels read the files of their own system alone, so this reads
ELF, Mach-O and PE itself (`tools/binaries.py`), and calls the auditors that know them
all: abi3audit, check-wheel-contents and twine. A check that fails raises `CheckError`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from tools.binaries import Binary, BinaryFormatError, read_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.targets import Target

MODULES = {"_ffi", "_delivery"}
SUFFIXES = {".so", ".pyd", ".dll", ".dylib"}
PYTHON_TAG = "cp311-abi3"
# What every system of the tag has. zig names libraries of glibc that the functions came
# from before glibc 2.34 put them into libc.so.6.
LIBRARIES = {
    "manylinux": {
        *("libc.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libm.so.6"),
        *("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"),
    },
    "musllinux": {"libc.so"},
    "macosx": {"/usr/lib/libSystem.B.dylib"},
    # python3.dll comes with every CPython, and the others with Windows 10.
    "win": {
        *("python3.dll", "KERNEL32.dll", "WS2_32.dll"),
        *(
            f"api-ms-win-crt-{part}-l1-1-0.dll"
            for part in ("heap", "private", "runtime", "stdio", "string")
        ),
    },
}
GLIBC = re.compile(r"GLIBC_(\d+)\.(\d+)(?:\.\d+)?$")
PYTHON_NAME = re.compile(r"_?Py")
AUDITORS = (
    ("abi3audit", "--strict"),
    ("check-wheel-contents",),
    ("twine", "check", "--strict"),
)


class CheckError(Exception):
    """What is wrong with a wheel."""


def check(wheel: Path, target: Target) -> Iterator[str]:
    """Check one wheel; yield a line for each thing that was found to be right."""
    expect(wheel.name.endswith(f"-{PYTHON_TAG}-{target.wheel}.whl"), wheel.name)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
        yield check_contents(Path(folder), target)
        for name in sorted(module_names(target)):
            path = Path(folder, "fdmux", name)
            yield f"{path.name}: {check_module(path, target)}"
    yield check_with_auditors(wheel)


def expect(is_right: bool, what: str) -> None:
    """Raise unless it is right."""
    if not is_right:
        raise CheckError(what)


def module_names(target: Target) -> set[str]:
    """Return the names of the files that the modules are in."""
    suffix = ".pyd" if target.system == "Windows" else ".abi3.so"
    return {name + suffix for name in MODULES}


def check_contents(folder: Path, target: Target) -> str:
    """Check that the modules, the tag and the list of parts are inside."""
    (info,) = folder.glob("*.dist-info")
    tag = f"Tag: {PYTHON_TAG}-{target.wheel}"
    expect(tag in (info / "WHEEL").read_text().splitlines(), f"WHEEL lacks {tag}")
    found = {path.name for path in folder.rglob("*") if path.suffix in SUFFIXES}
    expect(found == module_names(target), f"modules {found}")
    expect((info / "sboms" / "fdmux.cdx.json").is_file(), "no sboms/fdmux.cdx.json")
    return f"tag, modules, SBOM: {PYTHON_TAG}-{target.wheel}"


def check_module(path: Path, target: Target) -> str:
    """Check the processor, the libraries and the symbols of one extension module."""
    try:
        binary = read_binary(path.read_bytes())
    except BinaryFormatError as error:
        raise CheckError(f"{path.name}: {error}") from None
    family = target.wheel.partition("_")[0]
    expect(binary.processor == target.processor, f"built for {binary.processor}")
    foreign = set(binary.libraries) - LIBRARIES[family]
    expect(not foreign, f"{path.name} needs {sorted(foreign)}")
    strange = [name for name in binary.unbound if not PYTHON_NAME.match(name)]
    expect(not strange, f"{path.name}: no library has {strange}")
    return f"{', '.join(sorted(binary.libraries))}; {check_release(binary, target)}"


def check_release(binary: Binary, target: Target) -> str:
    """Check that the oldest release of the system that the tag promises will do."""
    if target.system == "Windows":
        return "the universal C runtime"
    family, major, minor = target.wheel.split("_")[:3]
    promised = (int(major), int(minor))
    if family == "macosx":
        expect(binary.release <= promised, f"needs macOS {binary.release}")
        return f"macOS {binary.release[0]}.{binary.release[1]}"
    needed = [
        (int(found[1]), int(found[2]))
        for found in map(GLIBC.match, binary.versions)
        if found
    ]
    if family == "musllinux":
        expect(not binary.versions, f"needs {sorted(binary.versions)}")
        return "no versioned symbols"
    expect(bool(needed), "no symbol of glibc is needed")
    newest = max(needed)
    expect(newest <= promised, f"needs glibc {newest}")
    return f"glibc {newest[0]}.{newest[1]}"


def check_with_auditors(wheel: Path) -> str:
    """Run the tools that know wheels of every system."""
    path = os.pathsep.join(
        [sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]
    )
    for name, *arguments in AUDITORS:
        tool = shutil.which(name, path=path)
        if tool is None:
            raise CheckError(f"no {name}; pip install '.[wheels]'")
        done = subprocess.run(
            [tool, *arguments, str(wheel)],
            env={**os.environ, "PATH": path, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        expect(done.returncode == 0, f"{name}: {done.stdout}{done.stderr}")
    return f"passed: {', '.join(name for name, *_ in AUDITORS)}"
