"""sensor_rust: the Python module for src/sensor.rs, with ctypes.

Its one rule: a Sensor keeps the capsule of its loop, and so the loop's memory, as long
as close() may be called.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import fdmux

COUNTS = ("bytes", "ticks", "samples", "total", "dropped")

# Each call through it releases the GIL.
_library = ctypes.CDLL(str(Path(__file__).with_name("libsensor.so")))
_library.sensor_start.argtypes = [
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_void_p),
]
_library.sensor_stop.argtypes = [ctypes.c_void_p]
_library.sensor_stop.restype = None
_library.sensor_release.argtypes = [ctypes.c_void_p]
_library.sensor_release.restype = None
_library.sensor_has_ended.argtypes = [ctypes.c_void_p]
_library.sensor_count.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
_library.sensor_count.restype = None

_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def attach(path: str, loop: object = None) -> Sensor:
    """Open a sensor in the loop of an object, or in the running loop."""
    return Sensor(path, fdmux.current() if loop is None else loop)


def live() -> int:
    """Count the sensors that are in memory."""
    return _library.sensor_live()


class Sensor:
    """A sensor in a loop; `attach` makes it."""

    def __init__(self, path: str, owner: object) -> None:
        self._sensor = ctypes.c_void_p()
        self._capsule = owner.__fdmux_loop__()
        result = _library.sensor_start(
            _get_pointer(self._capsule, b"fdmux.loop"),
            os.fsencode(path),
            self._sensor,
        )
        if result < 0:
            raise OSError(-result, os.strerror(-result), path)

    def __del__(self) -> None:
        if self._sensor:
            self.close()
            _library.sensor_release(self._sensor)

    def close(self) -> None:
        """End the sensor, not the loop. Idempotent."""
        _library.sensor_stop(self._sensor)

    def has_ended(self) -> bool:
        """Whether the descriptor is closed and the thread joined."""
        return bool(_library.sensor_has_ended(self._sensor))

    def counts(self) -> dict[str, int]:
        """Return what has happened so far."""
        values = (ctypes.c_uint64 * len(COUNTS))()
        _library.sensor_count(self._sensor, values)
        return dict(zip(COUNTS, values, strict=True))
