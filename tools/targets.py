"""The systems that this tree is compiled for with zig, on any Linux machine.

This list is the one place where they are named: `tools/cross.py` compiles for all that
say so, and `tools/wheels.py` builds a wheel for each that has a tag.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Target:
    """One system on one processor."""

    name: str  # zig's name for it
    system: str  # CMake's name
    processor: str  # CMake's name
    wheel: str = ""  # the platform tag of its wheel, without which it has none
    release: str = ""  # what zig adds: the oldest release of the system

    @property
    def zig(self) -> str:
        """What zig is told with -target."""
        return self.name + self.release


# CPython 3.11 and cffi need manylinux_2_17 at least. musl has kept its ABI since 1.2.
# macOS 11 is the first on arm64. zig needs a release of NetBSD: without one it links a
# kevent() that is newer than libc. tests/core/targets.py runs the C tests on Linux's.
ALL = (
    Target("x86_64-linux-gnu", "Linux", "x86_64", "manylinux_2_17_x86_64", ".2.17"),
    Target("aarch64-linux-gnu", "Linux", "aarch64", "manylinux_2_17_aarch64", ".2.17"),
    Target("x86_64-linux-musl", "Linux", "x86_64", "musllinux_1_2_x86_64"),
    Target("aarch64-linux-musl", "Linux", "aarch64", "musllinux_1_2_aarch64"),
    Target("x86_64-macos", "Darwin", "x86_64", "macosx_11_0_x86_64", ".11.0"),
    Target("aarch64-macos", "Darwin", "arm64", "macosx_11_0_arm64", ".11.0"),
    Target("x86_64-freebsd", "FreeBSD", "amd64"),
    Target("aarch64-freebsd", "FreeBSD", "aarch64"),
    Target("x86_64-openbsd", "OpenBSD", "amd64"),
    Target("x86_64-netbsd", "NetBSD", "amd64", release=".11.0"),
    Target("x86_64-windows-gnu", "Windows", "AMD64", "win_amd64"),
    Target("aarch64-windows-gnu", "Windows", "ARM64", "win_arm64"),
)
BY_NAME = {target.name: target for target in ALL}
