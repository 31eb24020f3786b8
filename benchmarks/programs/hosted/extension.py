"""native/hosted.c as an extension, made by cffi as programs with C handlers do."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sysconfig
from typing import TYPE_CHECKING, Protocol, cast

from benchmarks.availability import require
from benchmarks.build import NATIVE, OUTPUT, build
from benchmarks.contenders import fdmux_include
from benchmarks.extensions import load_module

if TYPE_CHECKING:
    from collections.abc import Sequence

    Array = Sequence[int]

NAME = "fdmux_benchmarks_hosted"


class Library(Protocol):
    """The functions of native/hosted.h."""

    def hosted_handle(self, fd: int) -> None: ...
    def hosted_expect(self, count: int, done_fd: int) -> None: ...
    def hosted_handled(self) -> int: ...
    def hosted_watch(
        self, api: int, loop: int, fds: Array, count: int, tokens: Array
    ) -> int: ...
    def hosted_unwatch(self, api: int, loop: int, tokens: Array, count: int) -> int: ...
    def hosted_epoll(self, fds: Array, count: int) -> int: ...


class Ffi(Protocol):
    """What the programs need of cffi's ``FFI``."""

    def new(self, kind: str, initializer: object) -> Array: ...


class Extension(Protocol):
    """The module."""

    ffi: Ffi
    lib: Library


@functools.cache
def build_extension() -> str:
    """Compile it; return its path."""
    require("cffi")
    from cffi import FFI  # noqa: PLC0415 - of the programs, only this needs it

    header = (NATIVE / "hosted.h").read_text()
    lines = [line for line in header.splitlines() if not line.startswith("#")]
    ffi = FFI()
    ffi.cdef("\n".join(lines))
    ffi.set_source(NAME, '#include "hosted.h"')
    OUTPUT.mkdir(parents=True, exist_ok=True)
    source = OUTPUT / f"{NAME}.c"
    with contextlib.redirect_stdout(io.StringIO()):  # it says what it does
        ffi.emit_c_code(str(source))
    python = sysconfig.get_path("include")
    return str(
        build(
            *(str(source), "hosted.c", "-shared", "-fPIC", f"-I{NATIVE}"),
            *(f"-I{fdmux_include()}", f"-isystem{python}"),
        )
    )


def load_extension(path: str) -> Extension:
    """Import it."""
    return cast("Extension", load_module(NAME, path))


def check(result: int) -> None:
    """Raise the error that a function of the library returned."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
