"""Write the C source of the library behind guest.h: ``build_guest.py OUT.c``.

cffi reads the functions from the header; the Python code in guest_functions.py becomes
part of the library.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cffi

FOLDER = Path(__file__).parent


def main() -> None:
    """Write the file that the command line names."""
    header = (FOLDER / "guest.h").read_text(encoding="utf-8")
    declared = header.partition("/* cffi:begin */")[2].partition("/* cffi:end */")[0]
    ffi = cffi.FFI()
    ffi.embedding_api(declared)
    ffi.set_source("guest_library", "")
    ffi.embedding_init_code((FOLDER / "guest_functions.py").read_text(encoding="utf-8"))
    ffi.emit_c_code(sys.argv[1])


main()
