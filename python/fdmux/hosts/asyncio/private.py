"""The private names of asyncio that our loop and transports use, with their types.

Its one rule: every private name that they use is declared here. All are the same in
Python 3.11 to 3.13. Where one is missing, `HAS_TRANSPORTS` is false, and `EventLoop`
has asyncio's own transports; importing this never fails because of it.

`HAS_ITERATION` says whether C runs the loop. It does not in an interpreter other than
the main one, nor where asyncio's handles lack the slots that C expects, or a name is
missing that tells what a callback has raised. Then `LoopBase`
is empty: handles, timers, iteration and transports are asyncio's own, on our selector.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import inspect
from asyncio import (
    base_events,
    constants,
    format_helpers,
    selector_events,
    sslproto,
    transports,
)
from typing import TYPE_CHECKING

from fdmux import _delivery

if TYPE_CHECKING:
    import selectors
    import socket
    import ssl
    import weakref
    from collections.abc import Callable, Sized
    from typing import IO, TypeVar

    from fdmux.selector import Pair

    ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)

    class Server(asyncio.Server):
        """A server, which counts its transports; since 3.13 it holds them in a set."""

        _clients: weakref.WeakSet[asyncio.Transport]

        def _attach(self, *transport: object) -> None: ...
        def _detach(self, *transport: object) -> None: ...
        def _start_serving(self) -> None: ...

    class Transports(weakref.WeakValueDictionary[int, asyncio.Transport]):
        """The transports of a loop, with the dictionary inside."""

        data: dict[int, weakref.ref[asyncio.Transport]]

    class SelectorEventLoop(asyncio.SelectorEventLoop):
        """The loop of asyncio on a selector, and its methods that make transports."""

        _debug: bool
        _selector: selectors.BaseSelector | None
        _task_factory: object
        _transports: Transports
        _ready: object
        _scheduled: object
        _ssock: socket.socket
        _csock: socket.socket
        _stopping: bool
        _current_handle: asyncio.Handle | None
        _delivery: _delivery.Delivery | None

        def _run_once(self) -> None: ...
        def _accept_connection(
            self,
            protocol_factory: Callable[[], asyncio.BaseProtocol],
            sock: socket.socket,
            sslcontext: ssl.SSLContext | None = None,
            server: Server | None = None,
            backlog: int = 100,
            *timeouts: float | None,
            **more: object,
        ) -> None: ...
        def _process_events(self, event_list: list[Pair]) -> None: ...  # type: ignore[explicit-any] # SelectorKey.data
        def _check_closed(self) -> None: ...
        def _check_running(self) -> None: ...
        def _remove_writer(self, fd: int) -> bool: ...

        async def create_server(
            self,
            protocol_factory: Callable[[], asyncio.BaseProtocol],
            *address: object,
            start_serving: bool = True,
            **options: object,
        ) -> Server:
            """Listen."""

        async def create_unix_server(
            self,
            protocol_factory: Callable[[], asyncio.BaseProtocol],
            *path: object,
            start_serving: bool = True,
            **options: object,
        ) -> Server:
            """Listen."""

        async def create_connection(
            self,
            protocol_factory: Callable[[], ProtocolT],
            *address: object,
            sock: socket.socket | None = None,
            **options: object,
        ) -> tuple[asyncio.Transport, ProtocolT]:
            """Connect."""

        async def create_unix_connection(
            self,
            protocol_factory: Callable[[], ProtocolT],
            *path: object,
            sock: socket.socket | None = None,
            **options: object,
        ) -> tuple[asyncio.Transport, ProtocolT]:
            """Connect."""

        async def connect_accepted_socket(
            self,
            protocol_factory: Callable[[], ProtocolT],
            sock: socket.socket,
            **options: object,
        ) -> tuple[asyncio.Transport, ProtocolT]:
            """Make a transport of a connected socket."""

        async def _sendfile_native(
            self, transp: asyncio.Transport, file: IO[bytes], offset: int, count: int
        ) -> int: ...

        async def start_tls(  # noqa: PLR0913 - as asyncio has it
            self,
            transport: asyncio.BaseTransport,
            protocol: asyncio.BaseProtocol,
            sslcontext: ssl.SSLContext,
            *,
            server_side: bool = False,
            server_hostname: str | None = None,
            ssl_handshake_timeout: float | None = None,
            ssl_shutdown_timeout: float | None = None,
            **more: object,
        ) -> asyncio.Transport | None:
            """Encrypt a connection from now on."""

        def _make_ssl_transport(  # noqa: PLR0913 - as asyncio has it
            self,
            rawsock: socket.socket,
            protocol: asyncio.BaseProtocol,
            sslcontext: ssl.SSLContext | None,
            waiter: asyncio.Future[None] | None = None,
            *,
            server_side: bool = False,
            server_hostname: str | None = None,
            extra: dict[str, object] | None = None,
            server: Server | None = None,
            ssl_handshake_timeout: float | None = None,
            ssl_shutdown_timeout: float | None = None,
            **more: object,
        ) -> asyncio.Transport: ...
        async def _sendfile_fallback(
            self,
            transp: asyncio.Transport,
            file: IO[bytes],
            offset: int,
            count: int | None,
        ) -> int: ...
        def _ensure_fd_no_transport(self, fd: socket.socket) -> None: ...
        def _make_socket_transport(
            self,
            sock: socket.socket,
            protocol: asyncio.BaseProtocol,
            waiter: asyncio.Future[None] | None = None,
            *,
            extra: dict[str, object] | None = None,
            server: Server | None = None,
            **more: object,
        ) -> asyncio.Transport: ...

        def _make_datagram_transport(
            self,
            sock: socket.socket,
            protocol: asyncio.DatagramProtocol,
            address: object = None,
            waiter: asyncio.Future[None] | None = None,
            extra: dict[str, object] | None = None,
        ) -> asyncio.DatagramTransport: ...

    class DatagramTransportBase(asyncio.DatagramTransport):
        """asyncio's own transport of datagrams."""

        max_size: int
        _address: object
        _buffer: Sized
        _closing: bool
        _conn_lost: int
        _extra: dict[str, object]
        _high_water: int
        _loop: SelectorEventLoop
        _low_water: int
        _protocol: asyncio.DatagramProtocol
        _protocol_paused: bool
        _sock: socket.socket | None
        _sock_fd: int

        def __init__(
            self,
            loop: SelectorEventLoop,
            sock: socket.socket,
            protocol: asyncio.DatagramProtocol,
            address: object = None,
            waiter: asyncio.Future[None] | None = None,
            extra: dict[str, object] | None = None,
        ) -> None: ...
        def _add_reader(
            self, fd: int, callback: Callable[[], object], *args: object
        ) -> None: ...
        def _read_ready(self) -> None: ...
        def _maybe_pause_protocol(self) -> None: ...
        def _maybe_resume_protocol(self) -> None: ...
        def _force_close(self, exc: BaseException | None) -> None: ...
        def _fatal_error(self, exc: BaseException, message: str = ...) -> None: ...
        def _call_connection_lost(self, exc: BaseException | None) -> None: ...
        def set_write_buffer_limits(
            self, high: int | None = None, low: int | None = None
        ) -> None:
            """As that of asyncio."""

        def get_write_buffer_size(self) -> int:
            """As that of asyncio."""

        def is_reading(self) -> bool:
            """As that of asyncio."""

        def pause_reading(self) -> None:
            """As that of asyncio."""

        def resume_reading(self) -> None:
            """As that of asyncio."""

        def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
            """As that of asyncio."""

    class StreamReader(asyncio.StreamReader):
        """A reader, with the bytes that nobody has taken from it yet."""

        _buffer: bytearray

        def _maybe_resume_transport(self) -> None: ...

    class FallbackProtocol(asyncio.Protocol):
        """What has a transport while a file is sent; it waits for room."""

        def __init__(self, transport: asyncio.Transport) -> None: ...
        async def drain(self) -> None:
            """Wait until there is room in the queue."""

        async def restore(self) -> None:
            """Give the transport back to its protocol."""

    SENDFILE_MODE: object
    SENDFILE_FALLBACK: object
