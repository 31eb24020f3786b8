"""Uses every part of the SDK, in the environment of the Python that runs this.

    python use_sdk.py FOLDER

Compiles in FOLDER three lines of C that need the headers, and three that need the
core, runs both, and prints as JSON where everything was. Its one rule: it finds the
files only through the functions and the command line of fdmux.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.resources
import json
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import fdmux

EXTENSION = """\
#include <Python.h>
#include <fdmux_python.h>
int has_imported(void) { return fdmux_import() == 0; }
"""
HOST = """\
#include <fdmux.h>
static struct fdmux_loop *loop;
int main(void) { return fdmux_loop_create(0, &loop) < 0 ? 1 : fdmux_loop_fd(loop) < 0; }
"""
PROJECT = """\
cmake_minimum_required(VERSION 3.20)
project(three_lines C)
find_package(fdmux ${WANTED} REQUIRED CONFIG)
add_executable(host host.c)
target_link_libraries(host PRIVATE fdmux::fdmux)
add_library(extension MODULE extension.c)
target_include_directories(extension PRIVATE ${PYTHON})
target_link_libraries(extension PRIVATE fdmux::headers)
"""
PYTHON = sysconfig.get_path("include")


def run(*command: str | Path, **variables: str) -> str:
    """Run a program; if it fails, exit with its output."""
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{command}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def ask(option: str) -> str:
    return run(sys.executable, "-m", "fdmux", option).rstrip("\n")


def places() -> dict[str, str]:
    """Ask for the folders in every way; all answers must be equal."""
    told = {name: ask(f"--{name}-dir") for name in ("include", "cmake", "pkgconfig")}
    assert told["include"] == fdmux.get_include()
    assert told["cmake"] == fdmux.get_cmake_dir()
    assert told["pkgconfig"] == fdmux.get_pkgconfig_dir()
    assert shlex.split(ask("--cflags")) == [f"-I{told['include']}"]
    (point,) = (
        point
        for point in importlib.metadata.entry_points(group="pkg_config")
        if point.name == "fdmux"
    )
    file = importlib.resources.files(point.value) / "fdmux.pc"
    assert Path(str(file)).samefile(Path(told["pkgconfig"], "fdmux.pc"))
    return told


def check_extension(library: Path) -> None:
    assert ctypes.PyDLL(str(library)).has_imported() == 1


def by_cflags(folder: Path) -> None:
    library = folder / "extension.so"
    flags = [*shlex.split(ask("--cflags")), f"-I{PYTHON}"]
    run("cc", "-shared", "-fPIC", *flags, folder / "extension.c", "-o", library)
    check_extension(library)


def by_pkgconfig(folder: Path) -> None:
    flags = run(
        *("pkg-config", "--cflags", "--libs", f"fdmux = {fdmux.__version__}"),
        PKG_CONFIG_PATH=ask("--pkgconfig-dir"),
    )
    run("cc", folder / "host.c", "-o", folder / "host", *shlex.split(flags))
    run(folder / "host")


def by_cmake(folder: Path) -> None:
    build = folder / "build"
    variables = {
        "fdmux_DIR": ask("--cmake-dir"),
        "PYTHON": PYTHON,
        "WANTED": fdmux.__version__,
    }
    given = [f"-D{name}={value}" for name, value in variables.items()]
    run("cmake", "-S", folder, "-B", build, *given)
    run("cmake", "--build", build)
    run(build / "host")
    check_extension(build / "libextension.so")


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {
        "extension.c": EXTENSION,
        "host.c": HOST,
        "CMakeLists.txt": PROJECT,
    }.items():
        (folder / name).write_text(text)
    told = places()
    by_cflags(folder)
    by_pkgconfig(folder)
    by_cmake(folder)
    sys.stdout.write(json.dumps({**told, "package": fdmux.__file__}))


if __name__ == "__main__":
    main()
