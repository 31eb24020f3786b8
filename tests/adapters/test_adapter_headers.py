"""The adapters as headers: they compile alone, and know no Python."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.adapters import built
from tests.adapters.conftest import skip
from tests.adapters.servers import MissingError
from tests.compiled import include_dir
from tests.tree import HEADERS

if TYPE_CHECKING:
    from pathlib import Path

WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
HEADS = ("Ownership:", "Threads:", "End of the loop:", "Timeouts:", "Tested with")


def source_of(library: str) -> Path:
    return HEADERS / "adapters" / f"{library}.h"


@pytest.mark.parametrize("library", built.LIBRARIES)
@pytest.mark.parametrize("language", ["cc -std=c99 -x c", "c++ -std=c++17 -x c++"])
def test_header_compiles_alone(library: str, language: str) -> None:
    try:
        flags = built.flags_of(library)
    except MissingError as error:
        skip(error)
    subprocess.run(
        [
            *language.split(),
            *WARNINGS,
            "-fsyntax-only",
            f"-I{include_dir()}",
            *(flag for flag in flags if flag.startswith(("-I", "-D"))),
            "-",
        ],
        input=f"#include <fdmux/adapters/{library}.h>\n",
        text=True,
        check=True,
    )


@pytest.mark.parametrize("library", built.LIBRARIES)
def test_header_names_python_only_to_say_what_to_include(library: str) -> None:
    lines = source_of(library).read_text().splitlines()
    named = [line for line in lines if "Py" in line or "ython" in line]
    assert named == [
        " * In a Python extension include Python.h and fdmux_python.h first. */"
    ]


@pytest.mark.parametrize("library", built.LIBRARIES)
def test_header_says_what_users_must_know(library: str) -> None:
    comment = source_of(library).read_text().partition("*/")[0]
    assert [head for head in HEADS if head not in comment] == []


@pytest.mark.parametrize("library", built.LIBRARIES)
def test_functions_are_static_inline_and_have_the_name_of_the_header(
    library: str,
) -> None:
    text = source_of(library).read_text()
    found = re.findall(r"^static ([^()]*?)(\w+)\(", text, re.MULTILINE)
    assert found
    for kind, name in found:
        assert kind.startswith("inline ")
        assert name.startswith(f"fdmux_{library}_")
