"""Types of the C boundary: what the generated extension offers to Python."""

from collections.abc import Callable
from typing import Final, Literal, Protocol, overload

from typing_extensions import Buffer

class CData: ...
class CLoop(CData): ...

class CApi(CData):
    abi_major: int
    abi_minor: int
    struct_size: int

class CLoopPointer(CData):
    def __getitem__(self, index: int) -> CLoop: ...

class CInt64Pointer(CData):
    def __getitem__(self, index: int) -> int: ...

class CString(CData): ...
class CReady(CData): ...
class CIndices(CData): ...

class CBatch(CData):
    loop: CLoop
    indices: CIndices
    capacity: int
    deadline_ns: int

class CLoopOptions(CData):
    struct_size: int
    flags: int
    backend: CString

class CLoopRef(CData):
    api: CApi
    loop: CLoop

class CStats(CData):
    struct_size: int
    features: int

class CDemo(CData): ...

class CDemoPointer(CData):
    def __getitem__(self, index: int) -> CDemo: ...

class CDemoCounts(CData):
    bytes: int
    ticks: int
    calls: int
    in_order: int
    dropped: int
    destroyed: int

class CToken(CData):
    def __getitem__(self, index: int) -> int: ...

class CStreamOptions(CData):
    struct_size: int
    receive_max: int
    queue_max: int
    queue_high: int
    queue_low: int
    connection_max: int
    idle_timeout_ns: int
    stall_timeout_ns: int

class CStreamStats(CData):
    struct_size: int
    received: int
    sent: int
    queued: int

class CStreamRecords(CData): ...
class CArena(CData): ...

class CStreamBatch(CData):
    struct_size: int
    records: CStreamRecords
    arena: CArena
    record_capacity: int
    arena_size: int
    record_count: int
    arena_used: int

class CStreams(CData):
    loop: CLoop
    select: CBatch
    timeout_ns: int

class CTotals(CData): ...

class CStreamTotals(CData):
    received: int
    sent: int
    queued: int
    dropped: int
    accepted: int
    refused: int

class Ffi:
    NULL: Final[CLoop]
    @overload
    def new(self, cdecl: Literal["struct fdmux_loop_options *"]) -> CLoopOptions: ...
    @overload
    def new(self, cdecl: Literal["struct fdmux_loop **"]) -> CLoopPointer: ...
    @overload
    def new(self, cdecl: Literal["struct fdmux_loop_ref *"]) -> CLoopRef: ...
    @overload
    def new(self, cdecl: Literal["struct fdmux_loop_stats *"]) -> CStats: ...
    @overload
    def new(self, cdecl: Literal["struct fdmux_py_batch *"]) -> CBatch: ...
    @overload
    def new(self, cdecl: Literal["struct fdmux_py_demo **"]) -> CDemoPointer: ...
    @overload
    def new(self, cdecl: Literal["struct fdmux_py_demo_counts *"]) -> CDemoCounts: ...
    @overload
    def new(self, cdecl: Literal["struct fdmux_ready[]"], init: int) -> CReady: ...
    @overload
    def new(self, cdecl: Literal["uint32_t[]"], init: int) -> CIndices: ...
    @overload
    def new(self, cdecl: Literal["int64_t *"]) -> CInt64Pointer: ...
    @overload
    def new(self, cdecl: Literal["char[]"], init: bytes) -> CString: ...
    @overload
    def new(self, cdecl: Literal["uint64_t *"]) -> CToken: ...
    @overload
    def new(
        self, cdecl: Literal["struct fdmux_stream_options *"]
    ) -> CStreamOptions: ...
    @overload
    def new(self, cdecl: Literal["struct fdmux_stream_stats *"]) -> CStreamStats: ...
    @overload
    def new(self, cdecl: Literal["struct fdmux_stream_batch *"]) -> CStreamBatch: ...
    @overload
    def new(self, cdecl: Literal["struct fdmux_py_streams *"]) -> CStreams: ...
    @overload
    def new(
        self, cdecl: Literal["struct fdmux_stream_record[]"], init: int
    ) -> CStreamRecords: ...
    @overload
    def new(
        self, cdecl: Literal["struct fdmux_py_stream_totals *"]
    ) -> CStreamTotals: ...
    def from_buffer(
        self, cdecl: Literal["unsigned char[]"], memory: Buffer
    ) -> CArena: ...
    def gc(self, value: CTotals, destructor: Callable[[CTotals], None]) -> CTotals: ...
    def sizeof(self, cdecl: str) -> int: ...
    def cast(self, cdecl: Literal["uintptr_t"], value: CData) -> int: ...
    def string(self, value: CString) -> bytes: ...
    def buffer(self, value: CIndices | CStreamRecords) -> Buffer: ...

