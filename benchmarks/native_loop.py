"""The addresses that native code gets for a loop of Python.

Takes the capsule apart as fdmux_python.h does.
"""

from __future__ import annotations

import ctypes
from typing import Protocol


class HasNativeLoop(Protocol):
    """A loop of fdmux, or what is mounted."""

    def __fdmux_loop__(self) -> object: ...


class Reference(ctypes.Structure):
    """``struct fdmux_loop_handle`` of fdmux_api.h."""

    _fields_ = (("api", ctypes.c_void_p), ("loop", ctypes.c_void_p))
    api: int
    loop: int


def reference(loop: HasNativeLoop) -> Reference:
    """Return the addresses of the function table and of the loop."""
    capsule = loop.__fdmux_loop__()
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    address: int = get_pointer(capsule, b"fdmux.loop")
    return Reference.from_buffer_copy(
        ctypes.string_at(address, ctypes.sizeof(Reference))
    )
