"""Print the layout of every public structure, as the C compiler sees it.

    python -m tests.abi.layout tests/abi/1.0 > tests/abi/1.0/layout.txt

One line for each structure with its size, and one for each member with its offset and
size. They are the same on all machines with 64-bit pointers. A person has read
layout.txt; tests compare with it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tools import c_api

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
HEADERS = (
    "fdmux.h",
    "fdmux_api.h",
    "fdmux_stream.h",
    "fdmux_tls.h",
    "fdmux_datagram.h",
    "fdmux_frame.h",
)
PROGRAM = """
#include <stddef.h>
#include <stdio.h>
#include "fdmux_api.h"
#include "fdmux_datagram.h"
#include "fdmux_frame.h"
#include "fdmux_stream.h"
#include "fdmux_tls.h"
#define MEMBER(type, name) \\
    printf(#type "." #name " %%zu %%zu\\n", offsetof(struct type, name), \\
           sizeof(((struct type *)0)->name))
int main(void)
{
%s
    return 0;
}
"""


def plain(declaration: c_api.Declaration) -> str:
    """Strip a declaration of its comments and line breaks, those of macros included."""
    return " ".join(COMMENT.sub("", declaration.code).replace("\\\n", " ").split())


def declared(headers: Path, *kinds: str) -> list[c_api.Declaration]:
    """List what the headers in a folder declare, of some kinds or of all."""
    return [
        found
        for name in HEADERS
        for found in c_api.parse(headers / name).declarations
        if not kinds or found.kind in kinds
    ]


def members(structure: c_api.Declaration) -> list[tuple[str, str]]:
    """List a structure's members: the name, and its declaration."""
    _, brace, body = plain(structure).partition("{")
    if not brace:
        return []
    fields = [field.strip() for field in body.rpartition("}")[0].split(";")]
    return [(member_name(field), field) for field in fields if field]


def member_name(field: str) -> str:
    function = re.search(r"\(\*(\w+)\)", field)
    last = re.search(r"(\w+)(?:\[\w+\])?$", field)
    found = function or last
    if found is None:
        raise SystemExit(f"no member in: {field}")
    return found[1]


def program(headers: Path) -> str:
    """Write the C program that prints the layout."""
    lines = []
    for structure in declared(headers, "struct"):
        name, names = structure.name, [one for one, _ in members(structure)]
        if names:
            lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        lines += [f"MEMBER({name}, {one});" for one in names]
    return PROGRAM % "\n".join(f"    {line}" for line in lines)


def layout(headers: Path) -> str:
    """Compile the program against ``headers`` and return what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder) / "layout.c", Path(folder) / "layout"
        source.write_text(program(headers), encoding="utf-8")
        subprocess.run(
            ["cc", "-std=c11", f"-I{headers}", str(source), "-o", str(built)],
            check=True,
        )
        done = subprocess.run([str(built)], capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    sys.stdout.write(layout(Path(sys.argv[1]).resolve()))
