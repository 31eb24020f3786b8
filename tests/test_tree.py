"""The tree of tests: no two files with one name."""

from __future__ import annotations

import collections

from tests.tree import ROOT

# What pytest and Python look for by this name, in each folder.
OFTEN = {"conftest", "__init__"}


def test_no_two_test_files_have_one_name() -> None:
    """Python or C; then a name in a traceback or a report is unambiguous."""
    frozen = {path.parent for path in (ROOT / "tests" / "abi").glob("*/fdmux.h")}
    found = collections.defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("*.[cp]*")):
        if path.suffix in {".c", ".py"} and path.parent not in frozen:
            found[path.stem].append(str(path.relative_to(ROOT)))
    pairs = {name: paths for name, paths in found.items() if len(paths) > 1}
    assert not [paths for name, paths in pairs.items() if name not in OFTEN]
