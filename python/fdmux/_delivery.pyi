"""Types of the C module that calls handlers for events of streams (csrc/python)."""

import asyncio
import collections
import contextvars
from collections.abc import Callable, Generator, Iterable
from typing import Literal, Protocol, Self, TypeAlias, TypeVarTuple, final

from typing_extensions import Buffer as CBuffer

Buffer: TypeAlias = bytes | bytearray | memoryview
_Arguments = TypeVarTuple("_Arguments")

@final
class Delivery:
    """What the streams of one loop share."""

    thread: int
    depth: int
    is_gathering: bool
    is_one_batch: bool
    call_count: int
    error: BaseException | None

    def __init__(self, loop_capsule: object, /) -> None: ...
    def watch(self, loop: object, /) -> int: ...
    def observe(self, probe: Probe | None, /) -> None: ...
    def abandon(self) -> None: ...
    def disown(self) -> None: ...
    def enter(self) -> None: ...
    def leave(self) -> None: ...
    def flush(self) -> None: ...
    def streams(self) -> list[Stream]: ...
    def endpoints(self) -> list[Endpoint]: ...

@final
class Probe:
    """What an observed loop measures."""

    accepted: int
    shortages: int

    def __new__(
        cls,
        on_slow: Callable[[object, str, float], None],
        on_due: Callable[[], None],
        /,
    ) -> Probe: ...
    def set(self, slow: float, due: float, /) -> None: ...
    def begin(self) -> None: ...
    def lap(self, lag: float = ..., /) -> bool: ...
    def skip(self) -> None: ...
    def tell(self, callback: object, /) -> None: ...
    def read(self) -> tuple[int, tuple[int, ...], float, tuple[int, ...], float]: ...

LAG_BOUNDS: tuple[float, ...]

class _Queue(Protocol):
    def __fdmux_queue__(self) -> object: ...
    def fileno(self) -> int: ...

@final
class CompletionPort:
    """The queue through which native code announces the completions of one loop."""

    queue_owner: _Queue
    is_asyncio: bool

    def __init__(
        self,
        queue: _Queue,
        get_running: Callable[[], object] | None,
        new_event: Callable[[], object] | None,
        /,
    ) -> None: ...
    def serve(self) -> None: ...
    def remember(self, loop: object, /) -> None: ...
    def close(self) -> list[Completion]: ...
    def count(self) -> int: ...