class Lib(Protocol):
    FDMUX_ABI_MAJOR: int
    FDMUX_ABI_MINOR: int
    FDMUX_FEATURE_FD: int
    FDMUX_FEATURE_TIMER_IN_FD: int
    FDMUX_FEATURE_NANOSECONDS: int
    FDMUX_FEATURE_EDGE: int
    FDMUX_FEATURE_EXCLUSIVE: int

    def fdmux_loop_create(self, options: CLoopOptions, ret: CLoopPointer) -> int: ...
    def fdmux_loop_destroy(self, loop: CLoop) -> CLoop: ...
    def fdmux_loop_fd(self, loop: CLoop) -> int: ...
    def fdmux_loop_next_deadline(self, loop: CLoop, ret: CInt64Pointer) -> int: ...
    def fdmux_loop_dispatch(
        self, loop: CLoop, timeout_ns: int, ready: CReady | CLoop, capacity: int
    ) -> int: ...
    def fdmux_loop_wake(self, loop: CLoop) -> int: ...
    def fdmux_loop_backend(self, loop: CLoop) -> CString: ...
    def fdmux_loop_stats(self, loop: CLoop, stats: CStats) -> int: ...
    def fdmux_loop_after_fork(self, loop: CLoop) -> int: ...
    def fdmux_io_update(self, loop: CLoop, io: int, events: int) -> int: ...
    def fdmux_io_remove(self, loop: CLoop, io: int) -> int: ...
    def fdmux_get_api(self) -> CApi: ...
    def fdmux_py_io_add(self, loop: CLoop, fd: int, events: int) -> int: ...
    def fdmux_py_select(self, batch: CBatch, timeout_ns: int) -> int: ...
    def fdmux_py_select_again(self, batch: CBatch) -> int: ...
    def fdmux_py_loop_close(self, loop: CLoop) -> int: ...
    def fdmux_py_capsule_destructor(self) -> int: ...
    def fdmux_py_loop_destructor(self) -> int: ...
    def fdmux_py_version(self) -> CString: ...

    FDMUX_PY_DEMO_CALLS: int
    FDMUX_PY_DEMO_TICKS: int
    def fdmux_py_demo_start(self, loop: CLoop, ret: CDemoPointer) -> int: ...
    def fdmux_py_demo_count(self, demo: CDemo, ret: CDemoCounts) -> None: ...
    def fdmux_py_demo_stop(self, demo: CDemo) -> int: ...

    FDMUX_STREAM_ACCEPTED: int
    FDMUX_STREAM_CONNECTED: int
    FDMUX_STREAM_DATA: int
    FDMUX_STREAM_END: int
    FDMUX_STREAM_WRITABLE: int
    FDMUX_STREAM_DRAINED: int
    FDMUX_STREAM_CLOSED: int
    FDMUX_STREAM_REFUSED: int
    FDMUX_PY_SEND: int
    FDMUX_PY_PASS: int
    FDMUX_PY_PART: int
    FDMUX_PY_CLOSE: int
    FDMUX_PY_DROP: int
    FDMUX_PY_SHUTDOWN: int
    def fdmux_stream_collect(self, loop: CLoop, batch: CStreamBatch) -> int: ...
    def fdmux_stream_total_max(self, loop: CLoop, bytes_max: int) -> int: ...
    def fdmux_stream_add(
        self, loop: CLoop, fd: int, options: CStreamOptions, ret: CToken
    ) -> int: ...
    def fdmux_stream_listen(
        self, loop: CLoop, fd: int, options: CStreamOptions, ret: CToken
    ) -> int: ...
    def fdmux_stream_connect(
        self, loop: CLoop, fd: int, options: CStreamOptions, ret: CToken
    ) -> int: ...
    def fdmux_stream_pause(self, loop: CLoop, stream: int) -> int: ...
    def fdmux_stream_resume(self, loop: CLoop, stream: int) -> int: ...
    def fdmux_stream_fd(self, loop: CLoop, stream: int) -> int: ...
    def fdmux_stream_stats(
        self, loop: CLoop, stream: int, stats: CStreamStats
    ) -> int: ...
    def fdmux_py_stream_settle(
        self,
        streams: CStreams,
        words: bytes,
        count: int,
        joined: bytes,
        joined_size: int,
    ) -> int: ...
    def fdmux_py_stream_flush(
        self,
        streams: CStreams,
        words: bytes,
        count: int,
        joined: bytes,
        joined_size: int,
    ) -> int: ...
    def fdmux_py_stream_turn(
        self,
        streams: CStreams,
        words: bytes,
        count: int,
        joined: bytes,
        joined_size: int,
    ) -> int: ...
    def fdmux_py_stream_serve(self, loop: CLoop) -> int: ...
    def fdmux_py_stream_token(self, loop: CLoop, slot: int) -> int: ...
    def fdmux_py_stream_tick(self, loop: CLoop, ticks: int) -> int: ...
    def fdmux_py_totals_hold(self, loop: CLoop, slot: int) -> CTotals: ...
    def fdmux_py_totals_read(self, held: CTotals, ret: CStreamTotals) -> None: ...
    def fdmux_py_totals_release(self, held: CTotals) -> None: ...

    # Only in builds with FDMUX_TESTING.
    FDMUX_CALL_RECV: int
    FDMUX_CALL_SEND: int
    FDMUX_CALL_ACCEPT: int
    FDMUX_CALL_EPOLL_CTL: int
    def fdmux_testing_short(self, length_max: int) -> None: ...
    FDMUX_CALL_MEMORY: int
    FDMUX_CALL_PWAIT2: int
    FDMUX_CALL_EVENTFD: int
    FDMUX_CALL_ANY: int
    def fdmux_testing_fail(
        self, kinds: int, nth: int, error: int, persistent: int
    ) -> None: ...
    def fdmux_testing_calls(self) -> int: ...
    def fdmux_testing_allocations(self) -> int: ...
    def fdmux_testing_verify(self, loop: CLoop) -> int: ...

ffi: Ffi
lib: Lib
