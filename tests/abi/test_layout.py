"""Structures keep their layout: a member stays at the offset of its first release.

Members may be appended only to a structure that holds its own size: code of different
releases shares arrays of the others.
"""

from __future__ import annotations

import ctypes
import shutil
from typing import TYPE_CHECKING

import pytest
from tests.abi.conftest import CURRENT, FROZEN
from tests.abi.layout import declared, layout, members

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(
        ctypes.sizeof(ctypes.c_void_p) != 8 or ctypes.sizeof(ctypes.c_long) != 8,
        reason="layout.txt is that of machines with 64-bit pointers",
    ),
    pytest.mark.skipif(
        shutil.which("cc") is None, reason="needs a C compiler (Debian: gcc)"
    ),
]


def pinned(release: Path) -> dict[str, list[int]]:
    return numbers((release / "layout.txt").read_text(encoding="utf-8"))


def numbers(text: str) -> dict[str, list[int]]:
    words = [line.split() for line in text.splitlines()]
    return {name: list(map(int, rest)) for name, *rest in words}


@pytest.fixture(scope="module")
def current() -> dict[str, list[int]]:
    return numbers(layout(CURRENT))


def test_there_is_a_release_to_compare_with() -> None:
    assert FROZEN


def test_reviewed_layout_is_that_of_the_frozen_headers(frozen: Path) -> None:
    assert (frozen / "layout.txt").read_text(encoding="utf-8") == layout(frozen)


def test_members_are_where_they_were(
    frozen: Path, current: dict[str, list[int]]
) -> None:
    before = {name: place for name, place in pinned(frozen).items() if "." in name}
    assert len(before) > 50
    assert {name: current.get(name) for name in before} == before


def test_structures_only_grow_and_only_if_they_say_their_size(
    frozen: Path, current: dict[str, list[int]]
) -> None:
    for name, place in pinned(frozen).items():
        if "." in name:
            continue
        if f"{name}.struct_size" in current:
            assert current[name] >= place, name
        else:
            assert current[name] == place, name


def test_members_of_every_structure_are_appended_only(frozen: Path) -> None:
    now = {one.name: members(one) for one in declared(CURRENT, "struct")}
    for structure in declared(frozen, "struct"):
        before = members(structure)
        assert now[structure.name][: len(before)] == before, structure.name


def version(headers: Path) -> tuple[int, int]:
    words = [one.code.split() for one in declared(headers, "macro")]
    found = {one[1]: one[2] for one in words if "ABI" in one[1]}
    return int(found["FDMUX_ABI_MAJOR"]), int(found["FDMUX_ABI_MINOR"])


def member_count(headers: Path) -> int:
    return sum(len(members(one)) for one in declared(headers, "struct"))


def test_new_members_mean_a_new_minor_version(frozen: Path) -> None:
    now, then = version(CURRENT), version(frozen)
    assert now[0] == then[0]
    if member_count(CURRENT) == member_count(frozen):
        assert now >= then
    else:
        assert now > then
