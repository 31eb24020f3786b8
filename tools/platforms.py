"""Print the table of docs/platforms.md: where fdmux is compiled and run, and how.

    python tools/platforms.py            print it
    python tools/platforms.py --write    put it into docs/platforms.md

What CI does comes from the lists that CI works through: tools/targets.py and
tests/core/targets.py. What a person has tried once is recorded here, with its date.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.core.targets import TARGETS  # noqa: E402 - after the change of sys.path
from tools.cross import ONE_OF_EACH, OTHERS  # noqa: E402 - as above
from tools.targets import ALL, BY_NAME  # noqa: E402 - after the change of sys.path

PAGE = ROOT / "docs" / "platforms.md"
BEGIN, END = "<!-- platforms:begin -->", "<!-- platforms:end -->"
HEADINGS = ("system", "compiled", "C tests", "Python", "wheel")
NATIVE = "x86_64-linux-gnu"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line: a system, and what is known that no list says."""

    system: str
    target: str = ""  # of tools/targets.py
    c_tests: str = ""  # of tests/core/targets.py
    python: str = "not run"
    by_hand: str = ""  # a compiler that no list names
    c_by_hand: str = ""  # how the C tests ran that no list says


ROWS = (
    Row("Linux x86-64, glibc", NATIVE, python="CPython 3.11, 3.12, 3.13: in CI"),
    Row(
        "the same, newer CPython",
        NATIVE,
        python="CPython 3.14.8, 3.15.0: the wheel ran the demo; by hand, 2026-11-30",
    ),
    Row(
        "the same, PyPy",
        by_hand="gcc",
        python="PyPy 7.3.19 (3.11): a build for it ran the demo; by hand, 2026-11-30",
    ),
    Row(
        "the same, CPython without the GIL",
        by_hand="gcc",
        python="CPython 3.13.5: a build for it ran the demo; by hand, 2026-11-30",
    ),
    Row(
        "Linux arm64, glibc",
        "aarch64-linux-gnu",
        "aarch64",
        "CPython 3.11.2, qemu-user: the wheel ran the demo; by hand, 2026-11-30",
    ),
    Row(
        "Linux x86-64, musl",
        "x86_64-linux-musl",
        "musl",
        "CPython 3.13.5: the wheel ran the demo; by hand, 2026-11-30",
    ),
    Row("Linux arm64, musl", "aarch64-linux-musl"),
    Row("Linux i386, 32-bit time", c_tests="m32"),
    Row("Linux i386, 64-bit time", c_tests="m32-time64"),
    Row("macOS x86-64", "x86_64-macos"),
    Row("macOS arm64", "aarch64-macos"),
    Row("FreeBSD x86-64", "x86_64-freebsd"),
    Row("FreeBSD arm64", "aarch64-freebsd"),
    Row("OpenBSD x86-64", "x86_64-openbsd"),
    Row("NetBSD x86-64", "x86_64-netbsd"),
    Row(
        "Windows x86-64",
        "x86_64-windows-gnu",
        python="CPython 3.13.2, wine 8: the wheel ran the demo; by hand, 2026-11-30",
        c_by_hand="most, by wine 8: [a page of its own](windows.md)",
    ),
    Row("Windows arm64", "aarch64-windows-gnu"),
)


def compiled(row: Row) -> str:
    """Return which compilers take it, and what runs them."""
    found = [f"{row.by_hand}, by hand"] if row.by_hand else []
    if row.target == NATIVE:
        found.append("gcc, in CI")
    if row.c_tests:
        found.append(f"{TARGETS[row.c_tests].compiler}, in CI")
    if row.target and BY_NAME[row.target].wheel:
        found.append("zig, `tools/wheels.py`")
    if row.target in OTHERS:
        is_in_ci = row.target in ONE_OF_EACH
        found.append("zig, in CI" if is_in_ci else "zig, `tools/cross.py`")
    return "; ".join(found)


def c_tests(row: Row) -> str:
    """Return how the C tests run on it."""
    if row.target == NATIVE:
        return "in CI, also under ASan and UBSan"
    if row.by_hand:
        return "need no Python"
    if row.c_by_hand:
        return row.c_by_hand
    if not row.c_tests:
        is_linked = row.target and BY_NAME[row.target].system not in {
            "Linux",
            "Windows",
        }
        return "linked, not run" if is_linked else "not run"
    emulator = TARGETS[row.c_tests].emulator
    return f"in CI, by {emulator[0]}" if emulator else "in CI"


def lines() -> list[str]:
    """Return the table as Markdown."""
    table = [HEADINGS, tuple("---" for _ in HEADINGS)]
    for row in ROWS:
        wheel = f"`{BY_NAME[row.target].wheel}`" if row.target in wheels() else "none"
        table.append((row.system, compiled(row), c_tests(row), row.python, wheel))
    return [f"| {' | '.join(cells)} |" for cells in table]


def wheels() -> set[str]:
    """Return the targets that have a wheel."""
    return {target.name for target in ALL if target.wheel}


def page_with_table(text: str) -> str:
    """Return the text of the page with the table of today in it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([f"{before}{BEGIN}", *lines(), f"{END}{after}"])


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    if parser.parse_args().write:
        text = page_with_table(PAGE.read_text(encoding="utf-8"))
        PAGE.write_text(text, encoding="utf-8")
    else:
        print("\n".join(lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
