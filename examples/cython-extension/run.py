"""Run the scenario that every sensor must pass; exit 1 if it fails."""

import sys
from pathlib import Path

import sensor_cython

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sensor"))
import scenario  # shared with the other languages' examples

scenario.run(sensor_cython)
