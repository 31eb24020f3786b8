"""fdmux: one I/O event core for Python and native code.

The C core waits, collects what is ready for Python, and calls native functions without
the GIL. One pollable descriptor stands for a whole loop, timers included.
"""

from fdmux import _native, aio, framing, hosts
from fdmux._delivery import Datagram
from fdmux._native import (
    ABI_VERSION,
    ForkedLoop,
    LoopClosed,
    NativeLoop,
    NotRegistered,
    Stats,
)
from fdmux.datagrams.endpoint import (
    DatagramEndpoint,
    DatagramHandler,
    DatagramStats,
)
from fdmux.datagrams.limits import DatagramLimits
from fdmux.hosts import Mounted, current, mount
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.loop.guest import Guest
from fdmux.native.queue import NativeQueue
from fdmux.observing import Observation, Observer, Report
from fdmux.pool.pool import ClientPool
from fdmux.sdk import __version__, get_cmake_dir, get_include, get_pkgconfig_dir
from fdmux.selector import EVENT_READ, EVENT_WRITE, Selector, SelectorKey
from fdmux.sockets.connect import connect_with_timeout
from fdmux.sockets.inherit import InheritedSocket, inherited_sockets
from fdmux.sockets.read import IncompleteReadError, ReadTimeoutError, read_with_timeout
from fdmux.sockets.wait import wait_readable, wait_writable
from fdmux.streams.client import add_stream, connect_stream
from fdmux.streams.echo import EchoServer
from fdmux.streams.frame_handler import FrameHandler, IncompleteFrameError
from fdmux.streams.framing import Delimited, FixedSize, LengthPrefixed
from fdmux.streams.limits import ServerLimits, StreamLimits
from fdmux.streams.listener import ServerStats
from fdmux.streams.receive_buffer import FrameTooLongError, ReceiveBuffer
from fdmux.streams.server import StreamServer
from fdmux.streams.stream import Stream, StreamHandler
from fdmux.streams.tls import StreamTls

# PyCapsule_Import("fdmux._C_API") in fdmux_python.h finds it under this name.
_C_API = _native.C_API
# fdmux_raise() in fdmux_python.h calls it.
_raise = _native.raise_error_of

__all__ = [
    "ABI_VERSION",
    "EVENT_READ",
    "EVENT_WRITE",
    "ClientPool",
    "Datagram",
    "DatagramEndpoint",
    "DatagramHandler",
    "DatagramLimits",
    "DatagramStats",
    "Delimited",
    "EchoServer",
    "FixedSize",
    "ForkedLoop",
    "FrameHandler",
    "FrameTooLongError",
    "Guest",
    "IncompleteFrameError",
    "IncompleteReadError",
    "InheritedSocket",
    "LengthPrefixed",
    "LoopClosed",
    "Mounted",
    "NativeLoop",
    "NativeQueue",
    "NotRegistered",
    "Observation",
    "Observer",
    "ReadTimeoutError",
    "ReceiveBuffer",
    "Report",
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
    "StreamTls",
    "__version__",
    "add_stream",
    "aio",
    "connect_stream",
    "connect_with_timeout",
    "current",
    "framing",
    "get_cmake_dir",
    "get_include",
    "get_pkgconfig_dir",
    "hosts",
    "inherited_sockets",
    "mount",
    "read_with_timeout",
    "wait_readable",
    "wait_writable",
]
