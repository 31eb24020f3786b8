"""Types of the C module that calls handlers for events of streams (csrc/python)."""

import asyncio
import collections
import contextvars
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias, TypeVarTuple

from typing_extensions import Buffer as CBuffer

Buffer: TypeAlias = bytes | bytearray | memoryview
_Arguments = TypeVarTuple("_Arguments")

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
    def abandon(self) -> None: ...
    def disown(self) -> None: ...
    def enter(self) -> None: ...
    def leave(self) -> None: ...
    def flush(self) -> None: ...
    def streams(self) -> list[Stream]: ...

class Stream:
    """One stream as Python holds it."""

    data: object
    _delivery: Delivery
    _owner: object
    _on_data: object
    _run: object
    _handler: object
    _can_write: bool
    _is_open: bool
    _is_over: bool
    _is_buffered: bool
    _token: int

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
    def _bind(self, delivery: Delivery, on_data: object, owner: object, /) -> None: ...
    def _open(
        self, kind: Literal["add", "listen", "connect"], fd: int, options: CBuffer, /
    ) -> int: ...
    def _adopt(self, token: int, /) -> int: ...
    def _stats(self) -> tuple[int, int, int]: ...
    def _peer(self) -> bytes: ...
    def _await_writable(self, queue_low: int, /) -> None: ...
    def _set_flow(self, queue_high: int, /) -> None: ...
    _framer: object
    def _flush(self) -> None: ...
    def _take_rest(self) -> bytes: ...
    def _write(self, data: bytes, /) -> None: ...

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
def delimited(delimiter: bytes, frame_max: int, /) -> object: ...
def length_prefixed(size: int, is_little: bool, frame_max: int, /) -> object: ...
def raise_error(loop_address: int, /) -> None: ...
