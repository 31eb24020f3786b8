"""The drivers, compiled: an extension per library, and a C program without Python.

Its one rule: nothing is built from the source tree that a user would have from the
wheel; only the core of the C program is, to have its sanitizers.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.adapters.servers import MissingError
from tests.compiled import include_dir
from tests.tree import ROOT

HERE = Path(__file__).parent
DRIVERS = HERE / "drivers"
SANITIZERS = "address,undefined"

# Each library's pkg-config name, and its package in Debian.
LIBRARIES = {
    "hiredis": ("hiredis", "libhiredis-dev"),
    "curl": ("libcurl", "libcurl4-openssl-dev"),
    "libpq": ("libpq", "libpq-dev"),
    "cares": ("libcares", "libc-ares-dev"),
    "zmq": ("libzmq", "libzmq3-dev"),
    "mosquitto": ("libmosquitto", "libmosquitto-dev"),
    "dbus": ("dbus-1", "libdbus-1-dev"),
    "sdbus": ("libsystemd", "libsystemd-dev"),
    "pulse": ("libpulse", "libpulse-dev"),
}


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def flags_of(*libraries: str) -> list[str]:
    """Return the flags that compile and link libraries.

    Raises:
        MissingError: One is not installed.
    """
    if shutil.which("cc") is None or shutil.which("pkg-config") is None:
        raise MissingError("needs cc and pkg-config (Debian: gcc, pkg-config)")
    flags: list[str] = []
    for name in libraries:
        module, package = LIBRARIES[name]
        asked = ["pkg-config", "--cflags", "--libs", module]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise MissingError(f"needs {module} (Debian: {package})")
        flags += done.stdout.split()
        if name == "sdbus":
            told = run("pkg-config", "--modversion", module).strip()
            flags.append(f'-DSDBUS_VERSION="{told}"')
    return flags


def sources_of(*libraries: str) -> list[str]:
    names = ["trial", *(f"drive_{library}" for library in libraries)]
    return [str(DRIVERS / f"{name}.c") for name in names]


def compile_command(include: str) -> list[str]:
    command = ["cc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]
    return [*command, "-pthread", f"-I{include}"]


def build_module(library: str, folder: Path) -> None:
    """Build the extension ``driver_<library>``, for every Python from 3.11 on."""
    flags = flags_of(library)
    name = f"driver_{library}"
    command = [*compile_command(include_dir()), "-shared", "-fPIC"]
    command += ["-fvisibility=hidden", "-DDRIVER_PYTHON", "-DFDMUX_TABLE_EXTERN"]
    command += ["-DPy_LIMITED_API=0x030B0000", f"-I{sysconfig.get_path('include')}"]
    command += [f"-DLIBRARY=library_{library}", f"-DMODULE={name}"]
    objects: list[str] = []
    for source in [*sources_of(library), str(DRIVERS / "module.c")]:
        objects.append(str(folder / f"{library}_{Path(source).stem}.o"))
        extra = ["-UFDMUX_TABLE_EXTERN"] if source.endswith("module.c") else []
        run(*command, *extra, "-c", source, "-o", objects[-1], *flags)
    run(*command, *objects, "-o", str(folder / f"{name}.abi3.so"), *flags)


def build_core(folder: Path) -> Path:
    """Build the core with sanitizers and faults; return the prefix of its install."""
    cmake = shutil.which("cmake") or str(Path(sys.executable).with_name("cmake"))
    build, prefix = folder / "core", folder / "prefix"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    run(
        *(cmake, "-S", str(ROOT), "-B", str(build), *generator),
        *(f"-DFDMUX_SANITIZE={SANITIZERS}", "-DFDMUX_TESTING=ON"),
        f"-DCMAKE_INSTALL_PREFIX={prefix}",
    )
    run(cmake, "--build", str(build), "--parallel", "2")
    run(cmake, "--install", str(build))
    return prefix


def build_plain(libraries: tuple[str, ...], prefix: Path, folder: Path) -> Path:
    """Build the C program with the drivers of ``libraries``."""
    target = folder / f"plain_{'_'.join(libraries)}"
    listed = " ".join(f"X({library})" for library in libraries)
    command = [*compile_command(str(prefix / "include")), f"-fsanitize={SANITIZERS}"]
    command += ["-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    command += ["-DFDMUX_TESTING", f"-DLIBRARIES={listed}", *sources_of(*libraries)]
    command += [str(DRIVERS / "plain.c"), "-o", str(target), f"-L{prefix / 'lib'}"]
    run(*command, "-lfdmux", *flags_of(*libraries))
    return target


def build_alone(source: Path, library: str, prefix: Path, folder: Path) -> Path:
    """Build one C file that includes one adapter, with the sanitizers."""
    target = folder / source.stem
    command = [*compile_command(str(prefix / "include")), f"-fsanitize={SANITIZERS}"]
    command += ["-fno-sanitize-recover=all", "-fno-omit-frame-pointer", str(source)]
    command += ["-o", str(target), f"-L{prefix / 'lib'}", "-lfdmux"]
    run(*command, *flags_of(library))
    return target


def build_zmq_peer(folder: Path) -> Path:
    target = folder / "zmq_peer"
    run("cc", str(HERE / "zmq_peer.c"), "-o", str(target), *flags_of("zmq"))
    return target
