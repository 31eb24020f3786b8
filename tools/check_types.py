"""Check what type checkers and editors see of the installed package.

    python tools/check_types.py

Three checks, all of which run; the exit code is 1 if one failed:

* every public name, and everything in it, has a type that is written down (pyright);
* a sample of what users write passes mypy and pyright, both strict;
* the stub of the C module says what the module has (stubtest).

The extra ``types`` brings the tools. The package has to be installed, not editable:
pyright does not find the files of an editable one.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TypedDict

import fdmux
import fdmux.aio
import fdmux.framing
import fdmux.hosts.asyncio
import fdmux.testing

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "tests" / "packaging" / "typed_sample.py"
ALLOWED = ROOT / "tools" / "stubtest_allowed.txt"
PUBLIC = (fdmux, fdmux.aio, fdmux.framing, fdmux.hosts.asyncio, fdmux.testing)


class Message(TypedDict):
    """One remark of pyright."""

    message: str


class Symbol(TypedDict):
    """What pyright knows of one name."""

    name: str
    isTypeKnown: bool
    isTypeAmbiguous: bool
    diagnostics: list[Message]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a tool in a folder outside of the sources, with this Python's packages."""
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)])
    tool = shutil.which(command[0], path=path)
    if tool is None:
        raise SystemExit(f"no {command[0]}: pip install '.[types]'")
    return subprocess.run(
        [tool, *command[1:]],
        cwd=folder,
        env={**os.environ, "PATH": path, "VIRTUAL_ENV": sys.prefix},
        capture_output=True,
        text=True,
        check=False,
    )


def public_prefixes() -> tuple[str, ...]:
    """Return where the public classes and functions are, as pyright names them."""
    objects = [getattr(module, name) for module in PUBLIC for name in module.__all__]
    return tuple(
        f"{each.__module__}.{each.__qualname__}"
        for each in objects
        if inspect.isclass(each) or inspect.isfunction(each)
    )


def unknown_types(folder: Path) -> list[str]:
    """Return the public names whose type is not known, or only guessed."""
    done = run(
        folder,
        "basedpyright",
        "--verifytypes",
        "fdmux",
        "--ignoreexternal",
        "--outputjson",
    )
    symbols: list[Symbol] = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    prefixes = public_prefixes()
    seen = [one for one in symbols if is_within(one["name"], prefixes)]
    if len(seen) < len(prefixes):
        return [f"pyright sees only {len(seen)} of the public names"]
    return [
        f"{one['name']}: {'; '.join(each['message'] for each in one['diagnostics'])}"
        for one in seen
        if not one["isTypeKnown"] or one["isTypeAmbiguous"]
    ]


def is_within(name: str, prefixes: tuple[str, ...]) -> bool:
    """Whether ``name`` is one of the prefixes, or something in it."""
    return any(name == one or name.startswith(f"{one}.") for one in prefixes)


def errors_in_sample(folder: Path) -> list[str]:
    """Return what the checkers say of the sample."""
    shutil.copy(SAMPLE, folder)
    settings = folder / "pyrightconfig.json"
    settings.write_text('{"typeCheckingMode": "strict"}', encoding="utf-8")
    found = []
    for command in (("mypy", "--strict"), ("basedpyright",)):
        done = run(folder, *command, SAMPLE.name)
        if done.returncode:
            found.append(done.stdout + done.stderr)
    return found


def errors_of_stub(folder: Path) -> list[str]:
    """Return how the stub differs from the module."""
    done = run(folder, "stubtest", "fdmux._delivery", "--allowlist", str(ALLOWED))
    return [done.stdout + done.stderr] if done.returncode else []


CHECKS = {
    "types of public names": unknown_types,
    "a sample, strict": errors_in_sample,
    "the stub of the C module": errors_of_stub,
}


def main() -> int:
    """Run the checks."""
    failed = 0
    for name, check in CHECKS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = check(Path(folder))
        mark = "FAILED  " if found else "ok      "
        print(f"{mark}{name}", *found, sep="\n", flush=True)
        failed += bool(found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
