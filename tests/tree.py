"""Where things lie in the source tree, whatever folder a test is in."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADERS = ROOT / "csrc" / "include"
