"""Compiles the C files of programs/native/ with the system's compiler.

Each is compiled once per content: the results lie under build/benchmarks/, which git
ignores, named after a hash of sources and command, so a changed source never runs an
old binary.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.availability import Unavailable

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "benchmarks" / "programs" / "native"
OUTPUT = ROOT / "build" / "benchmarks"
FLAGS = [
    "-O2",
    "-std=c11",
    "-D_GNU_SOURCE",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wshadow",
]
FLAGS += ["-Wconversion", "-Wmissing-prototypes"]


def compiler() -> str:
    """Return the C compiler's name: ``$CC``, or ``cc``."""
    name = os.environ.get("CC", "cc")
    if shutil.which(name) is None:
        raise Unavailable(f"there is no C compiler {name!r} (set CC to name one)")
    return name


def build(source: str, *extra: str) -> Path:
    """Compile a file of ``programs/native``; return the path of the binary.

    Files that are named by an absolute path may lie elsewhere.
    """
    command = [compiler(), *FLAGS, source, *extra]
    target = OUTPUT / f"{Path(source).stem}-{_content_hash(command)}"
    if not target.exists():
        OUTPUT.mkdir(parents=True, exist_ok=True)
        # Renamed into place, so that a run beside this one finds all of it or none.
        draft = target.with_suffix(f".{os.getpid()}")
        done = subprocess.run(
            [*command, "-o", str(draft)],
            cwd=NATIVE,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            first = done.stderr.strip().splitlines()[:1]
            raise Unavailable(f"{source} does not compile: {' '.join(first)}")
        draft.rename(target)
    return target


def _content_hash(command: list[str]) -> str:
    digest = hashlib.sha256(repr(command).encode())
    named = [path for path in map(Path, command) if path.is_absolute()]
    for path in [*sorted(NATIVE.glob("*.[ch]")), *filter(Path.is_file, named)]:
        digest.update(path.read_bytes())
    for header in sorted({it for path in named for it in path.parent.glob("*.h")}):
        digest.update(header.read_bytes())
    return digest.hexdigest()[:16]
