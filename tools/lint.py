"""Run every static check, in one command.

    python tools/lint.py          check
    python tools/lint.py --fix    format first, and repair what ruff can repair

All tools come from the extra ``lint``, installed for the Python that runs this. Every
check runs, even if one before it failed; the exit code is 1 if any of them failed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
C_FOLDERS = ["csrc", "tests", "benchmarks", "examples"]
PYTHON_FOLDERS = ["python", "tests", "benchmarks", "examples", "tools", "csrc", "docs"]
# The flags of CMakeLists.txt, for C files that its plain build does not contain.
C_FLAGS = [
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wconversion",
    "-Wvla",
    "-Werror",
]
STRICT = ["-Wpedantic", "-Wmissing-prototypes"]
OTHER_FLAGS = {
    # PyType_Slot wants functions as void *.
    "csrc/python": [*C_FLAGS, "-Wmissing-prototypes"],
    "benchmarks": [*C_FLAGS, *STRICT, "-D_GNU_SOURCE"],
    # PyModuleDef_Slot wants functions as void *; no PyInit_ function has a prototype.
    "examples": C_FLAGS,
}
FILES = "FILES"  # see run_split
# Folders that tools have built, and released headers that must not change.
FROZEN_OR_BUILT = {"build", *(path.name for path in ROOT.glob("tests/abi/[0-9]*"))}
# Files that include one of these are skipped where it is not installed.
OPTIONAL_HEADERS = {
    "uv.h": "libuv",
    "openssl/ssl.h": "openssl",
    "ev.h": "libev",
    "event2/event.h": "libevent",
    "glib.h": "glib-2.0",
    "hiredis/async.h": "hiredis",
    "curl/curl.h": "libcurl",
    "ares.h": "libcares",
    "libpq-fe.h": "libpq",
}


class Checks:
    """Runs one check after another and remembers which ones failed."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self._path = os.pathsep.join(
            [sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]
        )

    def run(self, name: str, *command: str) -> bool:
        """Run a tool in the root of the project; print its output if it fails."""
        tool = shutil.which(command[0], path=self._path)
        if tool is None:
            print(f"FAILED  {name}: no {command[0]}; pip install '.[test,lint]'")
            self.failed.append(name)
            return False
        return self._report(name, [self._start(tool, *command[1:])])

    def run_split(self, name: str, sources: list[str], *command: str) -> None:
        """Run a tool on ``sources``, in as many processes as there are processors.

        In the command, the argument FILES stands for them.
        """
        tool = shutil.which(command[0], path=self._path)
        if tool is None:
            self.run(name, *command)  # says so
            return
        place = command.index(FILES)
        before, after = command[1:place], command[place + 1 :]
        count = os.cpu_count() or 1
        parts = [part for part in (sources[i::count] for i in range(count)) if part]
        if not parts:
            print(f"FAILED  {name}: no files")
            self.failed.append(name)
            return
        with concurrent.futures.ThreadPoolExecutor() as pool:
            done = pool.map(
                lambda part: self._start(tool, *before, *part, *after), parts
            )
        self._report(name, list(done))

    def _start(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [tool, *arguments],
            cwd=ROOT,
            env={**os.environ, "PATH": self._path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )

    def _report(
        self, name: str, all_done: list[subprocess.CompletedProcess[str]]
    ) -> bool:
        failed = [done for done in all_done if done.returncode != 0]
        if not failed:
            print(f"ok      {name}", flush=True)
            return True
        for done in failed:
            print(
                f"FAILED  {name}: exit code {done.returncode}\n{done.stdout}",
                flush=True,
            )
        self.failed.append(name)
        return False


def files_in(folders: list[str], *suffixes: str) -> list[str]:
    """List the sources below ``folders``, relative to the root, in a fixed order."""
    return sorted(
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and not FROZEN_OR_BUILT.intersection(path.parts)
    )


def check_python(checks: Checks, *, fix: bool) -> None:
    """Run ruff and mypy; their settings are in pyproject.toml."""
    folders = [name for name in PYTHON_FOLDERS if (ROOT / name).is_dir()]
    if fix:
        checks.run("ruff check --fix", "ruff", "check", "--fix", *folders)
        checks.run("ruff format", "ruff", "format", *folders)
    else:
        checks.run("ruff format", "ruff", "format", "--check", *folders)
        checks.run("ruff check", "ruff", "check", *folders)
    checks.run("mypy", "mypy")


def check_spelling(checks: Checks) -> None:
    """Run codespell on all sources and documents."""
    documents = sorted(path.name for path in ROOT.glob("*.md"))
    present = [name for name in PYTHON_FOLDERS if (ROOT / name).is_dir()]
    checks.run("codespell", "codespell", *documents, *present)


def check_workflows(checks: Checks) -> None:
    """Run zizmor, which asks no server; a source archive has no workflows."""
    if (ROOT / ".github").is_dir():
        checks.run("zizmor", "zizmor", "--offline", "--pedantic", ".github")


def check_c(checks: Checks, *, fix: bool) -> None:
    """Run clang-format on all C files, then the compiler and clang-tidy.

    The adapters are found where an installation has them: <fdmux/adapters/NAME.h>.
    """
    mode = ["-i"] if fix else ["--dry-run", "-Werror"]
    every_file = files_in(C_FOLDERS, ".c", ".h")
    checks.run("clang-format", "clang-format", *mode, *every_file)
    check_core(checks)
    with tempfile.TemporaryDirectory() as include:
        (Path(include) / "fdmux").symlink_to(ROOT / "csrc" / "include")
        for folder, flags in OTHER_FLAGS.items():
            check_others(checks, folder, [*flags, *include_flags(), f"-I{include}"])


def check_core(checks: Checks) -> None:
    """Build the core as a release, and as a test build with its C tests.

    The second build has every backend, and writes compile_commands.json, from which
    clang-tidy takes its flags. clang-tidy skips the tests: it counts each CHECK as a
    branch.
    """
    with tempfile.TemporaryDirectory() as build:
        for kind in ("OFF", "ON"):
            name = f"FDMUX_TESTING={kind}"
            options = [f"-D{name}", f"-DFDMUX_BUILD_TESTS={kind}", "-DFDMUX_WERROR=ON"]
            if kind == "ON":
                options.append("-DFDMUX_KQUEUE=model")
            if checks.run(f"configure, {name}", "cmake", "-S.", f"-B{build}", *options):
                checks.run(f"build, {name}", "cmake", "--build", build, "-j2")
        sources = compiled_sources(Path(build) / "compile_commands.json")
        tidy = ["clang-tidy", "--quiet", "-p", build, FILES]
        checks.run_split("clang-tidy core", sources, *tidy)


def compiled_sources(commands: Path) -> list[str]:
    """List the files below csrc/ that CMake compiles."""
    if not commands.exists():
        return []  # the failed configure is counted already
    text = commands.read_text(encoding="utf-8")
    return [name for name in files_in(["csrc"], ".c") if f'/{name}"' in text]


def has_headers(name: str, flags: list[str]) -> bool:
    """Return whether the libraries whose headers a file includes are installed."""
    text = (ROOT / name).read_text(encoding="utf-8")
    folders = ["/usr/include", *(flag.removeprefix("-isystem") for flag in flags)]
    return all(
        any(Path(folder, header).exists() for folder in folders)
        for header in OPTIONAL_HEADERS
        if f"#include <{header}>" in text
    )


def check_others(checks: Checks, folder: str, flags: list[str]) -> None:
    """Compile and clang-tidy C files that the plain CMake build does not contain."""
    sources = [name for name in files_in([folder], ".c") if has_headers(name, flags)]
    if sources:
        checks.run(f"compile {folder}", "gcc", "-fsyntax-only", *flags, *sources)
        tidy = ["clang-tidy", "--quiet", FILES, "--", *flags]
        checks.run_split(f"clang-tidy {folder}", sources, *tidy)


def include_flags() -> list[str]:
    """Return the options for every folder of headers: ours, Python's, libraries'."""
    headers = files_in(["csrc", "benchmarks", "examples"], ".h")
    folders = sorted({str(Path(header).parent) for header in headers})
    foreign = [sysconfig.get_path("include"), *library_folders()]
    return [
        *(f"-I{folder}" for folder in folders),
        *(f"-isystem{folder}" for folder in foreign),
    ]


def library_folders() -> list[str]:
    """Return the header folders of optional libraries outside /usr/include."""
    if shutil.which("pkg-config") is None:
        return []
    found: list[str] = []
    for library in OPTIONAL_HEADERS.values():
        asked = subprocess.run(
            ["pkg-config", "--cflags-only-I", library],
            capture_output=True,
            text=True,
            check=False,
        )
        found += [word.removeprefix("-I") for word in asked.stdout.split()]
    return found


def main() -> int:
    """Run all checks; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fix", action="store_true", help="format, and repair")
    fix: bool = parser.parse_args().fix
    checks = Checks()
    check_python(checks, fix=fix)
    check_spelling(checks)
    check_workflows(checks)
    check_c(checks, fix=fix)
    if checks.failed:
        print(f"lint: {len(checks.failed)} failed: {', '.join(checks.failed)}")
        return 1
    print("lint: all checks passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
