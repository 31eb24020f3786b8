"""NativeCode: what an extension does with a loop, without a compiler.

Its one rule: it uses only fdmux.h. It takes the function table from the capsule, as C
does, and gives the loop ctypes callbacks, which the core calls as C functions. So a
case of the kit is written in Python, and tests the interface of C.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, ClassVar, ParamSpec, Protocol

if TYPE_CHECKING:
    from _ctypes import CFuncPtr
    from collections.abc import Callable

    from fdmux.native.completion import Completion


Arguments = ParamSpec("Arguments")

READ, WRITE, PRIORITY, PEER_CLOSED, HANGUP, ERROR = 1, 2, 4, 8, 16, 32

POINTER = ctypes.c_void_p
IO_FN = ctypes.CFUNCTYPE(
    ctypes.c_int, POINTER, ctypes.c_uint64, ctypes.c_uint32, POINTER
)
TIMER_FN = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, ctypes.c_uint64, POINTER)
HOOK_FN = TIMER_FN
POST_FN = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, POINTER)
CLOSE_FN = ctypes.CFUNCTYPE(None, POINTER, POINTER)
DESTROYED_FN = ctypes.CFUNCTYPE(None, POINTER)


class HasLoop(Protocol):
    """An object from which an extension can take a loop."""

    def __fdmux_loop__(self) -> object:
        """Return the capsule of the loop."""


# fdmux_fd of fdmux.h: a socket of Windows is a handle.
FD = ctypes.c_size_t if sys.platform == "win32" else ctypes.c_int


class IoOptions(ctypes.Structure):
    """struct fdmux_io_options."""

    _fields_: ClassVar = [
        ("struct_size", ctypes.c_size_t),
        ("fd", FD),
        ("events", ctypes.c_uint32),
        ("fn", IO_FN),
        ("userdata", POINTER),
        ("destroyed", DESTROYED_FN),
        ("tag", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    ]


class TimerOptions(ctypes.Structure):
    """struct fdmux_timer_options."""

    _fields_: ClassVar = [
        ("struct_size", ctypes.c_size_t),
        ("fn", TIMER_FN),
        ("userdata", POINTER),
        ("destroyed", DESTROYED_FN),
        ("tag", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    ]


class HookOptions(ctypes.Structure):
    """struct fdmux_hook_options."""

    _fields_: ClassVar = [
        ("struct_size", ctypes.c_size_t),
        ("fn", HOOK_FN),
        ("userdata", POINTER),
        ("destroyed", DESTROYED_FN),
    ]


IO_POINTER = ctypes.POINTER(IoOptions)
TIMER_POINTER = ctypes.POINTER(TimerOptions)
HOOK_POINTER = ctypes.POINTER(HookOptions)
TOKEN_POINTER = ctypes.POINTER(ctypes.c_uint64)


def function(result: type, *arguments: type) -> type[CFuncPtr]:
    """Return the ctypes type of a C function."""
    return ctypes.CFUNCTYPE(result, *arguments)


INT, U32, U64, I64 = ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64

# struct fdmux_api up to the last member that is used; POINTER stands for unused ones.
TABLE: list[tuple[str, object]] = [
    ("abi_major", U32),
    ("abi_minor", U32),
    ("struct_size", ctypes.c_size_t),
    ("loop_create", POINTER),
    ("loop_destroy", POINTER),
    ("loop_ref", POINTER),
    ("loop_unref", POINTER),
    ("loop_at_close", function(INT, POINTER, CLOSE_FN, POINTER, TOKEN_POINTER)),
    ("loop_fd", POINTER),
    ("loop_next_deadline", POINTER),
    ("loop_dispatch", POINTER),
    ("loop_run", POINTER),
    ("loop_stop", POINTER),
    ("loop_wake", function(INT, POINTER)),
    ("loop_now", function(I64, POINTER)),
    ("loop_backend", POINTER),
    ("loop_stats", POINTER),
    ("loop_after_fork", POINTER),
    ("loop_hold", POINTER),
    ("loop_set_return", POINTER),
    ("io_add", function(INT, POINTER, IO_POINTER, TOKEN_POINTER)),
    ("io_update", POINTER),
    ("io_replace_fd", POINTER),
    ("io_fd", POINTER),
    ("io_remove", function(INT, POINTER, U64)),
    ("timer_add", function(INT, POINTER, TIMER_POINTER, TOKEN_POINTER)),
    ("timer_arm", function(INT, POINTER, U64, I64, I64)),
    ("timer_arm_in", POINTER),
    ("timer_cancel", POINTER),
    ("timer_remove", function(INT, POINTER, U64)),
    ("post", function(INT, POINTER, POST_FN, POINTER)),
    ("hook_add", function(INT, POINTER, HOOK_POINTER, TOKEN_POINTER)),
    ("hook_remove", POINTER),
    ("stream", POINTER),
    ("queue_create", POINTER),
    ("queue_ref", function(POINTER, POINTER)),
    ("queue_unref", function(POINTER, POINTER)),
    ("queue_set_drop", POINTER),
    ("queue_fd", POINTER),
    ("queue_put", function(INT, POINTER, POINTER)),
]


class Api(ctypes.Structure):
    """The beginning of struct fdmux_api."""

    _fields_: ClassVar = TABLE  # type: ignore[assignment] # typed as object above


class Handle(ctypes.Structure):
    """struct fdmux_loop_handle and fdmux_queue_handle, to which capsules point."""

    _fields_: ClassVar = [("api", ctypes.POINTER(Api)), ("object", POINTER)]


# C may call these until the process ends, which is after this module is cleared.
kept: list[object] = []
ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


def open_capsule(capsule: object, name: bytes) -> tuple[Api, int]:
    """Return the function table, and the address of the loop or queue."""
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    handle = Handle.from_address(get_pointer(capsule, name))
    return handle.api.contents, handle.object


def check(result: int, attempted: str) -> None:
    """Raise an OSError if a C function returned one.

    Raises:
        OSError: ``result`` is negative, a -errno.
    """
    if result < 0:
        raise OSError(-result, attempted)


class NativeCode:
    """A stand-in for a library in C that uses one loop.

    Attributes:
        errors: The exceptions that its functions raised: mistakes in a case.
        destroyed: How often ``destroyed`` of each watcher was called, by its name.
    """

    def __init__(self, owner: HasLoop) -> None:
        self._capsule = owner.__fdmux_loop__()
        self._api, self._loop = open_capsule(self._capsule, b"fdmux.loop")
        self.errors: list[BaseException] = []
        self.destroyed: dict[str, int] = {}

    def watch(
        self,
        fd: int,
        events: int,
        fn: Callable[[int, int], int | None],
        name: str = "watcher",
    ) -> int:
        """Call ``fn(token, events)`` when ``fd`` is ready; return the token."""
        options = IoOptions(
            struct_size=ctypes.sizeof(IoOptions),
            fd=fd,
            events=events,
            fn=IO_FN(lambda _loop, token, ready, _data: self._call(fn, token, ready)),
            destroyed=self._count_destroyed(name),
        )
        token = ctypes.c_uint64()
        kept.append(options)
        check(self._api.io_add(self._loop, options, token), f"watch fd {fd}")
        return token.value

    def watch_busily(self, fd: int) -> int:
        """Call a C function, without Python, while ``fd`` is readable.

        The function is getpid(), which ignores arguments and never fails.
        """
        options = IoOptions(
            struct_size=ctypes.sizeof(IoOptions),
            fd=fd,
            events=READ,
            fn=ctypes.cast(ctypes.CDLL(None).getpid, IO_FN),
        )
        token = ctypes.c_uint64()
        check(self._api.io_add(self._loop, options, token), f"watch fd {fd}")
        return token.value

    def unwatch(self, token: int) -> int:
        """Remove a watcher; return the result of C."""
        return int(self._api.io_remove(self._loop, token))

    def timer(self, fn: Callable[[int], int | None], name: str = "timer") -> int:
        """Add a timer that calls ``fn(token)``; return its token."""
        options = TimerOptions(
            struct_size=ctypes.sizeof(TimerOptions),
            fn=TIMER_FN(lambda _loop, token, _data: self._call(fn, token)),
            destroyed=self._count_destroyed(name),
        )
        token = ctypes.c_uint64()
        kept.append(options)
        check(self._api.timer_add(self._loop, options, token), "add a timer")
        return token.value

    def hook(self, fn: Callable[[int], int | None], name: str = "hook") -> int:
        """Add a hook that calls ``fn(token)`` before each wait; return its token."""
        options = HookOptions(
            struct_size=ctypes.sizeof(HookOptions),
            fn=HOOK_FN(lambda _loop, token, _data: self._call(fn, token)),
            destroyed=self._count_destroyed(name),
        )
        token = ctypes.c_uint64()
        kept.append(options)
        check(self._api.hook_add(self._loop, options, token), "add a hook")
        return token.value

    def at_close(self, fn: Callable[[], object]) -> int:
        """Call ``fn()`` when the loop closes; return the token of the hook."""

        def call(_loop: object, _data: object) -> None:
            self._call(fn)

        token = ctypes.c_uint64()
        function = CLOSE_FN(call)
        kept.append(function)
        result = self._api.loop_at_close(self._loop, function, None, token)
        check(result, "hear of the loop's end")
        return token.value

    def wake(self) -> None:
        """Wake the loop, as after a call of the library outside of its functions."""
        check(self._api.loop_wake(self._loop), "wake the loop")

    def arm(self, timer: int, delay: float) -> int:
        """Arm a timer ``delay`` seconds from now; return its deadline in ns."""
        deadline = self.now() + int(delay * 1e9)
        check(self._api.timer_arm(self._loop, timer, deadline, 0), "arm a timer")
        return deadline

    def now(self) -> int:
        """Return the time of the loop's clock, in ns."""
        return int(self._api.loop_now(self._loop))

    def post(self, fn: Callable[[], object]) -> int:
        """Post a call of ``fn()``, from any thread; return the result of C."""
        function = POST_FN(lambda loop, _data: self._call(fn) if loop else 0)
        kept.append(function)
        return int(self._api.post(self._loop, function, None))

    def _call(
        self,
        fn: Callable[Arguments, object],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> int:
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - no exception may pass through C
            self.errors.append(error)
            return 0
        return result if isinstance(result, int) else 0

    def _count_destroyed(self, name: str) -> object:
        self.destroyed.setdefault(name, 0)

        def count(_userdata: object) -> None:
            self.destroyed[name] += 1

        return DESTROYED_FN(count)


class NativeJob:
    """A stand-in for native code that completes a `fdmux.aio.Completion`."""

    def __init__(self, completion: Completion) -> None:
        self._api, queue = open_capsule(completion.__fdmux_queue__(), b"fdmux.queue")
        self._queue = self._api.queue_ref(queue)
        self._place = ctypes.c_int64.from_address(completion.address)
        self._address = completion.address

    def finish(self, result: int) -> int:
        """Deliver the result, from any thread, once; return the result of C."""
        self._place.value = result
        put = int(self._api.queue_put(self._queue, self._address))
        self._queue = self._api.queue_unref(self._queue)
        return put
