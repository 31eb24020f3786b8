"""The built files show that the flags of cmake/hardening.cmake were in effect."""

from __future__ import annotations

import platform
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from tests.packaging.conftest import compiler

if TYPE_CHECKING:
    from pathlib import Path

    from tests.examples.conftest import Tool

pytestmark = [
    pytest.mark.slow,  # the wheel is built for the first of them
    pytest.mark.skipif(
        shutil.which("readelf") is None, reason="no readelf (Debian: binutils)"
    ),
]

FORTIFY = "-D_FORTIFY_SOURCE=3"
FLAGS = {
    "-fexceptions",
    "-fno-delete-null-pointer-checks",
    "-fno-strict-aliasing",
    "-fno-strict-overflow",
    "-fstack-protector-strong",
}
COPY = """\
#include <string.h>
char buffer[8];
void copy(const char *from, size_t size) { memcpy(buffer, from, size); }
"""
SEGMENT = re.compile(r"^ +(\w+) +(?:0x\w+ +){5}([RWE ]{3}) 0x", re.MULTILINE)
on_x86_64 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="CET is of x86-64"
)


def readelf(tool: Tool, option: str, file: Path) -> str:
    return tool("readelf", "--wide", option, file)


def symbols_needed(tool: Tool, file: Path) -> set[str]:
    return set(re.findall(r" UND (\w+)", readelf(tool, "--dyn-syms", file)))


def test_relocations_are_read_only_once_loaded(extension: Path, tool: Tool) -> None:
    """Full RELRO: the segment, and no lazy binding, which would keep it writable."""
    assert "GNU_RELRO" in readelf(tool, "--segments", extension)
    dynamic = readelf(tool, "--dynamic", extension)
    assert re.search(r"\(FLAGS\) .*BIND_NOW", dynamic)
    assert re.search(r"\(FLAGS_1\) .*NOW", dynamic)
    assert "TEXTREL" not in dynamic
    assert ".got.plt" not in readelf(tool, "--section-headers", extension)


def test_extension_stays_loaded_and_can_be(extension: Path, tool: Tool) -> None:
    """``nodelete`` for threads that outlive it; ``nodlopen`` would forbid importing."""
    dynamic = readelf(tool, "--dynamic", extension)
    assert re.search(r"\(FLAGS_1\) .*NODELETE", dynamic)
    assert "NOOPEN" not in dynamic
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic


def test_nothing_is_writable_and_executable(extension: Path, tool: Tool) -> None:
    found = SEGMENT.findall(readelf(tool, "--segments", extension))
    flags = [flags for name, flags in found if name in {"LOAD", "GNU_STACK"}]
    assert {name for name, _ in found} >= {"LOAD", "GNU_STACK"}
    assert "R E" in flags
    assert not [each for each in flags if "W" in each and "E" in each]


def test_stack_is_protected(extension: Path, tool: Tool) -> None:
    assert "__stack_chk_fail" in symbols_needed(tool, extension)


def test_every_file_is_compiled_with_the_flags(commands: dict[str, list[str]]) -> None:
    names = {"_ffi.c", "glue.c", "events.c", "loop.c", "stream.c"}
    assert names <= commands.keys()
    for name, command in commands.items():
        assert command.index("-U_FORTIFY_SOURCE") < command.index(FORTIFY), name
        assert set(command) >= FLAGS, name


@pytest.mark.parametrize("name", ["_ffi.c", "events.c", "loop.c"])
def test_calls_of_the_c_library_are_fortified(
    commands: dict[str, list[str]], tool: Tool, tmp_path: Path, name: str
) -> None:
    """Compile a file with the flags of our own, none of which has such a call."""
    source, built = tmp_path / "copy.c", tmp_path / "copy.o"
    source.write_text(COPY)
    tool(*compiler(commands[name]), "-o", built, "-c", source)
    assert "__memcpy_chk" in readelf(tool, "--symbols", built)


@on_x86_64
def test_every_object_of_the_core_has_cet(static_core: Path, tool: Tool) -> None:
    notes = readelf(tool, "--notes", static_core)
    objects = tool("ar", "t", static_core).split()
    assert len(objects) > 20
    assert len(re.findall("IBT, SHSTK", notes)) == len(objects)


@on_x86_64
def test_entry_of_the_extension_has_cet(extension: Path, tool: Tool) -> None:
    """The note of the whole file needs a C library with CET; our code has it anyway."""
    symbols = readelf(tool, "--dyn-syms", extension)
    found = re.search(r": (\w+) .* PyInit__\w+$", symbols, re.MULTILINE)
    assert found is not None
    start = int(found[1], 16)
    place = (f"--start-address={start}", f"--stop-address={start + 4}")
    assert "endbr64" in tool("objdump", "--disassemble", *place, extension)