else:
    Server = asyncio.Server
    SelectorEventLoop = asyncio.SelectorEventLoop
    DatagramTransportBase = getattr(
        selector_events, "_SelectorDatagramTransport", asyncio.DatagramTransport
    )
    StreamReader = asyncio.StreamReader
    SENDFILE_MODES = getattr(constants, "_SendfileMode", None)
    SENDFILE_MODE = getattr(SENDFILE_MODES, "TRY_NATIVE", None)
    SENDFILE_FALLBACK = getattr(SENDFILE_MODES, "FALLBACK", None)
    FallbackProtocol = getattr(base_events, "_SendfileFallbackProtocol", None)

__all__ = [
    "HAS_DATAGRAMS",
    "HAS_ITERATION",
    "HAS_TRANSPORTS",
    "LOST_WRITES_MAX",
    "SENDFILE_FALLBACK",
    "SENDFILE_MODE",
    "SERVER_ARGUMENTS",
    "DatagramTransportBase",
    "FallbackProtocol",
    "Handle",
    "LoopBase",
    "SelectorEventLoop",
    "Server",
    "StreamReader",
    "TimerHandle",
    "TransportBase",
    "default_context",
    "has_ssl",
]

LOST_WRITES_MAX: int = getattr(constants, "LOG_THRESHOLD_FOR_CONNLOST_WRITES", 5)


