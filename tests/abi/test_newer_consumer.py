"""Today's core refuses a consumer that was made for a later one, with a clear error.

Its headers are those of the tree, with what a later version would change in them.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest
from tests.abi.conftest import CURRENT, build_consumer, load

import fdmux

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow  # each case compiles an extension

MAJOR, MINOR = fdmux.ABI_VERSION


def with_version(header: str, macro: str, number: int) -> str:
    changed, count = re.subn(rf"({macro}) \d+", rf"\1 {number}", header)
    assert count == 1
    return changed


def with_longer_table(header: str) -> str:
    last = "    const struct fdmux_stream_api *stream;"
    assert last in header
    return header.replace(last, f"    void (*to_come)(void);\n{last}")


def later_major(header: str) -> str:
    return with_version(header, "FDMUX_ABI_MAJOR", MAJOR + 1)


def later_minor(header: str) -> str:
    return with_version(header, "FDMUX_ABI_MINOR", MINOR + 1)


@pytest.mark.parametrize(
    ("change", "version"),
    [
        pytest.param(later_major, f"{MAJOR + 1}.{MINOR}", id="major"),
        pytest.param(later_minor, f"{MAJOR}.{MINOR + 1}", id="minor"),
        pytest.param(with_longer_table, f"{MAJOR}.{MINOR}", id="longer-table"),
    ],
)
def test_consumer_for_a_later_core_is_told_to_upgrade(
    change: Callable[[str], str], version: str, tmp_path: Path
) -> None:
    headers = tmp_path / "include"
    shutil.copytree(CURRENT, headers)
    name = "fdmux_api.h" if change is with_longer_table else "fdmux.h"
    text = (CURRENT / name).read_text(encoding="utf-8")
    (headers / name).write_text(change(text), encoding="utf-8")
    consumer = load(build_consumer(headers, tmp_path))
    told = (
        rf"compiled for ABI {re.escape(version)}, the installed fdmux has "
        rf"{MAJOR}\.{MINOR}: upgrade fdmux"
    )
    with pytest.raises(ImportError, match=told):
        consumer.import_core()
    with fdmux.NativeLoop() as loop, pytest.raises(ImportError, match=told):
        consumer.adopt(loop)
    assert not consumer.has_table()
