"""fdmux: one I/O event core for Python and native code.

The C core collects readiness for Python and calls native functions without the GIL; one
pollable descriptor stands for a whole loop, timers included; Python pays per batch.
"""

from fdmux._native import (
    ABI_VERSION,
    C_API,
    ForkedLoop,
    LoopClosed,
    NativeLoop,
    Stats,
)
from fdmux.connect import connect_with_timeout
from fdmux.current import current
from fdmux.echo import EchoServer
from fdmux.framing import (
    Delimited,
    FixedSize,
    FrameHandler,
    FrameTooLongError,
    IncompleteFrameError,
    LengthPrefixed,
    ReceiveBuffer,
)
from fdmux.guest import Guest
from fdmux.hosts import Mounted, mount
from fdmux.limits import ServerLimits, StreamLimits
from fdmux.listener import ServerStats
from fdmux.loop import SelectorEventLoop
from fdmux.native_queue import NativeQueue
from fdmux.pool import ClientPool
from fdmux.read import IncompleteReadError, ReadTimeoutError, read_with_timeout
from fdmux.sdk import __version__, get_cmake_dir, get_include, get_pkgconfig_dir
from fdmux.selector import EVENT_READ, EVENT_WRITE, Selector, SelectorKey
from fdmux.stream import Stream, StreamHandler, add_stream, connect_stream
from fdmux.stream_server import StreamServer
from fdmux.wait import wait_readable, wait_writable

# PyCapsule_Import("fdmux._C_API") in fdmux_python.h finds it under this name.
_C_API = C_API

__all__ = [
    "ABI_VERSION",
    "EVENT_READ",
    "EVENT_WRITE",
    "ClientPool",
    "Delimited",
    "EchoServer",
    "FixedSize",
    "ForkedLoop",
    "FrameHandler",
    "FrameTooLongError",
    "Guest",
    "IncompleteFrameError",
    "IncompleteReadError",
    "LengthPrefixed",
    "LoopClosed",
    "Mounted",
    "NativeLoop",
    "NativeQueue",
    "ReadTimeoutError",
    "ReceiveBuffer",
    "Selector",
    "SelectorEventLoop",
    "SelectorKey",
    "ServerLimits",
    "ServerStats",
    "Stats",
    "Stream",
    "StreamHandler",
    "StreamLimits",
    "StreamServer",
    "__version__",
    "add_stream",
    "connect_stream",
    "connect_with_timeout",
    "current",
    "get_cmake_dir",
    "get_include",
    "get_pkgconfig_dir",
    "mount",
    "read_with_timeout",
    "wait_readable",
    "wait_writable",
]
