"""Write the C source of the extension ``fdmux._ffi``.

Run by CMake: ``build_ffi.py OUT.c HEADER...``. What lies between ``cffi:begin`` and
``cffi:end`` in each header is declared to cffi as it stands, so that the header a C
program includes and what Python calls cannot drift apart.
"""

import re
import sys
from pathlib import Path

import cffi

DECLARED = re.compile(r"/\* cffi:begin \*/(.*?)/\* cffi:end \*/", re.DOTALL)


def declarations(header: Path) -> str:
    """Cut out what the header declares to cffi."""
    found = DECLARED.search(header.read_text(encoding="utf-8"))
    if found is None:
        sys.exit(f"{header}: no cffi:begin and cffi:end")
    return found[1].replace("FDMUX_API ", "")


def main() -> None:
    """Do what the command line says."""
    out, *headers = map(Path, sys.argv[1:])
    ffi = cffi.FFI()
    ffi.cdef("typedef int... fdmux_fd;")  # the compiler knows its size
    ffi.cdef("\n".join(declarations(header) for header in headers))
    ffi.set_source(
        "fdmux._ffi", "".join(f'#include "{header.name}"\n' for header in headers)
    )
    ffi.emit_c_code(str(out))


main()
