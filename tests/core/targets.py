"""Systems and processors that the C tests can be cross-compiled for, and run on here.

    python -m pytest tests/core --c-target=musl,aarch64,m32,m32-time64

Each case then runs once per target. A target whose compiler or emulator is missing is
skipped, and says which Debian packages it needs. This file knows compilers, and no case
except those that an emulator cannot run.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

# Kernel headers: musl-gcc looks nowhere else than in its own folder, and -m32 misses
# asm/, which Debian keeps in a folder per processor. -idirafter: the C library's first.
KERNEL_HEADERS = tuple(
    word
    for folder in (
        "/usr/include",
        f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}",
    )
    for word in ("-idirafter", folder)
)
PROGRAM = (
    "#include <linux/errno.h>\n#include <sys/epoll.h>\nint main(void){return 0;}\n"
)


@dataclasses.dataclass(frozen=True)
class Target:
    """How programs for one system are compiled and started."""

    compiler: str
    packages: str  # Debian's
    flags: tuple[str, ...] = ()
    link_flags: tuple[str, ...] = ()
    processor: str = ""  # CMake's name for it, if it is not this machine's
    emulator: tuple[str, ...] = ()
    cannot_run: tuple[tuple[str, str], ...] = ()  # names of cases, each with the reason

    def cmake_options(self) -> dict[str, str]:
        """Return what CMake must know. OpenSSL is this machine's, so it is left out."""
        options = {
            "CMAKE_C_COMPILER": self.compiler,
            "CMAKE_C_FLAGS": " ".join(self.flags),
            "CMAKE_EXE_LINKER_FLAGS": " ".join(self.link_flags),
            "CMAKE_BUILD_TYPE": "Debug",
            "CMAKE_DISABLE_FIND_PACKAGE_OpenSSL": "ON",
        }
        if self.processor:
            options["CMAKE_SYSTEM_NAME"] = "Linux"
            options["CMAKE_SYSTEM_PROCESSOR"] = self.processor
        return options

    def why_not(self, case: str) -> str:
        """Return why a case cannot run on the target here, or an empty text."""
        return dict(self.cannot_run).get(case, "") or self.what_is_missing()

    @functools.cache  # noqa: B019 - targets are constants
    def what_is_missing(self) -> str:
        """Build and run a program; return what has to be installed for that, or ''."""
        needs = f"needs {self.compiler} (Debian: {self.packages})"
        if not all(map(shutil.which, (self.compiler, *self.emulator[:1]))):
            return needs
        with tempfile.TemporaryDirectory() as folder:
            source, program = Path(folder, "empty.c"), Path(folder, "empty")
            source.write_text(PROGRAM, encoding="utf-8")
            build = [self.compiler, *self.flags, *self.link_flags, str(source)]
            if not succeeds([*build, "-o", str(program)]):
                return needs
            return "" if succeeds([*self.emulator, str(program)]) else needs


def succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


# -O1: emulation takes a fifth of the time of -O0. Static: it need not translate ld.so.
TARGETS = {
    "musl": Target(
        compiler="musl-gcc",
        packages="musl-tools linux-libc-dev",
        flags=("-O1", *KERNEL_HEADERS),
    ),
    "aarch64": Target(
        compiler="aarch64-linux-gnu-gcc",
        packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static",
        flags=("-O1",),
        link_flags=("-static",),
        processor="aarch64",
        emulator=("qemu-aarch64-static",),
        cannot_run=(
            (
                "what_the_kernel_drops_is_counted",
                "qemu-user hands no SO_RXQ_OVFL message to the program",
            ),
        ),
    ),
    # gcc-multilib conflicts with the compiler for aarch64; that of one gcc does not.
    "m32": Target(
        compiler="gcc",
        packages="gcc-12-multilib libc6-dev-i386",
        flags=("-O1", "-m32", *KERNEL_HEADERS),
        processor="i686",
    ),
    "m32-time64": Target(
        compiler="gcc",
        packages="gcc-12-multilib libc6-dev-i386",
        flags=(
            *("-O1", "-m32", "-D_TIME_BITS=64", "-D_FILE_OFFSET_BITS=64"),
            *KERNEL_HEADERS,
        ),
        processor="i686",
    ),
}


def chosen_targets(option: str) -> list[str]:
    """Return the names in a comma list; the empty name is this machine's compiler."""
    if not option:
        return [""]
    names = list(TARGETS) if option == "all" else option.split(",")
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        message = f"no target {unknown[0]!r}; there are {', '.join(TARGETS)}"
        raise argparse.ArgumentTypeError(message)
    return names
