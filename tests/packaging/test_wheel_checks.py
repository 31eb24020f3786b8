"""The checks of cross-built wheels find what they are for, without a cross compiler."""

from __future__ import annotations

import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
from tools import wheel_checks, windows_python
from tools.binaries import BinaryFormatError, read_binary
from tools.targets import ALL, BY_NAME, Target

if TYPE_CHECKING:
    from pathlib import Path

    from tests.examples.conftest import Installation

HERE = "x86_64-linux-gnu"


def shared_object(folder: Path, code: str, *flags: str) -> Path:
    """Compile ``code`` for this machine."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler as cc (Debian: gcc)")
    source, built = folder / "code.c", folder / "code.so"
    source.write_text(code)
    command = [compiler, "-shared", "-fPIC", str(source), "-o", str(built), *flags]
    subprocess.run(command, check=True)
    return built


def macho(*, minor: int = 0, name: str = "_PyLong_FromLong") -> bytes:
    """Build the parts of an arm64 dylib that are read (<mach-o/loader.h>)."""
    library = b"/usr/lib/libSystem.B.dylib\0\0"  # padded to eight bytes
    strings = b"\0" + name.encode() + b"\0"
    symbol = struct.pack("<IBBHQ", 1, 0x01, 0, 0xFE00, 0)  # N_EXT, dynamic lookup
    load = struct.pack("<IIIIII", 0xC, 24 + len(library), 24, 0, 0, 0) + library
    release = struct.pack("<IIIIII", 0x32, 24, 1, 11 << 16 | minor << 8, 0, 0)
    begin = 32 + len(load) + len(release) + 24
    table = struct.pack("<IIIIII", 2, 24, begin, 1, begin + len(symbol), len(strings))
    head = struct.pack("<IIIIIIII", 0xFEEDFACF, 0x0100000C, 0, 6, 3, 0, 0, 0)
    return head + load + release + table + symbol + strings


def pe(*libraries: str, machine: int = 0xAA64, magic: int = 0x20B) -> bytes:
    """Build the parts of a DLL of 64 bits that are read (PE Format)."""
    address, place = 0x1000, 0x200  # of its one section, in memory and in the file
    names = b"".join(name.encode() + b"\0" for name in libraries)
    begin = address + 20 * (len(libraries) + 1)
    entries = b""
    for name in libraries:
        entries += struct.pack("<IIIII", 0, 0, 0, begin, 0)
        begin += len(name) + 1
    content = entries + bytes(20) + names
    # Of the optional header: the magic number, and where the imports are.
    optional = struct.pack("<H110xIIII", magic, 0, 0, address, len(content))
    section = struct.pack("<8sIIII16x", b".idata", len(content), address, 512, place)
    head = struct.pack("<2s58xI", b"MZ", 64) + b"PE\0\0"
    head += struct.pack("<HHIIIHH", machine, 1, 0, 0, 0, len(optional), 0)
    return (head + optional + section).ljust(place, b"\0") + content.ljust(512, b"\0")


def test_elf_names_its_processor_libraries_and_versions(tmp_path: Path) -> None:
    code = "#include <stdlib.h>\nvoid *f(void){return calloc(1, 1);}\n"
    binary = read_binary(shared_object(tmp_path, code).read_bytes())
    assert "libc.so.6" in binary.libraries
    assert any(version.startswith("GLIBC_2.") for version in binary.versions)
    assert binary.processor in {"x86_64", "aarch64"}


def test_macho_names_its_libraries_release_and_unbound_symbols() -> None:
    binary = read_binary(macho())
    assert binary.processor == "arm64"
    assert binary.libraries == ("/usr/lib/libSystem.B.dylib",)
    assert binary.unbound == ("PyLong_FromLong",)
    assert binary.release == (11, 0)


def test_pe_names_its_processor_and_libraries() -> None:
    binary = read_binary(pe("python3.dll", "KERNEL32.dll"))
    assert binary.processor == "ARM64"
    assert binary.libraries == ("python3.dll", "KERNEL32.dll")


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"MZ\x90\0", b"MZ".ljust(64, b"\0"), b"\x7fELF\x02\x01", macho()[:40]),
        *(pe()[:150], pe("a.dll", magic=0x10B), pe("a.dll", machine=0x14C)),
    ],
)
def test_unknown_or_damaged_file_is_refused(data: bytes) -> None:
    with pytest.raises(BinaryFormatError):
        read_binary(data)


def check_module(path: Path, target: str) -> str:
    return wheel_checks.check_module(path, BY_NAME[target])


def test_module_of_macos_passes_with_symbols_of_python_alone(tmp_path: Path) -> None:
    module = tmp_path / "module.so"
    module.write_bytes(macho())
    assert "macOS 11.0" in check_module(module, "aarch64-macos")
    module.write_bytes(macho(name="_accept4"))
    with pytest.raises(wheel_checks.CheckError, match=r"no library has .'accept4'"):
        check_module(module, "aarch64-macos")


def test_module_of_windows_passes_with_what_windows_and_python_have(
    tmp_path: Path,
) -> None:
    module = tmp_path / "module.pyd"
    module.write_bytes(pe("python3.dll", "api-ms-win-crt-heap-l1-1-0.dll"))
    assert "C runtime" in check_module(module, "aarch64-windows-gnu")
    module.write_bytes(pe("python3.dll", "python311.dll"))
    with pytest.raises(wheel_checks.CheckError, match=r"needs .'python311.dll'"):
        check_module(module, "aarch64-windows-gnu")


def test_module_for_a_newer_macos_than_the_tag_is_refused(tmp_path: Path) -> None:
    module = tmp_path / "module.so"
    module.write_bytes(macho(minor=3))
    with pytest.raises(wheel_checks.CheckError, match="needs macOS"):
        check_module(module, "aarch64-macos")


def test_module_for_another_processor_is_refused(tmp_path: Path) -> None:
    module = tmp_path / "module.so"
    module.write_bytes(macho())
    with pytest.raises(wheel_checks.CheckError, match="built for arm64"):
        check_module(module, "x86_64-macos")


def test_module_with_a_foreign_library_is_refused(tmp_path: Path) -> None:
    foreign = shared_object(tmp_path, "int g(void){return 1;}", "-Wl,-soname,libx.so.1")
    library = foreign.rename(tmp_path / "libx.so")
    code = "int g(void); int f(void){return g();}"
    module = shared_object(tmp_path, code, str(library))
    processor = read_binary(module.read_bytes()).processor
    with pytest.raises(wheel_checks.CheckError, match=r"needs .*libx\.so\.1"):
        check_module(module, f"{processor}-linux-gnu")


def test_module_that_needs_a_newer_glibc_is_refused(tmp_path: Path) -> None:
    code = "#include <stdlib.h>\nvoid *f(void){return calloc(1, 1);}\n"
    module = shared_object(tmp_path, code)
    binary = read_binary(module.read_bytes())
    old = Target("old", "Linux", binary.processor, "manylinux_1_9_any")
    with pytest.raises(wheel_checks.CheckError, match="needs glibc"):
        wheel_checks.check_module(module, old)
    musl = Target("musl", "Linux", binary.processor, "musllinux_1_2_any")
    with pytest.raises(wheel_checks.CheckError, match=r"needs .*libc\.so\.6"):
        wheel_checks.check_module(module, musl)


@pytest.mark.slow  # the wheel is built for it
def test_wheel_with_another_tag_is_refused(installation: Installation) -> None:
    with pytest.raises(wheel_checks.CheckError, match="abi3"):
        list(wheel_checks.check(installation.wheel, BY_NAME["aarch64-macos"]))


def test_import_library_has_what_the_oldest_python_has() -> None:
    pytest.importorskip("abi3info", reason="needs abi3info (pip install abi3audit)")
    exported = windows_python.exports()
    assert "    PyLong_FromLong" in exported
    assert "    PyExc_OSError DATA" in exported
    assert "    PyList_GetItemRef" not in exported  # since 3.13


def test_tags_and_names_of_targets_are_unique() -> None:
    tags = [target.wheel for target in ALL if target.wheel]
    assert len(set(tags)) == len(tags)
    assert len(BY_NAME) == len(ALL)