class Completion:
    """One result of native code."""

    address: int
    is_done: bool
    _core: CompletionPort

    def __init__(self, convert: Callable[[int], object] | None = None) -> None: ...
    def __await__(self) -> Generator[object, object, object]: ...
    def result(self) -> object: ...
    def set_result(self, result: object, /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...
    def discard(self) -> None: ...
    def _get_event(self) -> object: ...

def forget_port() -> None: ...

class Stream:
    """One stream as Python holds it."""

    data: object
    _delivery: Delivery
    _on_data: object
    _handler: object
    _can_write: bool
    _is_open: bool
    _is_over: bool
    _token: int
    _tls: TlsSession | None

    @property
    def is_closing(self) -> bool: ...
    def write(self, data: Buffer, /) -> object: ...
    def writelines(self, lines: Iterable[Buffer], /) -> None: ...
    def shutdown(self) -> None: ...
    def close(self, error: Exception | None = None) -> None: ...
    def abort(self, error: Exception | None = None) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def fileno(self) -> int: ...
    def _bind(self, delivery: Delivery, on_data: object, /) -> None: ...
    def _open(
        self, kind: Literal["add", "listen", "connect"], fd: int, options: CBuffer, /
    ) -> int: ...
    def _adopt(self, token: int, /) -> int: ...
    def _stats(self) -> tuple[int, int, int]: ...
    def _peer(self) -> bytes: ...
    _framer: object
    def _check_thread(self, attempted: str, /) -> None: ...
    def _take_rest(self) -> bytes: ...
    def _start_tls(
        self,
        session: TlsSession,
        received: CBuffer,
        handshake_timeout_ms: int,
        shutdown_timeout_ms: int,
        /,
    ) -> int: ...

class TlsSession:
    """TLS of one stream: Python's objects, and how C calls them."""

    is_done: bool
    _object: object
    _error: BaseException | None
    _is_direct: bool

    def __new__(
        cls,
        sslobject: object,
        incoming: object,
        outgoing: object,
        is_direct: bool,
        has_own_handshake: bool = False,
        /,
    ) -> Self: ...
    def _facts(self) -> tuple[int, int, int, int, str]: ...

@final
class Datagram(tuple[bytes, object]):
    """A received datagram with what is known of it."""

    data: bytes
    address: object
    local: str | None
    ecn: int | None
    is_truncated: bool

class Endpoint:
    """One endpoint of datagrams as Python holds it."""

    data: object
    _delivery: Delivery
    _owner: object
    _on_datagrams: object
    _on_datagram: object
    _run: object
    _handler: object
    _is_open: bool
    _is_over: bool
    _token: int

    @property
    def is_closing(self) -> bool: ...
    def send(self, data: Buffer, address: object = None, /) -> None: ...
    def send_many(self, datagrams: Iterable[tuple[Buffer, object]], /) -> None: ...
    def send_segments(
        self, data: Buffer, segment_size: int, address: object = None, /
    ) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def fileno(self) -> int: ...
    def _bind(
        self,
        delivery: Delivery,
        on_datagrams: object,
        on_datagram: object,
        owner: object,
        /,
    ) -> None: ...
    def _open(self, fd: int, family: int, options: CBuffer, /) -> int: ...
    def _stats(
        self,
    ) -> tuple[int, int, int, int, int, int, int, int, int, int, int]: ...
    def _queued(self) -> int: ...
    def _await_writable(self, queue_low: int, /) -> None: ...
    def _set_flow(self, queue_high: int, /) -> None: ...
    def _check_thread(self, attempted: str, /) -> None: ...
    def _flush(self) -> None: ...
    _is_connected: bool
    _is_deferring: bool
    def _pause(self) -> None: ...
    def _resume(self) -> None: ...
    def _sendto(self, data: Buffer, addr: object = None) -> None: ...

class Handle(asyncio.Handle):
    """A callback of a loop."""

    _callback: Callable[..., object]  # type: ignore[explicit-any] # any callback
    _loop: asyncio.AbstractEventLoop
    _source_traceback: list[object] | None

class TimerHandle(asyncio.TimerHandle):
    """A callback with a deadline."""

class LoopBase:
    """The scheduling and the iteration of hosts/asyncio's loop."""

    _stopping: bool
    _closed: bool
    _debug: bool
    _clock_resolution: float
    _delivery: Delivery | None
    _is_repeating: bool
    _has_own_call_at: bool
    _has_own_events: bool
    _has_own_select: bool
    _ready: object
    _scheduled: object

    def call_soon(
        self,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle: ...
    def call_soon_threadsafe(
        self,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle: ...
    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def call_at(
        self,
        when: float,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def time(self) -> float: ...
    def is_closed(self) -> bool: ...
    def get_debug(self) -> bool: ...
    def _run_once(self) -> None: ...
    def _write_to_self(self) -> None: ...
    def _use_selector(
        self,
        selector: object,
        capsule: object,
        select: int,
        batch_owner: object,
        batch: int,
        indices: int,
        pairs: list[object],
        /,
    ) -> None: ...
    def _forget_selector(self) -> None: ...
    def _observe(self, probe: Probe | None, /) -> None: ...

class TransportBase(asyncio.Transport):
    """The stream of a transport of hosts/asyncio, and its hot methods."""

    _extra: dict[str, object]
    _protocol: asyncio.BaseProtocol
    _on_data: object
    _context: contextvars.Context | None
    _can_write: bool
    _is_buffered: bool
    _conn_lost: int
    _closing: bool
    _paused: bool
    _protocol_paused: bool

    def __init__(
        self, extra: dict[str, object] | None, loop: asyncio.AbstractEventLoop
    ) -> None: ...
    def _set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None: ...
    @property
    def _token(self) -> int: ...
    @property
    def _tls(self) -> TlsSession | None: ...
    def _bind_stream(self, delivery: Delivery, on_data: object, /) -> None: ...
    def _open_stream(
        self, kind: Literal["add"], fd: int, options: CBuffer, /
    ) -> int: ...
    def _pause_stream(self) -> None: ...
    def _shutdown_stream(self) -> None: ...
    def _close_stream(self) -> None: ...
    def _abort_stream(self) -> None: ...
    def _start_tls(
        self,
        session: TlsSession,
        received: CBuffer,
        handshake_timeout_ms: int,
        shutdown_timeout_ms: int,
        eof_ends: bool = False,
        /,
    ) -> int: ...
    def _write_bytes(self, data: bytes, /) -> None: ...
    def _check_thread(self, attempted: str, /) -> None: ...
    def _flush(self) -> None: ...

def asyncio_types(
    handle: type[asyncio.Handle],
    timer_handle: type[asyncio.TimerHandle],
    deque: type[collections.deque[object]],
    context: type[contextvars.Context],
    copy_context: Callable[[], contextvars.Context],
    report_error: object,
    run_timed: object,
    write_to_self: object,
    /,
) -> tuple[type[Handle], type[TimerHandle], type[LoopBase]]: ...
def asyncio_transport(
    flow_control: type[asyncio.Transport], /
) -> type[TransportBase]: ...
def accept(fd: int, /) -> tuple[int, int, object, object] | None: ...
def delimited(delimiter: bytes, frame_max: int, /) -> object: ...
def length_prefixed(size: int, is_little: bool, frame_max: int, /) -> object: ...
def make_capsule(
    pointer: int, name: int, destructor: int, owner: object, /
) -> object: ...
def raise_error(loop_address: int, /) -> None: ...
def tls_load(
    path: str | None, version_number: int, version_text: str, head_size: int, /
) -> None: ...
