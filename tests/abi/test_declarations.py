"""Everything a release has declared is still declared, with the same meaning.

The compiler compares. A C program includes the headers of the tree and then repeats
what the frozen ones declare: prototypes, types of callbacks and members, values of
macros. C allows a declaration twice only if both agree.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from tests.abi.conftest import CURRENT, compile_c
from tests.abi.layout import HEADERS, declared, members, plain
from tools import c_api

if TYPE_CHECKING:
    from pathlib import Path

# What every release changes, the word that a builder may define otherwise, and what is
# defined on Windows alone.
CHANGING = {"FDMUX_VERSION", "FDMUX_ABI_MINOR", "FDMUX_API", "ESTALE"}


def macro_value(macro: c_api.Declaration) -> str:
    return plain(macro).split(None, 2)[2]


def repeated_member(structure: str, name: str, field: str) -> list[str]:
    """Declare a variable with the member's present type, then with its old type."""
    variable = f"check_{structure}_{name}"
    then = re.sub(rf"\b{name}\b", variable, field, count=1)
    if field.endswith(name):
        then = f"{field.removesuffix(name)}{variable}"
    return [
        f"extern __typeof__(((struct {structure} *)0)->{name}) {variable};",
        f"extern {then};",
    ]


def repetition(declaration: c_api.Declaration) -> list[str]:
    if declaration.kind == "macro" and declaration.name not in CHANGING:
        name, value = declaration.name, macro_value(declaration)
        if value.startswith("{"):  # an initializer has no value to compare
            return [f"#ifndef {name}", f"#error {name}", "#endif"]
        return [f'_Static_assert({name} == {value}, "{name} was {value}");']
    if declaration.kind == "struct":
        return [
            line
            for name, field in members(declaration)
            for line in repeated_member(declaration.name, name, field)
        ]
    return [plain(declaration)] if declaration.kind in {"function", "typedef"} else []


def program(release: Path) -> str:
    lines = [line for one in declared(release) for line in repetition(one)]
    included = [f'#include "{name}"' for name in HEADERS]
    return "\n".join([*included, *lines, ""])


def check(text: str, folder: Path, headers: Path) -> str:
    """Return what the compiler reports against it."""
    source = folder / "repeated.c"
    source.write_text(text, encoding="utf-8")
    return compile_c("-fsyntax-only", f"-I{headers}", source).stderr


def test_everything_declared_by_a_release_is_declared_alike(
    frozen: Path, tmp_path: Path
) -> None:
    text = program(frozen)
    assert text.count("\n") > 200
    assert check(text, tmp_path, CURRENT) == ""


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("FDMUX_WRITE 0x02", "FDMUX_WRITE 0x04", "FDMUX_WRITE was 0x02"),
        ("#define FDMUX_EDGE 0x100", "#define FDMUX_SHARP 0x100", "FDMUX_EDGE"),
        ("int fdmux_loop_run(struct", "long fdmux_loop_run(struct", "fdmux_loop_run"),
        ("int (*io_remove)(struct", "long (*io_remove)(struct", "io_remove"),
        ("    uint32_t tag;\n};", "    uint64_t tag;\n};", "fdmux_ready_tag"),
        ("fdmux_post_fn)(struct", "fdmux_post_fn)(const struct", "fdmux_post_fn"),
        ("    uint32_t is_list;", "    uint64_t is_list;", "fdmux_frame_is_list"),
    ],
)
def test_comparison_finds_what_was_changed(
    before: str, after: str, told: str, frozen: Path, tmp_path: Path
) -> None:
    """The frozen headers against themselves, with one change."""
    changed = tmp_path / "include"
    changed.mkdir()
    for header in HEADERS:
        text = (frozen / header).read_text(encoding="utf-8")
        (changed / header).write_text(text.replace(before, after), encoding="utf-8")
    assert check(program(frozen), tmp_path, frozen) == ""
    assert told in check(program(frozen), tmp_path, changed)


def test_a_frozen_header_is_never_ahead_of_the_tree(frozen: Path) -> None:
    now = {one.name for one in declared(CURRENT)}
    assert {one.name for one in declared(frozen)} <= now


def test_every_function_is_forwarded_by_the_header_for_extensions() -> None:
    """Each macro calls the member of the table with its name."""
    header = c_api.parse(CURRENT / "fdmux_python.h")
    forwarding = {
        one.name: macro_value(one) for one in header.declarations if one.is_forwarding
    }
    functions = {one.name for one in declared(CURRENT, "function")}
    assert set(forwarding) == functions - {"fdmux_get_api"}
    for name, value in forwarding.items():
        member = name.removeprefix("fdmux_")
        assert value in (
            f"fdmux_table->{member}(__VA_ARGS__)",
            f"fdmux_table->stream->{member.removeprefix('stream_')}(__VA_ARGS__)",
            f"fdmux_table->tls->{member.removeprefix('stream_')}(__VA_ARGS__)",
            f"fdmux_table->datagram->{member.removeprefix('datagram_')}(__VA_ARGS__)",
        )
