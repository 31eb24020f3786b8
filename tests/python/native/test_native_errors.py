"""An error returned by a native function is raised, and names its origin."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from fdmux import NativeLoop, Selector, SelectorEventLoop
from fdmux._ffi import lib
from fdmux._native import backend_names
from fdmux.streams.client import add_stream
from fdmux.streams.stream import Stream, StreamHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.compiled import HasLoop
    from tests.python.conftest import NativeUser, SelectorFactory

    Pair = tuple[socket.socket, socket.socket]
    Adopt = Callable[[HasLoop], NativeUser]

# With a meaning of their own elsewhere: a signal, a closed loop, a fork, a second
# dispatch, no memory, no room; and without one.
CODES = ["EINTR", "ESTALE", "ECHILD", "EBUSY", "ENOMEM", "ENOBUFS", "EPROTO"]
BACKENDS = pytest.mark.parametrize("backend", backend_names())


def fail_with(native: NativeUser, name: str, pair: Pair) -> None:
    """Watch with a native function that returns an error."""
    native.counts.result = -getattr(errno, name)
    pair[1].send(b"x")
    native.watch(pair[0].fileno())


def check_caught(caught: BaseException, attempted: str, name: str) -> None:
    code = getattr(errno, name)
    assert isinstance(caught, OSError)
    assert caught.errno == code
    returned = f"a function given to the loop returned -{name}: {os.strerror(code)}"
    assert str(caught) == f"[Errno {code}] {attempted}: {returned}"


@BACKENDS
@pytest.mark.parametrize("name", CODES)
def test_select_raises_it_and_goes_on(
    name: str, backend: str, pair: Pair, native_user: Adopt
) -> None:
    with Selector(backend) as selector:
        native = native_user(selector)
        fail_with(native, name, pair)
        for timeout in (0, None):
            with pytest.raises(OSError, match="given to the loop") as caught:
                selector.select(timeout)
            check_caught(caught.value, "wait in a Selector", name)
        native.counts.result = 0
        assert selector.select(0) == []
        assert native.counts.called == 3


@BACKENDS
@pytest.mark.parametrize("name", CODES)
def test_dispatch_raises_it_and_goes_on(
    name: str, backend: str, pair: Pair, native_user: Adopt
) -> None:
    with NativeLoop(backend) as loop:
        native = native_user(loop)
        fail_with(native, name, pair)
        with pytest.raises(OSError, match="given to the loop") as caught:
            loop.dispatch(None)
        check_caught(caught.value, "dispatch the loop", name)
        native.counts.result = 0
        assert loop.dispatch(0) is False


def test_error_after_a_collected_event_comes_with_the_next_wait(
    pair: Pair, native_user: Adopt
) -> None:
    with Selector() as selector:
        native = native_user(selector)
        key = selector.register(pair[1], 2)
        fail_with(native, "EPROTO", pair)
        found: list[object] = []
        caught = None
        for _ in range(2):  # in whichever order the kernel reports them
            try:
                found += selector.select(0)
            except OSError as error:
                caught = error
        assert (key, 2) in found
        assert caught is not None
        check_caught(caught, "wait in a Selector", "EPROTO")


def test_run_of_a_loop_raises_it(
    loop: SelectorEventLoop, pair: Pair, native_user: Adopt
) -> None:
    fail_with(native_user(loop), "EPROTO", pair)
    with pytest.raises(OSError, match="a function given to the loop returned -EPROTO"):
        loop.run(20.0)


def test_error_hook_of_a_loop_gets_it(
    selector_factory: SelectorFactory, pair: Pair, native_user: Adopt
) -> None:
    """On each selector the loop goes on, and no exception leaves it."""
    seen: list[tuple[BaseException, object]] = []
    loop = SelectorEventLoop(
        selector_factory(), error_hook=lambda *what: seen.append(what)
    )
    with loop:
        native = native_user(loop)
        fail_with(native, "EPROTO", pair)
        loop.run_once(0)
        loop.run_once(0)
        native.counts.result = 0
        loop.run_once(0)
        assert native.counts.called == 3
        assert [type(error) for error, _ in seen] == [OSError] * 2
        assert {source for _, source in seen} == {loop.native}


def test_error_hook_gets_it_while_only_streams_are_busy(
    pair: Pair, native_user: Adopt
) -> None:
    seen: list[BaseException] = []

    class Chatting(StreamHandler):
        """Gets another byte for each one it receives, until a native function fails."""

        count = 0

        def on_data(self, _stream: Stream, _data: bytes) -> None:
            self.count += 1
            if self.count == 3:
                fail_with(native, "EPROTO", pair)
            if not seen:
                theirs.send(b"x")

        def on_end(self, _stream: Stream) -> None:
            loop.stop()

    def take(error: BaseException, _source: object) -> None:
        native.counts.result = 0
        seen.append(error)
        theirs.shutdown(socket.SHUT_WR)

    ours, theirs = socket.socketpair()
    with SelectorEventLoop(error_hook=take) as loop, theirs:
        native = native_user(loop)
        add_stream(loop, ours, Chatting())
        theirs.send(b"x")
        loop.run()
    assert [str(error).count("-EPROTO") for error in seen] == [1]


def test_asyncio_raises_it(pair: Pair, native_user: Adopt) -> None:
    selector = Selector()
    loop = asyncio.SelectorEventLoop(selector)
    try:
        fail_with(native_user(selector), "ESTALE", pair)
        with pytest.raises(OSError, match="a function given to the loop returned"):
            loop.run_forever()
    finally:
        loop.close()


@pytest.mark.faults
def test_error_of_the_kernel_is_not_laid_at_a_function(
    pair: Pair, native_user: Adopt
) -> None:
    with Selector("poll") as selector:
        native = native_user(selector)
        fail_with(native, "EPROTO", pair)
        with pytest.raises(OSError, match="returned -EPROTO"):
            selector.select(0)
        lib.fdmux_testing_fail(lib.FDMUX_CALL_ANY, 1, errno.EPROTO, 0)
        try:
            with pytest.raises(OSError, match="wait in a Selector") as caught:
                selector.select(0)
        finally:
            lib.fdmux_testing_fail(0, 0, 0, 0)
        assert "function" not in str(caught.value)
