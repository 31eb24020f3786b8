"""Every check of a wheel and of a source archive before a release.

    python tools/audit_wheel.py dist/*.whl dist/*.tar.gz
    python tools/audit_wheel.py --repair-to DIR dist/*.whl    keep the repaired wheel

All tools come from the extra ``audit``, installed for the Python that runs this. Every
check runs, even if one before it failed; the exit code is 1 if any of them failed. The
wheel must need only libraries of the system: repairing it may change its platform tag,
to the oldest manylinux that the symbols it needs allow, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ABI3 = "-abi3-"
POLICY = re.compile(r'platform tag:\s+"((?:many|musl)linux_\w+)"')
SHOWN = (".so", ".a", ".h")  # the sizes of these are printed one by one


class Audit:
    """Runs one check after another and remembers which ones failed."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self._path = os.pathsep.join(
            [sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]
        )

    def run(self, *command: str | Path) -> str:
        """Run a tool; return its output if it succeeded, otherwise an empty string."""
        name = " ".join(map(str, command[:2]))
        tool = shutil.which(command[0], path=self._path)
        if tool is None:
            self.tell(name, f"no {command[0]}; pip install '.[audit]'", ok=False)
            return ""
        done = subprocess.run(
            [tool, *map(str, command[1:])],
            env={**os.environ, "PATH": self._path, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        is_ok = done.returncode == 0
        self.tell(name, "" if is_ok else done.stdout, ok=is_ok)
        return done.stdout if is_ok else ""

    def tell(self, name: str, text: str, *, ok: bool) -> None:
        """Print and record the result of a check."""
        print(f"{'ok     ' if ok else 'FAILED '} {name}", flush=True)
        if not ok:
            print(text)
            self.failed.append(name)


def check_wheel(audit: Audit, wheel: Path, kept: Path | None) -> str:
    """Check one wheel; return its manylinux or musllinux policy."""
    audit.run("check-wheel-contents", wheel)
    if ABI3 in wheel.name:
        audit.run("abi3audit", "--strict", wheel)
    found = POLICY.search(audit.run("auditwheel", "show", wheel))
    policy = found[1] if found else ""
    audit.tell("portable", f"{wheel.name} fits no manylinux policy", ok=bool(policy))
    with tempfile.TemporaryDirectory() as folder:
        if audit.run("auditwheel", "repair", "--wheel-dir", folder, wheel):
            (repaired,) = Path(folder).iterdir()
            check_repaired(audit, wheel, repaired)
            if kept is not None:
                kept.mkdir(parents=True, exist_ok=True)
                shutil.copy(repaired, kept)
    return policy


def check_repaired(audit: Audit, wheel: Path, repaired: Path) -> None:
    """Check that the repair has added no file, such as a copy of a library."""
    before, after = set(contents(wheel)), set(contents(repaired))
    files = {name for name in after - before if not name.endswith("/")}
    added = sorted(name for name in files if "/sboms/" not in name)
    audit.tell("repair adds nothing", f"it added {added}", ok=not added)


def contents(wheel: Path) -> dict[str, int]:
    """Return the size of each file in the wheel, in bytes."""
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.file_size for info in archive.infolist()}


def sizes(wheel: Path) -> str:
    """Return the sizes of the wheel and of its large files, as one line."""
    files = contents(wheel)
    unpacked = sum(files.values())
    parts = [f"{wheel.stat().st_size:,} bytes", f"unpacked {unpacked:,}"]
    parts += [
        f"{name.rpartition('/')[2]} {size:,}"
        for name, size in sorted(files.items())
        if name.endswith(SHOWN)
    ]
    return ", ".join(parts)


def main() -> int:
    """Check the files of the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repair-to", type=Path, metavar="DIR", help="keep it there")
    parser.add_argument("files", type=Path, nargs="+", help="wheels, source archives")
    arguments = parser.parse_args()
    files: list[Path] = arguments.files
    kept: Path | None = arguments.repair_to
    audit = Audit()
    audit.run("twine", "check", "--strict", *files)
    policies = set()
    for wheel in (file for file in files if file.suffix == ".whl"):
        policies.add(check_wheel(audit, wheel, kept))
        print(f"size    {sizes(wheel)}")
    if audit.failed:
        print(f"audit: {len(audit.failed)} failed: {', '.join(audit.failed)}")
        return 1
    print(f"audit: all checks passed; {', '.join(sorted(policies)) or 'no wheel'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
