"""Compile and run C programs that embed the Python which runs the tests."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path


def shared_python() -> Path | None:
    """Find the libpython to link, or skip."""
    name = sysconfig.get_config_var("LDLIBRARY") or ""
    folder = Path(sysconfig.get_config_var("LIBDIR") or "/")
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    for path in (folder / name, folder / multiarch / name):
        if path.suffix == ".so" and path.exists():
            return path
    return None


def run(
    *command: str | Path, folder: Path, **variables: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run a program that finds this Python, this fdmux, and what is in ``folder``."""
    packages = [Path(folder_of("fdmux")).parent, Path(folder_of("cffi")).parent]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, [folder, *packages])),
        "PYTHONDONTWRITEBYTECODE": "1",
        **{name: str(value) for name, value in variables.items()},
    }
    return subprocess.run(
        list(map(str, command)),
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def home() -> str:
    """Return what tells an embedded Python where its library is: PYTHONHOME."""
    return f"{sys.base_prefix}:{sys.base_exec_prefix}"


def folder_of(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent)
