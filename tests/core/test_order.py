"""The C parts are in order: each includes and calls only parts below it.

`ORDER` is the one place where the order is written. A part is a file name without its
suffix: ``core/timer`` is ``timer.c`` with ``timer.h``. A new file of the core gets a
line here; a new backend needs none.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

CSRC = Path(__file__).resolve().parents[2] / "csrc"

# From the bottom to the top. The parts of one line do not know each other; a folder
# with a star is one part, as far as it is not named elsewhere.
ORDER = """
include/*
include/adapters/*
platform/testing
platform/*
core/slots core/heap core/sockaddr
core/fd_table
core/batch core/extension
core/loop_state
backends/list
backends/backend
core/gate
core/hold
core/wake
core/retire
core/post
core/host
core/timer core/hook core/node core/queue
core/io
core/io_dispatch
backends/*
backends/choose
core/finish
core/dispatch
core/fork
core/loop
core/verify
stream/*
tls/*
datagram/*
api
python/*
"""

INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)
COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"', re.DOTALL)
# clang-format puts the brace of a function, and of nothing else, on its own line.
DEFINITION = re.compile(
    r"^(?!static (?!inline))[a-z][\w *]*?\b(fdmux_\w+)\([^;{}]*\)\n\{", re.MULTILINE
)
PROTOTYPE = re.compile(r"^[A-Za-z][\w *]*\([^;{}]*\);", re.MULTILINE)
NAME = re.compile(r"(?<!struct )\bfdmux_\w+\b")
# What is published calls through the table that an extension finds at run time, or the
# core that a program links.
PUBLISHED = Path("include")


@dataclasses.dataclass(frozen=True)
class Order:
    """The lines of an order, and the place of each part in it."""

    lines: tuple[tuple[str, ...], ...]

    @classmethod
    def read(cls, text: str) -> Order:
        return cls(tuple(tuple(line.split()) for line in text.split("\n") if line))

    def place(self, file: Path) -> tuple[int, str] | None:
        """Return the line and the part of a file, given relative to the tree."""
        own, star = file.with_suffix("").as_posix(), f"{file.parent.as_posix()}/*"
        for part in (own, star):
            for number, parts in enumerate(self.lines):
                if part in parts:
                    return number, part
        return None


class Tree:
    """The C files below a folder, and what they use of each other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = sorted(
            path.relative_to(root)
            for path in root.rglob("*")
            if path.suffix in {".c", ".h", ".def"}
        )

    def text(self, file: Path) -> str:
        return (self.root / file).read_text(encoding="utf-8")

    def code(self, file: Path) -> str:
        return COMMENT_OR_STRING.sub(" ", self.text(file))

    @functools.cached_property
    def definitions(self) -> dict[str, Path]:
        """Map each function that other files can call to the file that defines it."""
        return {
            name: file
            for file in self.files
            for name in DEFINITION.findall(self.code(file))
        }

    def included(self, file: Path, name: str) -> Path | None:
        """Find an included file: beside the one that includes it, or anywhere."""
        beside = (self.root / file.parent / name).resolve()
        if beside.exists():
            return beside.relative_to(self.root.resolve())
        return next((found for found in self.files if found.name == name), None)

    def uses(self, file: Path) -> set[tuple[Path, str]]:
        """Return the files that this one includes or calls, and how."""
        found = {
            (target, f'includes "{name}"')
            for name in INCLUDE.findall(self.text(file))
            if (target := self.included(file, name)) is not None
        }
        if PUBLISHED in file.parents:
            return found
        code = self.code(file)
        names = NAME.findall(PROTOTYPE.sub("", code) if file.suffix == ".h" else code)
        return found | {
            (self.definitions[name], f"uses {name}")
            for name in names
            if name in self.definitions
        }


def wrong_arrows(root: Path, order: Order) -> list[str]:
    """Name each include and each call that points upwards or sideways."""
    tree = Tree(root)
    wrong = []
    for file in tree.files:
        place = order.place(file)
        if place is None:
            wrong.append(f"{file}: has no place in the order")
            continue
        for target, how in sorted(tree.uses(file)):
            above = order.place(target)
            if above is not None and above[1] != place[1] and above[0] >= place[0]:
                wrong.append(f"{file} -> {target}: {how}")
    return wrong


def test_parts_use_only_parts_below_them() -> None:
    wrong = wrong_arrows(CSRC, Order.read(ORDER))
    assert not wrong, "against the order of test_order.py:\n" + "\n".join(wrong)


def test_every_part_of_the_order_exists() -> None:
    order = Order.read(ORDER)
    places = [order.place(file) for file in Tree(CSRC).files]
    found = {place[1] for place in places if place is not None}
    assert found == {part for line in order.lines for part in line}


def test_functions_of_the_core_are_found() -> None:
    definitions = Tree(CSRC).definitions
    assert definitions["fdmux_timer_arm"] == Path("core/timer.c")
    assert definitions["fdmux__next_deadline"] == Path("core/host.h")
    assert definitions["fdmux__io_dispatch"] == Path("core/io_dispatch.c")


def made_up(folder: Path, **files: str) -> Path:
    """Write a tree of one folder, ``core``; ``low_c`` becomes ``low.c``."""
    (folder / "core").mkdir()
    for name, text in files.items():
        file = folder / "core" / name.replace("_", ".")
        file.write_text(text, encoding="utf-8")
    return folder


SMALL = Order.read("core/low\ncore/left core/right\ncore/high\n")


def test_use_of_a_part_below_is_in_order(tmp_path: Path) -> None:
    root = made_up(
        tmp_path,
        low_h="int fdmux__low(int value);\n",
        low_c='#include "low.h"\nint fdmux__low(int value)\n{\n    return 1;\n}\n',
        high_c='#include "low.h"\nint fdmux_high(void)\n{\n    fdmux__low(1);\n}\n',
    )
    assert wrong_arrows(root, SMALL) == []


def test_upward_include_is_named(tmp_path: Path) -> None:
    root = made_up(tmp_path, low_c='#include "high.h"\n', high_h="")
    assert wrong_arrows(root, SMALL) == ['core/low.c -> core/high.h: includes "high.h"']


def test_upward_call_is_named(tmp_path: Path) -> None:
    root = made_up(
        tmp_path,
        low_c="int fdmux__low(void)\n{\n    return fdmux__high(1);\n}\n",
        high_c="int fdmux__high(int value)\n{\n    return value;\n}\n",
    )
    assert wrong_arrows(root, SMALL) == ["core/low.c -> core/high.c: uses fdmux__high"]


def test_call_in_a_header_is_named(tmp_path: Path) -> None:
    root = made_up(
        tmp_path,
        low_h="int fdmux__high(void);\n"
        "static inline int fdmux__low(void)\n{\n    return fdmux__high();\n}\n",
        high_c="int fdmux__high(void)\n{\n    return 1;\n}\n",
    )
    assert wrong_arrows(root, SMALL) == ["core/low.h -> core/high.c: uses fdmux__high"]


def test_parts_of_one_line_do_not_know_each_other(tmp_path: Path) -> None:
    root = made_up(tmp_path, left_c='#include "right.h"\n', right_h="")
    assert wrong_arrows(root, SMALL) == [
        'core/left.c -> core/right.h: includes "right.h"'
    ]


def test_part_without_a_place_is_named(tmp_path: Path) -> None:
    root = made_up(tmp_path, new_c="")
    assert wrong_arrows(root, SMALL) == ["core/new.c: has no place in the order"]


def test_comments_are_not_uses(tmp_path: Path) -> None:
    root = made_up(
        tmp_path,
        low_c="/* As fdmux__high does. */\n",
        high_c="int fdmux__high(void)\n{\n    return 1;\n}\n",
    )
    assert wrong_arrows(root, SMALL) == []
