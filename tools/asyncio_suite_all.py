"""Run tools/asyncio_suite.py with both of our classes on every supported CPython.

    python tools/asyncio_suite_all.py                        # minutes for each CPython
    python tools/asyncio_suite_all.py --minors 3.12 --wheel dist/fdmux.whl

It looks for each CPython in pyenv and on the PATH, and makes a virtual environment in a
temporary folder, with fdmux from a wheel that it builds of this tree first. At the end
it prints the table of docs/testing.md. Exit status: 0 if no test differs and at least
one CPython was found, else 1.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINORS = ("3.11", "3.12", "3.13")
LOOPS = ("selector", "transports")
SUITE_SECONDS = 1800
INSTALL_SECONDS = 600
COUNTS = re.compile(r"^ours +(\d+) tests: .*\n(\d+) differ or broke off$", re.MULTILINE)


def find_python(minor: str) -> str | None:
    """Return the path of a CPython of that version that has the package `test`."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [str(path) for path in root.glob(f"versions/{minor}.*/bin/python")]
    on_path = shutil.which(f"python{minor}")
    candidates = [*sorted(found), *([on_path] if on_path else [])]
    return next((path for path in candidates if is_usable(path, minor)), None)


def is_usable(python: str, minor: str) -> bool:
    """Whether it is CPython of that version, with venv and the package `test`."""
    code = (
        "import sys, venv, ensurepip, test.test_asyncio;"
        "assert sys.implementation.name == 'cpython';"
        "print('%d.%d' % sys.version_info[:2])"
    )
    done = subprocess.run(
        [python, "-c", code], capture_output=True, check=False, text=True
    )
    return done.returncode == 0 and done.stdout.strip() == minor


def build_wheel(folder: Path) -> Path:
    """Build a wheel of this tree; with the stable ABI, one is enough for all."""
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
    subprocess.run([*pip, "-w", str(folder), str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


def prepare(python: str, wheel: Path, folder: Path) -> str:
    """Make a virtual environment with fdmux; return its interpreter."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    own = str(folder / "bin" / "python")
    subprocess.run(
        [own, "-m", "pip", "install", "-q", str(wheel)],
        check=True,
        timeout=INSTALL_SECONDS,
    )
    return own


def compare(python: str, loop: str, more: list[str]) -> tuple[int, int] | None:
    """Run the suite; return how many tests ran and differed; ``None``: it failed."""
    suite = str(ROOT / "tools" / "asyncio_suite.py")
    done = subprocess.run(
        [sys.executable, suite, "--python", python, "--loop", loop, *more],
        stdout=subprocess.PIPE,
        check=False,
        text=True,
        timeout=SUITE_SECONDS,
    )
    print(done.stdout, end="", flush=True)
    found = COUNTS.search(done.stdout)
    return (int(found[1]), int(found[2])) if found else None


def table(results: dict[str, dict[str, tuple[int, int] | None]]) -> list[str]:
    """Return the lines of the results, in Markdown."""
    head = "".join(f" tests with our {loop} | differ |" for loop in LOOPS)
    lines = [f"| CPython |{head}", "|---|" + "---|---|" * len(LOOPS)]
    for minor, found in results.items():
        cells = (f"{it[0]:,} | {it[1]:,}" if it else "? | ?" for it in found.values())
        lines.append(f"| {minor} | {' | '.join(cells)} |")
    return lines


def main() -> int:
    """Compare on every CPython, print the table, and return the exit status."""
    options = parse()
    more = ["--patterns", *options.patterns] if options.patterns else []
    more += ["--jobs", str(options.jobs)] if options.jobs else []
    results: dict[str, dict[str, tuple[int, int] | None]] = {}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        wheel = options.wheel or build_wheel(folder)
        for minor in options.minors:
            python = find_python(minor)
            if python is None:
                print(f"CPython {minor}: none found that has the package `test`")
                continue
            own = prepare(python, wheel, folder / minor)
            results[minor] = {}
            for loop in LOOPS:
                print(f"CPython {minor}, {loop}:", flush=True)
                results[minor][loop] = compare(own, loop, more)
    print("\n".join(table(results)))
    counts = [it for found in results.values() for it in found.values()]
    return 0 if counts and all(it and it[1] == 0 for it in counts) else 1


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minors",
        nargs="+",
        choices=MINORS,
        default=list(MINORS),
        help="which CPython",
    )
    parser.add_argument("--wheel", type=Path, help="instead of building this tree")
    parser.add_argument("--jobs", type=int, help="processes, as for asyncio_suite.py")
    parser.add_argument(
        "--patterns", nargs="*", default=[], metavar="P", help="only these modules"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
