"""Build the wheels of every system on one Linux machine; check them, try them.

    python tools/wheels.py                         all, into dist/
    python tools/wheels.py --to DIR x86_64-linux-gnu aarch64-macos

Everything comes from the extra ``wheels``, installed for the Python that runs this. The
compiler is zig's, with the targets of `tools/targets.py`. Each wheel is checked by
`tools/wheel_checks.py`; one for this machine is also installed for every CPython found
that it is for, and runs the demo.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import cross, wheel_checks  # noqa: E402 - after the change of sys.path
from tools.targets import BY_NAME, Target  # noqa: E402 - after the change of sys.path

MINORS = (11, 12, 13, 14, 15)
DEMO_SECONDS = 120
# scikit-build-core knows the Python; there is no TLS to link, nor a test to build.
OWN_SETTINGS = ("Python_", "SKBUILD_", "CMAKE_DISABLE_FIND_PACKAGE_")


class WheelError(Exception):
    """What a tool printed when it failed."""


def run(*command: str | Path, **variables: str) -> str:
    """Run a tool in the root of the project; return what it printed."""
    path = os.pathsep.join(
        [sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]
    )
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, "PATH": path, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise WheelError(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def build(target: Target, folder: Path, to: Path) -> Path:
    """Build the wheel of one target into ``to``."""
    settings = {
        name: value
        for name, value in cross.settings(target.name, folder / "tools").items()
        if not name.startswith(OWN_SETTINGS)
    }
    # A system's own strip knows no other's files; the linker leaves symbols out itself.
    settings |= {"CMAKE_C_FLAGS": "-g0", "CMAKE_MODULE_LINKER_FLAGS": "-s"}
    settings["FDMUX_WERROR"] = "ON"
    defines = [f"-Ccmake.define.{name}={value}" for name, value in settings.items()]
    made = folder / "wheel"
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
        *(f"--outdir={made}", "-Cinstall.strip=false"),
        *(f"-Cbuild-dir={folder / 'build'}", *defines, str(ROOT)),
        _PYTHON_HOST_PLATFORM=target.wheel,  # becomes the tag
    )
    (wheel,) = made.glob("*.whl")
    to.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(wheel, to))


def runs_here(target: Target) -> bool:
    """Whether this machine's interpreters load a wheel of the target."""
    is_glibc = platform.libc_ver()[0] == "glibc"
    libc = "-gnu" if is_glibc else "-musl"
    return target.processor == platform.machine() and target.name.endswith(libc)


def interpreters() -> list[str]:
    """Find a CPython of each minor version: this one, pyenv's, those on the PATH."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [sys.executable]
    for minor in MINORS:
        if minor == sys.version_info.minor:
            continue
        named = shutil.which(f"python3.{minor}")
        tried = [
            *map(str, root.glob(f"3.{minor}.*/bin/python")),
            *([named] if named else []),
        ]
        found += [name for name in tried if is_minor(name, minor)][:1]
    return found


def is_minor(python: str, minor: int) -> bool:
    """Whether it starts, is of this version, and can make an environment."""
    code = f"import ensurepip, sys, venv; sys.exit(sys.version_info[1] != {minor})"
    done = subprocess.run([python, "-c", code], capture_output=True, check=False)
    return done.returncode == 0


def try_out(wheel: Path, python: str, folder: Path) -> str:
    """Install the wheel for ``python``, run the demo; return its last line."""
    run(python, "-m", "venv", folder)
    pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet")
    run(*pip, "--disable-pip-version-check", "--only-binary=:all:", wheel)
    printed = run("timeout", str(DEMO_SECONDS), folder / "bin" / "fdmux", "demo")
    version = run(folder / "bin" / "python", "--version").strip()
    return f"{version}: {printed.strip().splitlines()[-1]}"


def make(target: Target, folder: Path, to: Path) -> None:
    """Build, check and try one wheel; print what was found out."""
    wheel = build(target, folder, to)
    print(f"{wheel.name}\n    {wheel.stat().st_size:,} bytes", flush=True)
    for line in wheel_checks.check(wheel, target):
        print(f"    {line}", flush=True)
    if not runs_here(target):
        print("    not run: no interpreter for it here", flush=True)
        return
    for number, python in enumerate(interpreters()):
        print(f"    {try_out(wheel, python, folder / f'env{number}')}", flush=True)


def main() -> int:
    """Do what the command line says."""
    with_wheel = [name for name, target in BY_NAME.items() if target.wheel]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=", ".join(with_wheel)
    )
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="dist/")
    arguments = parser.parse_args()
    names: list[str] = arguments.targets or with_wheel
    to: Path = arguments.to
    unknown = set(names) - set(with_wheel)
    if unknown:
        parser.error(f"no wheel for {', '.join(sorted(unknown))}")
    failed = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in names:
            try:
                make(BY_NAME[name], Path(temporary, name), to.resolve())
            except (WheelError, wheel_checks.CheckError) as error:
                failed.append(name)
                print(f"FAILED  {name}: {error}", flush=True)
    what = f"failed: {', '.join(failed)}" if failed else "all checks passed"
    print(f"wheels: {len(names) - len(failed)} of {len(names)}; {what}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
