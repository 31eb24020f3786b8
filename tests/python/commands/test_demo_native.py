"""The C code that the demo puts beside Python's sockets, also where starting fails."""

from __future__ import annotations

import errno
import itertools

import pytest

from fdmux import NativeLoop
from fdmux._ffi import lib
from fdmux.commands.tour.c_source import CSource
from fdmux.commands.tour.expect import UnexpectedError, expect


def test_all_it_does_is_done_and_it_ends_with_the_loop() -> None:
    with CSource() as source:
        with NativeLoop() as native:
            source.start(native)
            while not source.is_done():
                native.dispatch(0.001)  # native traffic does not end a wait
            assert native.stats().io_live == 1
            assert source.counts().destroyed == 0
        assert source.check_ended().startswith("in C 64 bytes, 5 ticks")
        assert source.counts().dropped == 0


def test_loop_that_is_never_run_drops_every_call() -> None:
    with CSource() as source:
        with NativeLoop() as native:
            source.start(native)
        counts = source.counts()
        assert (counts.bytes, counts.calls, counts.destroyed) == (0, 0, 2)
        with pytest.raises(UnexpectedError):
            source.check_ended()


def test_expect_raises_with_the_text() -> None:
    expect(True, "not raised")
    with pytest.raises(UnexpectedError, match="this is raised"):
        expect(False, "this is raised")


@pytest.mark.faults
@pytest.mark.parametrize("persistent", [False, True], ids=["once", "from-then-on"])
def test_start_survives_each_failing_call(persistent: bool) -> None:
    for nth in itertools.count(1):
        if starts_when_a_call_fails(nth, persistent):
            break
    assert nth > 3  # at least the memory, the pipe and the watcher were tried


def starts_when_a_call_fails(nth: int, persistent: bool) -> bool:
    with CSource() as source, NativeLoop() as native:
        lib.fdmux_testing_fail(lib.FDMUX_CALL_ANY, nth, errno.EMFILE, persistent)
        try:
            source.start(native)
        except (OSError, MemoryError):
            assert (native.stats().io_live, native.stats().timer_live) == (0, 0)
            return False
        finally:
            lib.fdmux_testing_fail(0, 0, 0, False)
        return True
