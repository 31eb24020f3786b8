"""Start the suite from any directory: ``python benchmarks/run.py --help``."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

# Replaces benchmarks/ itself, whose module names must not shadow anything.
sys.path[0] = str(Path(__file__).resolve().parent.parent)
runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
