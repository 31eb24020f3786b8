"""fdmux.h in ctypes: the structs, the function table, and the way to a loop.

It is written by hand, so `loop_of` compares what it can with the installed fdmux. Only
the used parts of the table have their types.
"""

from __future__ import annotations

import ctypes
import os

ABI = (1, 0)
READ = 0x01

IoFn = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p
)
TimerFn = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p
)
PostFn = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
DestroyedFn = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class IoOptions(ctypes.Structure):
    """struct fdmux_io_options."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("fd", ctypes.c_int),
        ("events", ctypes.c_uint32),
        ("fn", IoFn),
        ("userdata", ctypes.c_void_p),
        ("destroyed", DestroyedFn),
        ("tag", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


class TimerOptions(ctypes.Structure):
    """struct fdmux_timer_options."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("fn", TimerFn),
        ("userdata", ctypes.c_void_p),
        ("destroyed", DestroyedFn),
        ("tag", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


def _function(result: type, *arguments: type) -> type:
    """Type a member of the table; each takes the loop first. Releases the GIL."""
    return ctypes.CFUNCTYPE(result, ctypes.c_void_p, *arguments)


_Token = ctypes.POINTER(ctypes.c_uint64)
_Unused = ctypes.c_void_p


class Table(ctypes.Structure):
    """struct fdmux_api."""

    _fields_ = (
        ("abi_major", ctypes.c_uint32),
        ("abi_minor", ctypes.c_uint32),
        ("struct_size", ctypes.c_size_t),
        ("loop_create", _Unused),
        ("loop_destroy", _Unused),
        ("loop_ref", _Unused),
        ("loop_unref", _Unused),
        ("loop_at_close", _Unused),
        ("loop_fd", _Unused),
        ("loop_next_deadline", _Unused),
        ("loop_dispatch", _Unused),
        ("loop_run", _Unused),
        ("loop_stop", _Unused),
        ("loop_wake", _Unused),
        ("loop_now", _function(ctypes.c_int64)),
        ("loop_backend", _Unused),
        ("loop_stats", _Unused),
        ("loop_after_fork", _Unused),
        ("loop_hold", _Unused),
        ("loop_set_return", _Unused),
        ("io_add", _function(ctypes.c_int, ctypes.POINTER(IoOptions), _Token)),
        ("io_update", _Unused),
        ("io_replace_fd", _Unused),
        ("io_fd", _Unused),
        ("io_remove", _function(ctypes.c_int, ctypes.c_uint64)),
        ("timer_add", _function(ctypes.c_int, ctypes.POINTER(TimerOptions), _Token)),
        (
            "timer_arm",
            _function(ctypes.c_int, ctypes.c_uint64, ctypes.c_int64, ctypes.c_int64),
        ),
        ("timer_arm_in", _Unused),
        ("timer_cancel", _Unused),
        ("timer_remove", _function(ctypes.c_int, ctypes.c_uint64)),
        ("post", _function(ctypes.c_int, PostFn, ctypes.c_void_p)),
    )


class LoopHandle(ctypes.Structure):
    """struct fdmux_loop_handle: what a capsule named fdmux.loop points to."""

    _fields_ = (("api", ctypes.POINTER(Table)), ("loop", ctypes.c_void_p))


_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def loop_of(capsule: object) -> tuple[Table, int]:
    """Return the table and the loop that a capsule names; it keeps the loop alive.

    Raises:
        ImportError: The installed fdmux is older than this transcription.
    """
    ref = LoopHandle.from_address(_get_pointer(capsule, b"fdmux.loop"))
    table = ref.api.contents
    is_newer = table.abi_minor >= ABI[1] and table.struct_size >= ctypes.sizeof(Table)
    if table.abi_major != ABI[0] or not is_newer:
        raise ImportError(f"fdmux {table.abi_major}.{table.abi_minor} is not {ABI}")
    return table, ref.loop


def check(result: int, path: str) -> None:
    """Raise the OSError that a negative result stands for."""
    if result < 0:
        raise OSError(-result, os.strerror(-result), path)
