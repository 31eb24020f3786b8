"""The build backend of this package: uses the SDK, and packs what it said.

Run by pip in an environment of its own, which holds what pyproject.toml requires.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

METADATA = "Metadata-Version: 2.1\nName: isolated\nVersion: 1\n"
WHEEL = (
    "Wheel-Version: 1.0\nGenerator: backend\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
)


def build_wheel(
    wheel_directory: str, _settings: object = None, _metadata: object = None
) -> str:
    """Build it; the name is PEP 517's."""
    said = subprocess.run(
        [sys.executable, "use_sdk.py", "build"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    name = "isolated-1-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory, name), "w") as wheel:
        wheel.writestr("said.json", said.stdout)
        wheel.writestr("isolated-1.dist-info/METADATA", METADATA)
        wheel.writestr("isolated-1.dist-info/WHEEL", WHEEL)
        wheel.writestr("isolated-1.dist-info/RECORD", "")
    return name
