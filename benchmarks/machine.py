"""Describes what a result was measured on: hardware, kernel, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.build import ROOT

DISTRIBUTIONS = (
    *("fdmux", "cffi", "uvloop", "aiofastnet"),
    *("aiohttp", "uvicorn", "httptools", "websockets", "asyncpg", "redis"),
)


def describe_machine() -> dict[str, object]:
    """Return everything a reader needs to judge a figure."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _first_line("git", "rev-parse", "HEAD"),
        "has_local_changes": bool(_first_line("git", "status", "--porcelain")),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "compiler": _first_line(os.environ.get("CC", "cc"), "--version"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {name: _version(name) for name in DISTRIBUTIONS},
        "libuv": _first_line("pkg-config", "--modversion", "libuv"),
    }


def _first_line(*command: str) -> str | None:
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    lines = done.stdout.splitlines()
    return lines[0] if done.returncode == 0 and lines else None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()
