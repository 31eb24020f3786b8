"""Compile and link everything of this tree for another system, without that system.

    python tools/cross.py x86_64-macos aarch64-macos    some targets
    python tools/cross.py                             all systems but Linux
    python tools/cross.py --one-of-each               one processor a system, as CI does
    python tools/cross.py --to DIR x86_64-openbsd         keep what was built

The compiler is zig's, from PyPI (``pip install ziglang``), with the headers and the
libraries of each system in it. The core, the C tests and the modules for Python are
compiled with warnings as errors, and linked; nothing is run. `compile_for` is the same
for other tools.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.targets import ALL, BY_NAME, Target  # noqa: E402 - after the change of sys.path
from tools.windows_python import write_root  # noqa: E402 - after the change of sys.path

OTHERS = tuple(target.name for target in ALL if target.system != "Linux")
# The first of each Unix. Its other processors have the same headers and libraries.
ONE_OF_EACH = tuple(
    {
        BY_NAME[name].system: name
        for name in OTHERS[::-1]
        if BY_NAME[name].system != "Windows"  # tools/wine_python.py builds for it
    }.values()
)
# The headers of Python are those of this machine, whose pyconfig.h hides from OpenBSD's
# libc what POSIX does not have.
FLAGS = {"OpenBSD": "-D_BSD_SOURCE"}
TOOLS = {"CC": "cc", "AR": "ar", "RANLIB": "ranlib"}
# zig's linker crashes on -bundle; Python loads a dynamic library just as well.
SCRIPT = """\
#!/bin/sh
for word; do
    shift
    test "$word" = -bundle && word=-shared
    set -- "$@" "$word"
done
exec {zig} {name} {options} "$@"
"""


class CrossError(Exception):
    """What a tool printed when it failed."""


@dataclasses.dataclass(frozen=True)
class Built:
    """What was built for one target."""

    target: str
    seconds: float
    programs: int  # C tests that were linked
    modules: int  # extension modules for Python that were linked


def find_zig() -> Path | None:
    """Find the compiler, if it is installed for the Python that runs this."""
    package = importlib.util.find_spec("ziglang")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).with_name("zig")


def write_tools(target: str, folder: Path) -> dict[str, Path]:
    """Write a program for each tool of `TOOLS`, as CMake wants them: one word each."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for variable, name in TOOLS.items():
        path = folder / name
        options = f"-target {BY_NAME[target].zig}" if name == "cc" else ""
        path.write_text(SCRIPT.format(zig=find_zig(), name=name, options=options))
        path.chmod(0o755)
        written[variable] = path
    return written


def settings(target: str, folder: Path) -> dict[str, str]:
    """Return the variables of CMake for a target; the tools are written to `folder`."""
    tools = write_tools(target, folder)
    return python_settings(BY_NAME[target], folder) | {
        "CMAKE_SYSTEM_NAME": BY_NAME[target].system,
        "CMAKE_SYSTEM_PROCESSOR": BY_NAME[target].processor,
        "CMAKE_C_COMPILER": str(tools["CC"]),
        "CMAKE_C_FLAGS": FLAGS.get(BY_NAME[target].system, ""),
        "CMAKE_AR": str(tools["AR"]),
        "CMAKE_RANLIB": str(tools["RANLIB"]),
        # What CMake looks for on a Mac, and what is not needed to link there.
        "CMAKE_INSTALL_NAME_TOOL": shutil.which("true") or "true",
        "CMAKE_OSX_SYSROOT": "",
        "CMAKE_OSX_DEPLOYMENT_TARGET": "",
        "CMAKE_OSX_ARCHITECTURES": "",
        # That of this machine is of no use: the tests of TLS are left out.
        "CMAKE_DISABLE_FIND_PACKAGE_OpenSSL": "ON",
        # CMake asks for it before it runs the Python that writes a C source.
        "CMAKE_CROSSCOMPILING_EMULATOR": shutil.which("env") or "env",
    }


def python_settings(target: Target, folder: Path) -> dict[str, str]:
    """Return the variables that tell CMake of Python.

    The modules use the limited API, whose headers are the same everywhere but on
    Windows, where an import library is needed, too.
    """
    zig = find_zig()
    if target.system == "Windows" and zig is not None:
        root = write_root(folder, target.processor, zig)
        return {"FDMUX_PYTHON_ROOT": str(root), "FDMUX_BUILD_PYTHON": sys.executable}
    return {
        "SKBUILD_SABI_COMPONENT": "Development.SABIModule",
        "SKBUILD_SABI_VERSION": "3.11",
        "Python_EXECUTABLE": sys.executable,
        "Python_INCLUDE_DIR": sysconfig.get_path("include"),
        "Python_LIBRARY": "",
    }


def run(*command: str | Path) -> str:
    """Run a tool; return what it printed."""
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)])
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )
    if done.returncode != 0:
        raise CrossError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def compile_for(target: str, folder: Path, **options: str) -> Built:
    """Build the core, the C tests and the modules for Python into ``folder``.

    Args:
        target: A name of `tools/targets.py`.
        folder: Where to; what is there already is built again only if it is older.
        options: More variables for CMake, which replace those of this file.

    Raises:
        CrossError: With what the compiler said.
    """
    begun = time.monotonic()
    variables = {
        **settings(target, folder / "tools"),
        # tools/wine.py compiles those for Windows.
        "FDMUX_BUILD_TESTS": "OFF" if BY_NAME[target].system == "Windows" else "ON",
        "FDMUX_PYTHON": "ON",
        "FDMUX_TESTING": "ON",
        "FDMUX_WERROR": "ON",
        **options,
    }
    defined = [f"-D{name}={value}" for name, value in variables.items()]
    run("cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *defined)
    run("cmake", "--build", folder)
    programs = [
        path for path in (folder / "tests" / "core").glob("test_*") if path.is_file()
    ]
    built = (folder / "csrc" / "python").glob("_*")
    modules = [path for path in built if path.suffix in {".so", ".pyd"}]
    return Built(target, time.monotonic() - begun, len(programs), len(modules))


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(BY_NAME))
    parser.add_argument("--one-of-each", action="store_true", help="a few of them")
    parser.add_argument("--to", type=Path, help="a folder for what is built")
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - BY_NAME.keys()
    if unknown or find_zig() is None:
        parser.error(f"unknown: {unknown}" if unknown else "needs ziglang, of PyPI")
    chosen = ONE_OF_EACH if arguments.one_of_each else OTHERS
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for target in arguments.targets or chosen:
            folder = (arguments.to or Path(temporary)) / target
            try:
                built = compile_for(target, folder)
            except CrossError as error:
                failed += 1
                print(f"{target}: FAILED\n{error}")
            else:
                what = f"{built.programs} C tests, {built.modules} modules"
                print(f"{target}: ok, {what}, {built.seconds:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
