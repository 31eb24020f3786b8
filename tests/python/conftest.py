"""What the Python tests share: selectors to run a loop on, a clock, native code."""

from __future__ import annotations

import ctypes
import functools
import selectors
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from tests.compiled import NativeLoad, capsule_pointer, include_dir, load_beside

from fdmux._native import backend_names
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.selector import Selector
from fdmux.streams import tls_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.compiled import HasLoop

    SelectorFactory = Callable[[], selectors.BaseSelector]

# The standard library's, and ours on each backend.
SELECTORS: dict[str, SelectorFactory] = {
    **{
        f"stdlib-{name.lower()}": getattr(selectors, f"{name}Selector")
        for name in ("Epoll", "Poll", "Select")
        if hasattr(selectors, f"{name}Selector")  # Windows has the last alone
    },
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


@pytest.fixture(params=["openssl", "python"])
def way(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """How the bytes of TLS are moved."""
    way = str(request.param)
    monkeypatch.setenv(tls_library.ENVIRONMENT, way)
    tls_library.choose.cache_clear()
    choice = tls_library.choose()
    if choice.is_direct != (way == "openssl"):
        pytest.skip(f"cannot call OpenSSL here: {choice.reason}")
    yield way
    tls_library.choose.cache_clear()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


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


class NativeUser(NativeLoad):
    """C code that has got hold of one loop. Calls return as the C function does."""

    def __init__(self, library: ctypes.CDLL, owner: HasLoop) -> None:
        super().__init__(library, owner)
        self.counts = Counts()
        EVERY_COUNTS.append(self.counts)

    def call(self, name: str, *arguments: object) -> int:
        result = super().call(name, *arguments)
        return ctypes.c_int32(result).value if name in INT_FUNCTIONS else result

    def watch(self, fd: int) -> int:
        return self.call("native_watch", fd, ctypes.byref(self.counts))

    def watch_collected(self, fd: int) -> int:
        return self.call("native_watch_collected", fd, ctypes.byref(self.counts))

    def unwatch(self, token: int) -> int:
        return self.call("native_unwatch", ctypes.c_int64(token))

    def timer(self, delay: float) -> int:
        delay_ns = ctypes.c_int64(int(delay * 1e9))
        return self.call("native_timer", delay_ns, ctypes.byref(self.counts))

    def post(self) -> int:
        return self.call("native_post", ctypes.byref(self.counts))

    def wake(self) -> int:
        return self.call("native_wake")


# The others return int64_t.
INT_FUNCTIONS = {"native_unwatch", "native_post", "native_wake"}


@pytest.fixture
def include_path() -> Path:
    return Path(include_dir())


@pytest.fixture
def open_capsule() -> Callable[[object, bytes], int]:
    return capsule_pointer


@pytest.fixture(scope="session")
def native_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """native_code.c, compiled by header only."""
    folder = tmp_path_factory.mktemp("native")
    return load_beside(__file__, "native_code.c", folder)


@pytest.fixture
def native_user(
    native_library: ctypes.CDLL,
) -> Callable[[HasLoop], NativeUser]:
    """Hand a loop to C code: ``native_user(selector).watch(fd)``."""
    return functools.partial(NativeUser, native_library)
