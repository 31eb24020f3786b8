"""NativeLoop: the Python handle of a core loop; also `check`, and the capsules.

Its one rule: `check` and `check_dispatch` turn the errors of C into exceptions, so that
an error is the same exception everywhere. Knows nothing about selectors or callbacks
in Python.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

try:
    from fdmux._delivery import make_capsule as make_capsule_in_c
    from fdmux._delivery import raise_error
    from fdmux._ffi import ffi, lib
except ImportError as problem:
    # The word is from cffi's message: its modules have single-phase initialisation
    # (PEP 489), which interpreters with a GIL of their own refuse.
    if "subinterpreters" not in str(problem):
        raise
    raise ImportError(
        "import fdmux: this interpreter has a GIL of its own (PEP 684), and what cffi "
        "builds cannot be loaded there; use an interpreter that shares the GIL, as "
        "Py_NewInterpreter makes it, or a thread",
        name="fdmux",
    ) from problem

from fdmux.errnos import errno_from_c, text_of

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from fdmux._ffi import CLoop

NS_PER_S = 1_000_000_000
# 2^62 ns are 146 years: no program waits longer, and sums stay below 2^63.
TIMEOUT_NS_MAX = 1 << 62

# What dispatch returns when an exception of a stream's callback has stopped it; the
# second one in a child that the callback has forked.
STOPPED = (-errno.ECANCELED, -errno.ECHILD)

ABI_VERSION = (lib.FDMUX_ABI_MAJOR, lib.FDMUX_ABI_MINOR)

FEATURES = {
    lib.FDMUX_FEATURE_FD: "pollable fd",
    lib.FDMUX_FEATURE_TIMER_IN_FD: "timers in that fd",
    lib.FDMUX_FEATURE_NANOSECONDS: "waits below a millisecond",
    lib.FDMUX_FEATURE_EDGE: "edge-triggered watchers",
    lib.FDMUX_FEATURE_EXCLUSIVE: "exclusive watchers",
}


DATAGRAM_FEATURES = {
    lib.FDMUX_DATAGRAM_CAN_BATCH: "batches",
    lib.FDMUX_DATAGRAM_CAN_GSO: "GSO",
    lib.FDMUX_DATAGRAM_CAN_GRO: "GRO",
}


def backend_names() -> tuple[str, ...]:
    """Return the names of the backends in this library, best first."""
    names = map(lib.fdmux__backend_name, itertools.count())
    return tuple(ffi.string(name).decode() for name in itertools.takewhile(bool, names))


class LoopClosed(RuntimeError):  # noqa: N818 - a state, not a mistake
    """The loop was closed, or belongs to the process that forked this one."""


class ForkedLoop(LoopClosed):
    """The loop belongs to the parent process; see `NativeLoop.after_fork`."""


class NotRegistered(LookupError):  # noqa: N818 - a state, not a mistake
    """The watcher, timer, hook or stream has ended, or is one of another loop."""


# Errors whose text in the standard library would mislead.
REASONS = {
    errno.EFAULT: "a pointer that must not be NULL is",
    errno.E2BIG: "struct_size is not the size of the struct; set it with sizeof",
}


def check(result: int, attempted: str) -> int:
    """Turn a negative result of C into the exception it stands for.

    Args:
        result: What a C function returned: >= 0, or -errno.
        attempted: What was attempted, for the message: ``"watch fd 7"``.

    Raises:
        OSError: Or the subclass that fits the errno, as in the standard library.
        LoopClosed: The loop is closed.
        ForkedLoop: This process was forked since.
        NotRegistered: The loop has no such watcher, timer, hook or stream.
    """
    if result >= 0:
        return result
    code = -result
    if code == errno.ECHILD:
        raise ForkedLoop(
            f"{attempted}: this loop was made before fork(); "
            "call after_fork() in the child, or make a new one"
        )
    if code == errno.ESTALE:
        raise LoopClosed(f"{attempted}: the loop is closed")
    if code == errno.EBUSY:
        raise RuntimeError(f"{attempted}: the loop is being dispatched already")
    if code == errno.ENOMEM:
        raise MemoryError(f"{attempted}: out of memory")
    if code == errno.EIDRM:
        raise NotRegistered(f"{attempted}: it has ended, or belongs to another loop")
    code = errno_from_c(code)
    raise OSError(code, f"{attempted}: {REASONS.get(code) or text_of(code)}")


def raise_error_of(result: int, attempted: str) -> None:
    """Raise what `check` does, for ``fdmux_raise`` in fdmux_python.h.

    Raises:
        SystemError: ``result`` is no error; otherwise as `check`.
    """
    check(result, attempted)
    raise SystemError(f"{attempted}: fdmux_raise() got {result}, which is no error")


def check_dispatch(c_loop: CLoop, result: int, attempted: str) -> int:
    """`check` what a dispatch of ``c_loop`` returned to this thread.

    An error that a native function has returned is always an `OSError`: if it returns
    ``-ESTALE``, that does not mean that this loop is closed.

    Raises:
        OSError: The kernel refused, or a function given to the loop returned this.
        BaseException: A callback of a stream raised it to stop the loop, such as
            KeyboardInterrupt.
    """
    if result >= 0:
        return result
    if result in STOPPED:
        raise_error(int(ffi.cast("uintptr_t", c_loop)))
    if not lib.fdmux_py_is_fn_error(c_loop, result):
        return check(result, attempted)
    code = errno_from_c(-result)
    name = errno.errorcode.get(code, str(code))
    raise OSError(
        code,
        f"{attempted}: a function given to the loop returned -{name}: {text_of(code)}",
    )


def timeout_ns(timeout: float | None) -> int:
    """Convert a timeout in seconds to nanoseconds, rounded up: C never returns early.

    ``None``, ``inf`` and anything above 146 years become -1, which waits without
    limit; zero and less become 0, which does not wait.

    Raises:
        ValueError: ``timeout`` is NaN.
        TypeError: It is not a number.
    """
    if timeout is None:
        return -1
    if timeout <= 0:
        return 0
    if timeout >= TIMEOUT_NS_MAX / NS_PER_S:
        return -1
    return math.ceil(timeout * NS_PER_S)  # ValueError for NaN, as in the stdlib


def c_name(backend: str) -> bytes:
    """Encode the name of a backend for C.

    Raises:
        TypeError: It is not a string.
        ValueError: No backend can have this name.
    """
    if not isinstance(backend, str):
        raise TypeError(f"backend must be a string or None, not {backend!r}")
    if not backend.isascii() or "\0" in backend:
        raise ValueError(f"no backend called {backend!r} on this system")
    return backend.encode()


class Stats(NamedTuple):
    """Counters of a loop since it was created, and what it holds now.

    Source:  struct fdmux_loop_stats in fdmux.h
    """

    iteration_count: int
    io_called_count: int
    io_collected_count: int
    timer_count: int
    post_count: int
    stale_event_count: int
    rebuild_count: int
    io_live: int
    timer_live: int
    hook_live: int
    fd_live: int
    features: frozenset[str]


class NativeLoop:
    """The Python handle of a ``struct fdmux_loop``.

    >>> with NativeLoop() as loop:
    ...     extension.start(loop)
    ...     called = loop.dispatch(timeout=0.0)

    Native code gets the loop through `__fdmux_loop__`, and registers its descriptors,
    timers and calls there. A host watches `fileno` and calls `dispatch`.

    Args:
        backend: A name that ``fdmux info`` lists, such as ``"epoll"``; ``None`` for
            the best there is.

    Raises:
        ValueError: There is no such backend on this system.
        OSError: The kernel has no descriptors to give.

    Threads: Any. One thread at a time may `dispatch`.
    """

    __slots__ = ("__weakref__", "_c_loop", "_memory", "_ref")

    def __init__(self, backend: str | None = None) -> None:
        self._c_loop: CLoop = ffi.NULL
        options = ffi.new("struct fdmux_loop_options *")
        options.struct_size = ffi.sizeof("struct fdmux_loop_options")
        name = None if backend is None else ffi.new("char[]", c_name(backend))
        if name is not None:
            options.backend = name
        created = ffi.new("struct fdmux_loop **")
        result = lib.fdmux_loop_create(options, created)
        if result == -errno.ENOENT:
            raise ValueError(f"no backend called {backend!r} on this system")
        check(result, "create a loop")
        self._c_loop = created[0]
        # Not `__del__`: in a garbage cycle it runs before the other objects are gone,
        # and they may still use the loop. A capsule ends with its last reference.
        self._memory = new_capsule(
            self.address, MEMORY_NAME, lib.fdmux_py_loop_destructor()
        )
        self._ref = ffi.new("struct fdmux_loop_handle *")
        self._ref.api = lib.fdmux_get_api()
        self._ref.loop = self._c_loop

    def __repr__(self) -> str:
        if not self._c_loop:
            return "<fdmux.NativeLoop that could not be made>"
        return f"<fdmux.NativeLoop {self.backend} at {self.address:#x}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def address(self) -> int:
        """The ``struct fdmux_loop *`` as a number; valid while this object lives."""
        return int(ffi.cast("uintptr_t", self._c_loop))

    @property
    def backend(self) -> str:
        """The name of the backend in use."""
        return ffi.string(lib.fdmux_loop_backend(self._c_loop)).decode()

    def __fdmux_loop__(self) -> object:
        """Return the loop for native code: a capsule named ``fdmux.loop``.

        The capsule keeps this object, and so the memory of the loop, alive.

        Source:  fdmux_from_object() in fdmux_python.h
        """
        return make_capsule(int(ffi.cast("uintptr_t", self._ref)), LOOP_NAME, self)

    def fileno(self) -> int:
        """Return the one descriptor that stands for the loop, timers included.

        From the first call on it becomes readable when a native timer is due, too.

        Raises:
            OSError: EOPNOTSUPP on the ``poll`` backend, which has none; EMFILE.
        """
        return check(lib.fdmux_loop_fd(self._c_loop), "get the fd of the loop")

    def handle(self) -> int:
        """Return the handle of an event of Windows that stands for the loop.

        From the first call on, the event is set while `dispatch` has something to do.
        Only that clears it. It belongs to the loop.

        Raises:
            OSError: EOPNOTSUPP but on the ``afd`` backend of Windows.
        """
        handle = ffi.new("void *[]", 1)
        check(lib.fdmux_loop_handle(self._c_loop, handle), "get a handle of the loop")
        return int(ffi.cast("uintptr_t", handle[0]))

    def dispatch(self, timeout: float | None = 0.0) -> bool:
        """Wait up to ``timeout``, and call the native functions that are ready or due.

        Native functions run without the GIL. Returns early, with ``True``, when a
        signal arrived or native functions were busy for 50 ms, so that Python can run
        signal handlers.

        Returns:
            Whether there may be more to do at once.

        Units:   seconds; 0 or less: do not wait; ``None`` or ``inf``: no limit
        Raises:
            RuntimeError: The loop is being dispatched already.
            LoopClosed: The loop is closed, perhaps by a function that it called.
            OSError: A function given to the loop returned this error, and the message
                says so; the loop stays usable.
        """
        result = lib.fdmux_loop_dispatch(self._c_loop, timeout_ns(timeout), ffi.NULL, 0)
        if result == -errno.EINTR and not lib.fdmux_py_is_fn_error(
            self._c_loop, result
        ):
            return True
        return check_dispatch(self._c_loop, result, "dispatch the loop") > 0

    def next_deadline(self) -> float | None:
        """Return when the next native timer expires, on `time.monotonic`'s clock.

        Returns:
            Seconds; ``None`` if there is no timer; a time in the past if posted calls
            are waiting.

        Raises:
            LoopClosed: The loop is closed.
        """
        found = ffi.new("int64_t *")
        result = lib.fdmux_loop_next_deadline(self._c_loop, found)
        check(result, "get the next deadline")
        return None if found[0] == (1 << 63) - 1 else found[0] / NS_PER_S

    def wake(self) -> None:
        """Make the wait under way, or the next one, return at once.

        Raises:
            LoopClosed: The loop is closed.
        Threads: Any, also a signal handler.
        """
        check(lib.fdmux_loop_wake(self._c_loop), "wake the loop")

    def after_fork(self) -> None:
        """Make the loop usable in a forked child, with the same registrations.

        Raises:
            LoopClosed: The loop is closed.
            OSError: The kernel has no descriptors to give.
        """
        check(lib.fdmux_loop_after_fork(self._c_loop), "reopen the loop after fork")

    def stats(self) -> Stats:
        """Return the loop's counters.

        Raises:
            LoopClosed: The loop is closed.
        """
        stats = ffi.new("struct fdmux_loop_stats *")
        stats.struct_size = ffi.sizeof("struct fdmux_loop_stats")
        check(lib.fdmux_loop_stats(self._c_loop, stats), "get the loop's counters")
        features = frozenset(
            name for bit, name in FEATURES.items() if stats.features & bit
        )
        counters = [getattr(stats, name) for name in Stats._fields[:-1]]
        return Stats._make([*counters, features])

    def close(self) -> None:
        """Remove every native watcher and release the kernel objects. Idempotent.

        A dispatch under way, also in another thread, ends first.
        """
        lib.fdmux_py_loop_close(self._c_loop)


def c_loop_of(native: NativeLoop) -> CLoop:
    """Return the pointer that C takes; valid while ``native`` lives."""
    return native._c_loop  # noqa: SLF001 - this module's own class


def datagram_features(native: NativeLoop) -> tuple[str, ...]:
    """Return what the kernel can do for datagrams.

    Raises:
        OSError: There is no descriptor to ask it with.
    """
    bits = check(lib.fdmux_datagram_features(c_loop_of(native)), "ask about datagrams")
    return tuple(name for bit, name in DATAGRAM_FEATURES.items() if bits & bit)


def finish_streams(native: NativeLoop) -> None:
    """Call `on_close` of the streams that were aborted.

    Does nothing while the loop is dispatched, since the end of the batch does the same,
    and nothing if the loop is closed.
    """
    c_loop = c_loop_of(native)
    with contextlib.suppress(LoopClosed):
        result = lib.fdmux_py_stream_finish_pending(c_loop)
        check_dispatch(c_loop, result, "finish streams")


# ---- capsules ------------------------------------------------------------------------
# C makes them, not ctypes: importing ctypes crashes some programs that start Python a
# second time (docs/embedding.md).
API_NAME = lib.FDMUX_PY_NAME_API
LOOP_NAME = lib.FDMUX_PY_NAME_LOOP
QUEUE_NAME = lib.FDMUX_PY_NAME_QUEUE
MEMORY_NAME = lib.FDMUX_PY_NAME_MEMORY


def new_capsule(pointer: int, name: int, destructor: int) -> object:
    """Wrap a C pointer; ``destructor`` is the address of a C function."""
    return make_capsule_in_c(pointer, name, destructor, None)


def make_capsule(pointer: int, name: int, owner: object) -> object:
    """Wrap a C pointer; ``owner`` lives at least as long as the capsule."""
    return make_capsule_in_c(pointer, name, 0, owner)


C_API = make_capsule(int(ffi.cast("uintptr_t", lib.fdmux_get_api())), API_NAME, lib)
