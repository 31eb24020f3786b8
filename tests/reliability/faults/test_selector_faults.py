"""Every constructor and every operation when a system call or allocation fails.

Each call of the core is failed in turn, once and from then on, until all have been.
What must hold: an exception that names the errno, descriptors and memory as before, and
the object, if there was one, works afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import socket
from typing import TYPE_CHECKING, Protocol

import pytest
from tests.reliability.faults.fault_plans import balance

from fdmux import (
    EVENT_READ,
    EVENT_WRITE,
    ClientPool,
    EchoServer,
    NativeLoop,
    Selector,
    SelectorEventLoop,
)
from fdmux._ffi import lib
from fdmux._native import backend_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.faults

FAULTS = pytest.mark.parametrize(
    ("persistent", "error"),
    [(False, errno.EMFILE), (True, errno.EMFILE), (True, errno.ENOSYS)],
    ids=["once", "from-then-on", "unsupported"],
)
NAMES = backend_names()
BACKENDS = pytest.mark.parametrize("backend", NAMES)


class Closable(Protocol):
    def close(self) -> None: ...


class StartedServer:
    """An EchoServer that takes its descriptors as soon as it is made."""

    def __init__(self) -> None:
        self._server = EchoServer(port=0)
        self._server.start()

    def close(self) -> None:
        self._server.stop()
        self._server.__exit__(None, None, None)


def native_beside_a_stdlib_selector() -> SelectorEventLoop:
    """A loop of ours on a stdlib selector makes its core on first use."""
    import selectors  # noqa: PLC0415 - a namesake of ours is the subject here

    loop = SelectorEventLoop(selectors.SelectSelector())
    try:
        loop.native  # noqa: B018 - made by asking for it
    except BaseException:
        loop.close()
        raise
    return loop


def hosted_loop() -> NativeLoop:
    loop = NativeLoop("epoll")
    try:
        loop.fileno()
    except BaseException:
        loop.close()
        raise
    return loop


CONSTRUCTORS: dict[str, Callable[[], Closable]] = {
    **{f"Selector-{name}": functools.partial(Selector, name) for name in NAMES},
    **{f"NativeLoop-{name}": functools.partial(NativeLoop, name) for name in NAMES},
    "NativeLoop-hosted": hosted_loop,
    "SelectorEventLoop": SelectorEventLoop,
    "SelectorEventLoop.native": native_beside_a_stdlib_selector,
    "EchoServer.start": StartedServer,
    "ClientPool": functools.partial(ClientPool, "127.0.0.1", 9),
}


@contextlib.contextmanager
def failing(nth: int, error: int, persistent: bool) -> Iterator[None]:
    lib.fdmux_testing_fail(lib.FDMUX_CALL_ANY, nth, error, persistent)
    try:
        yield
    finally:
        lib.fdmux_testing_fail(0, 0, 0, 0)


def was_reached(nth: int) -> bool:
    return lib.fdmux_testing_calls() >= nth


@FAULTS
@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_constructor_survives_each_failing_call(
    name: str, persistent: bool, error: int
) -> None:
    create = CONSTRUCTORS[name]
    create().close()  # creates what exists once per process
    before = balance()
    failures = 0
    for nth in itertools.count(1):
        made = None
        with failing(nth, error, persistent):
            try:
                made = create()
            except (OSError, MemoryError) as caught:
                failures += 1
                assert isinstance(caught, MemoryError) or caught.errno == error  # noqa: PT017 - one of two
            is_reached = was_reached(nth)
        if made is not None:
            made.close()
        made = None
        assert balance() == before, f"after a failure of call {nth}"
        if not is_reached:
            break
    assert failures > 0
    create().close()


@FAULTS
@BACKENDS
def test_register_survives_each_failing_call(
    backend: str, persistent: bool, error: int
) -> None:
    left, right = socket.socketpair()
    failures = 0
    with left, right:
        right.send(b"x")
        for nth in itertools.count(1):
            with Selector(backend) as selector:
                with failing(nth, error, persistent):
                    try:
                        selector.register(left, EVENT_READ)
                    except (OSError, MemoryError):
                        failures += 1
                        assert len(selector.get_map()) == 0
                        is_registered = False
                    else:
                        is_registered = True
                    is_reached = was_reached(nth)
                assert lib.fdmux_testing_verify(selector._c_loop) == 0
                if not is_registered:
                    assert selector.select(0) == []
                    selector.register(left, EVENT_READ)
                ((key, events),) = selector.select(0)
                assert (key.fileobj, events) == (left, EVENT_READ)
            if not is_reached:
                break
    assert failures > 0


@FAULTS
@BACKENDS
def test_select_survives_each_failing_call(
    backend: str, persistent: bool, error: int
) -> None:
    left, right = socket.socketpair()
    failures = 0
    with left, right:
        right.send(b"x")
        for nth in itertools.count(1):
            with Selector(backend) as selector:
                key = selector.register(left, EVENT_READ)
                selector.native.wake()  # it has a wake to take as well
                with failing(nth, error, persistent):
                    try:
                        selector.select(0)
                    except (OSError, MemoryError):
                        failures += 1
                    is_reached = was_reached(nth)
                assert lib.fdmux_testing_verify(selector._c_loop) == 0
                # An error that followed a collected event is returned by the next call.
                with contextlib.suppress(OSError, MemoryError):
                    selector.select(0)
                assert selector.select(0) == [(key, EVENT_READ)]
            if not is_reached:
                break
    assert failures > 0


@pytest.mark.parametrize("error", [errno.EBADF, errno.ENOMEM, errno.EPERM])
def test_modify_unregister(error: int) -> None:
    """A copy of the stdlib's test of this name, which recognises classes by their name.

    A failing modify leaves the descriptor unregistered: https://bugs.python.org/issue30014.
    """
    left, right = socket.socketpair()
    with left, right, Selector("epoll") as selector:
        selector.register(left, EVENT_READ)
        assert len(selector.get_map()) == 1
        with pytest.raises((OSError, MemoryError)), failing(1, error, False):
            selector.modify(left, EVENT_WRITE)
        assert len(selector.get_map()) == 0
        assert selector.select(0) == []
        key = selector.register(left, EVENT_WRITE)
        assert selector.select(0) == [(key, EVENT_WRITE)]


@BACKENDS
@FAULTS
def test_unregister_never_fails(backend: str, persistent: bool, error: int) -> None:
    left, right = socket.socketpair()
    with left, right:
        for nth in itertools.count(1):
            with Selector(backend) as selector:
                key = selector.register(left, EVENT_WRITE)
                with failing(nth, error, persistent):
                    assert selector.unregister(left) is key
                    is_reached = was_reached(nth)
                assert lib.fdmux_testing_verify(selector._c_loop) == 0
                assert selector.select(0) == []
                selector.register(left, EVENT_WRITE)
                assert len(selector.select(0)) == 1
            if not is_reached:
                break


@BACKENDS
@FAULTS
def test_close_always_ends(backend: str, persistent: bool, error: int) -> None:
    left, right = socket.socketpair()
    with left, right:
        Selector(backend).close()
        before = balance()
        for nth in itertools.count(1):
            selector = Selector(backend)
            selector.register(left, EVENT_WRITE)
            with failing(nth, error, persistent):
                selector.close()
                is_reached = was_reached(nth)
            del selector
            assert balance() == before
            if not is_reached:
                break


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_sandbox_without_newer_calls_costs_precision_only(error: int) -> None:
    """Older calls replace epoll_pwait2 and eventfd if the kernel refuses them."""
    kinds = lib.FDMUX_CALL_PWAIT2 | lib.FDMUX_CALL_EVENTFD
    lib.fdmux_testing_fail(kinds, 1, error, 1)
    with Selector("epoll") as selector:
        assert selector.select(0.0002) == []
        selector.native.wake()
        assert selector.select() == []
        assert "waits below a millisecond" not in selector.native.stats().features
