"""sensor_cffi: the Python module for src/sensor.c.

Its one rule: a Sensor keeps the capsule of its loop, and so the loop's memory, as long
as close() may be called.
"""

from __future__ import annotations

import ctypes
import os

import fdmux
from sensor_cffi._native import ffi, lib

# cffi cannot read capsules; ctypes.pythonapi can, and raises the exceptions of C.
_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def attach(path: str, loop: object = None) -> Sensor:
    """Open a sensor in the loop of an object, or in the running loop."""
    return Sensor(path, fdmux.current() if loop is None else loop)


def live() -> int:
    """Count the sensors that are in memory."""
    return lib.sensor_live()


class Sensor:
    """A sensor in a loop; `attach` makes it."""

    def __init__(self, path: str, owner: object) -> None:
        self._c_sensor = ffi.NULL
        self._capsule = owner.__fdmux_loop__()
        address = _get_pointer(self._capsule, b"fdmux.loop")
        created = ffi.new("struct sensor **")
        result = lib.sensor_start(
            ffi.cast("struct fdmux_loop_handle *", address), os.fsencode(path), created
        )
        if result < 0:
            raise OSError(-result, os.strerror(-result), path)
        self._c_sensor = created[0]

    def __del__(self) -> None:
        if self._c_sensor:
            self.close()
            lib.sensor_release(self._c_sensor)

    def close(self) -> None:
        """End the sensor, not the loop. Idempotent."""
        lib.sensor_stop(self._c_sensor)

    def has_ended(self) -> bool:
        """Whether the descriptor is closed and the thread joined."""
        return bool(lib.sensor_has_ended(self._c_sensor))

    def counts(self) -> dict[str, int]:
        """Return what has happened so far."""
        counts = lib.sensor_count(self._c_sensor)
        return {name: getattr(counts, name) for name in dir(counts)}