def has_what_transports_need() -> bool:
    """Whether this asyncio has the names by which 3.11 to 3.13 make transports."""
    loop = selector_events.BaseSelectorEventLoop
    makers = ("_make_socket_transport", "_make_ssl_transport")
    accepting = ("_accept_connection", "_accept_connection2")
    return (
        None not in {SENDFILE_MODE, SENDFILE_FALLBACK, FallbackProtocol}
        and hasattr(sslproto, "_create_transport_context")
        and hasattr(TransportBase, "_open_stream")
        and all(
            hasattr(loop, name)
            for name in (*makers, *accepting, "_ensure_fd_no_transport")
        )
        and hasattr(base_events.Server, "_attach")
    )


def has_ssl() -> bool:
    """Whether this Python has TLS."""
    return getattr(sslproto, "ssl", None) is not None


def default_context(server_side: bool, server_hostname: str | None) -> ssl.SSLContext:
    """Return asyncio's context for ``ssl=True``, which is for clients."""
    return sslproto._create_transport_context(server_side, server_hostname)  # noqa: SLF001 - this is the place


def has_what_datagrams_need() -> bool:
    """Whether this asyncio makes transports of datagrams as 3.11 to 3.13 do."""
    loop = selector_events.BaseSelectorEventLoop
    return hasattr(loop, "_make_datagram_transport") and all(
        hasattr(DatagramTransportBase, name)
        for name in ("_add_reader", "_force_close", "_call_connection_lost")
    )


def server_arguments() -> int:
    """Return how many arguments `Server._attach` takes: 0, or 1 since 3.13."""
    attach = getattr(base_events.Server, "_attach", None)
    return 0 if attach is None else attach.__code__.co_argcount - 1


def report_error(handle: Handle, error: BaseException) -> None:
    """Tell the exception handler what a callback has raised, as `Handle._run` does."""
    source = handle._source_traceback  # noqa: SLF001 - this is the place
    loop = handle._loop  # noqa: SLF001 - this is the place
    callback, args = handle._callback, handle._args  # noqa: SLF001 - this is the place
    options = {"debug": loop.get_debug()} if HAS_DEBUG_REPR else {}
    text = format_helpers._format_callback_source(callback, args, **options)  # noqa: SLF001 - this is the place
    context: dict[str, object] = {
        "message": f"Exception in callback {text}",
        "exception": error,
        "handle": handle,
    }
    if source:
        context["source_traceback"] = source
    loop.call_exception_handler(context)


def run_timed(loop: SelectorEventLoop, handle: asyncio.Handle) -> None:
    """Run a handle in debug mode, as `BaseEventLoop._run_once` does."""
    if handle._cancelled:  # noqa: SLF001 - this is the place
        return
    try:
        loop._current_handle = handle  # noqa: SLF001 - this is the place
        begun = loop.time()
        handle._run()  # noqa: SLF001 - this is the place
        duration = loop.time() - begun
        if duration >= loop.slow_callback_duration:
            base_events.logger.warning(  # type: ignore[attr-defined] # a program may replace it
                "Executing %s took %.3f seconds",
                base_events._format_handle(handle),  # type: ignore[attr-defined] # private # noqa: SLF001 - private names belong here
                duration,
            )
    finally:
        loop._current_handle = None  # noqa: SLF001 - this is the place
        # A traceback may keep this frame, and a handle its task: no cycle by way of us.
        del handle


def check_what_iteration_needs() -> None:
    """Raise AttributeError where asyncio lacks a name that reports errors."""
    for module, name in (
        (format_helpers, "_format_callback_source"),
        (base_events, "_format_handle"),
    ):
        getattr(module, name)


def has_debug_repr() -> bool:
    """Whether the text of a callback depends on debug mode: since 3.12.9 and 3.13."""
    format_source = format_helpers._format_callback_source  # noqa: SLF001 - this is the place
    return "debug" in inspect.signature(format_source).parameters


if TYPE_CHECKING:
    from fdmux._delivery import Handle, LoopBase, TimerHandle, TransportBase

    HAS_ITERATION: bool
else:
    try:
        check_what_iteration_needs()
        Handle, TimerHandle, LoopBase = _delivery.asyncio_types(
            asyncio.Handle,
            asyncio.TimerHandle,
            collections.deque,
            contextvars.Context,
            contextvars.copy_context,
            report_error,
            run_timed,
            selector_events.BaseSelectorEventLoop._write_to_self,  # noqa: SLF001 - this is the place
        )
    except (RuntimeError, TypeError, AttributeError):
        HAS_ITERATION = False
        Handle, TimerHandle = asyncio.Handle, asyncio.TimerHandle

        class LoopBase:
            """Nothing: the loop is asyncio's own."""

    else:
        HAS_ITERATION = True
    try:
        TransportBase = _delivery.asyncio_transport(transports._FlowControlMixin)  # noqa: SLF001 - this is the place
    except (RuntimeError, AttributeError):
        TransportBase = asyncio.Transport

HAS_DEBUG_REPR = HAS_ITERATION and has_debug_repr()
HAS_TRANSPORTS = HAS_ITERATION and has_what_transports_need()
HAS_DATAGRAMS = HAS_TRANSPORTS and has_what_datagrams_need()
SERVER_ARGUMENTS = server_arguments()
