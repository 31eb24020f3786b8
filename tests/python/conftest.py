"""What the Python tests share: selectors to run a loop on, a clock, native code."""

from __future__ import annotations

import ctypes
import functools
import selectors
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import pytest

import fdmux
from fdmux._native import backend_names
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.selector import Selector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    SelectorFactory = Callable[[], selectors.BaseSelector]

# The standard library's, and ours on each backend.
SELECTORS: dict[str, SelectorFactory] = {
    "stdlib-epoll": selectors.EpollSelector,
    "stdlib-poll": selectors.PollSelector,
    "stdlib-select": selectors.SelectSelector,
    **{f"fdmux-{name}": functools.partial(Selector, name) for name in backend_names()},
}


class FakeClock:
    """A clock that stands still until it is advanced."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(params=list(SELECTORS))
def selector_factory(request: pytest.FixtureRequest) -> SelectorFactory:
    return SELECTORS[str(request.param)]


@pytest.fixture
def loop(selector_factory: SelectorFactory) -> Iterator[SelectorEventLoop]:
    with SelectorEventLoop(selector_factory()) as loop:
        yield loop


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected pair of non-blocking sockets."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


# ---- native code, as a stranger would bring it ---------------------------------------


class Counts(ctypes.Structure):
    """struct counts of native_code.c."""

    _fields_: ClassVar = [
        ("called", ctypes.c_int64),
        ("destroyed", ctypes.c_int64),
        ("result", ctypes.c_int),
    ]
    called: int
    destroyed: int
    result: int


# C writes to them until the loop ends, which may be later than any object of Python's.
EVERY_COUNTS: list[Counts] = []


class LoopRef(ctypes.Structure):
    """struct fdmux_loop_ref of fdmux.h: what a ``fdmux.loop`` capsule points at."""

    _fields_: ClassVar = [("api", ctypes.c_void_p), ("loop", ctypes.c_void_p)]
    api: int
    loop: int


def capsule_pointer(capsule: object, name: bytes) -> int:
    """Open a capsule as C code does; ValueError if it has another name."""
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return int(get_pointer(capsule, name))


class HasLoop(Protocol):
    def __fdmux_loop__(self) -> object: ...


class NativeUser:
    """C code that has got hold of one loop. Calls return as the C function does."""

    def __init__(self, library: ctypes.CDLL, owner: HasLoop) -> None:
        self._library = library
        self.capsule: object = owner.__fdmux_loop__()
        pointer = capsule_pointer(self.capsule, b"fdmux.loop")
        ref = LoopRef.from_address(pointer)
        self.loop_address, self.table_address = ref.loop, ref.api
        self.counts = Counts()
        EVERY_COUNTS.append(self.counts)

    def _call(self, name: str, *args: object) -> int:
        function = self._library[name]
        function.restype = ctypes.c_int64
        api = ctypes.c_void_p(self.table_address)
        loop = ctypes.c_void_p(self.loop_address)
        result = int(function(api, loop, *args))
        return ctypes.c_int32(result).value if name in INT_FUNCTIONS else result

    def watch(self, fd: int) -> int:
        return self._call("native_watch", fd, ctypes.byref(self.counts))

    def watch_collected(self, fd: int) -> int:
        return self._call("native_watch_collected", fd, ctypes.byref(self.counts))

    def unwatch(self, token: int) -> int:
        return self._call("native_unwatch", ctypes.c_int64(token))

    def timer(self, delay: float) -> int:
        delay_ns = ctypes.c_int64(int(delay * 1e9))
        return self._call("native_timer", delay_ns, ctypes.byref(self.counts))

    def post(self) -> int:
        return self._call("native_post", ctypes.byref(self.counts))

    def wake(self) -> int:
        return self._call("native_wake")


# The others return int64_t.
INT_FUNCTIONS = {"native_unwatch", "native_post", "native_wake"}


def include_dir() -> str:
    """Where fdmux.h lies: in the installed package, or in the tree beside it."""
    try:
        return fdmux.get_include()
    except FileNotFoundError:
        return str(Path(__file__).parents[2] / "csrc" / "include")


@pytest.fixture
def include_path() -> Path:
    return Path(include_dir())


@pytest.fixture
def open_capsule() -> Callable[[object, bytes], int]:
    return capsule_pointer


@pytest.fixture(scope="session")
def native_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """native_code.c, compiled by header only."""
    source = Path(__file__).with_name("native_code.c")
    built = tmp_path_factory.mktemp("native") / "native_code.so"
    command = ["cc", "-O2", "-std=c99", "-shared", "-fPIC", f"-I{include_dir()}"]
    subprocess.run([*command, str(source), "-o", str(built)], check=True)
    return ctypes.CDLL(str(built))


@pytest.fixture
def native_user(
    native_library: ctypes.CDLL,
) -> Callable[[HasLoop], NativeUser]:
    """Hand a loop to C code: ``native_user(selector).watch(fd)``."""
    return functools.partial(NativeUser, native_library)
