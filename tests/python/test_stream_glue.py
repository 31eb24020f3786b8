"""The C code between Python and the core refuses what says nothing, and a closed loop.

Python never gives it such words; this does, at the boundary itself.
"""

from __future__ import annotations

import errno
import socket
from array import array
from typing import TYPE_CHECKING, Protocol, cast

import pytest

from fdmux import NativeLoop
from fdmux._ffi import ffi, lib
from fdmux.hosts.asyncio_streams import StreamBatch
from fdmux.selector import Selector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fdmux._ffi import CStreamBatch, CStreams

    class Exchange(Protocol):
        """A function of C, which looks at what it is given."""

        def __call__(self, *args: object) -> object: ...


ECHO = 0
NO_SLOT = 7
ONE = 1 << 32  # operand 1


class Ground:
    """A loop that collects from streams; a stream of it, in slot 0, and its peer."""

    def __init__(self) -> None:
        self.native = NativeLoop()
        self.c_loop = self.native._c_loop
        self.streams = StreamBatch(self.c_loop)
        self.handle: CStreams = ffi.new("struct fdmux_py_streams *")
        self.handle.loop = self.c_loop
        self.ours, self.peer = socket.socketpair()
        self.ours.setblocking(False)
        self.token = ffi.new("uint64_t *")
        options = self.streams.options
        result = lib.fdmux_py_stream_lend(
            self.c_loop, self.ours.fileno(), options, self.token
        )
        assert result == 0

    def settle(self, *words: int, joined: bytes = b"") -> int:
        packed = array("Q", words).tobytes()
        size = len(joined)
        return lib.fdmux_py_stream_settle(self.handle, packed, len(words), joined, size)

    def close(self) -> None:
        self.native.close()
        self.ours.close()
        self.peer.close()


@pytest.fixture
def ground() -> Iterator[Ground]:
    made = Ground()
    yield made
    made.close()


@pytest.mark.parametrize(
    "words",
    [
        [NO_SLOT],  # echo what a stream received that never was
        [ECHO],  # echo what was not received
        [lib.FDMUX_PY_PASS | NO_SLOT << 32],
        [lib.FDMUX_PY_PASS],
        [lib.FDMUX_PY_SEND | 5 << 32],  # more than there are
        [lib.FDMUX_PY_PART | 1 << 63, 1],  # behind what the arena holds
        [lib.FDMUX_PY_PART, 1],  # more than it holds
        [lib.FDMUX_PY_PART],  # no length
    ],
)
def test_words_that_say_nothing_are_invalid(ground: Ground, words: list[int]) -> None:
    assert ground.settle(*words, joined=b"four") == -errno.EINVAL


def test_words_about_streams_that_are_over_are_passed_by(ground: Ground) -> None:
    send = lib.FDMUX_PY_SEND | NO_SLOT | ONE
    assert ground.settle(send, lib.FDMUX_PY_DROP | NO_SLOT, joined=b"x") == 0
    assert ground.settle(lib.FDMUX_PY_DROP, lib.FDMUX_PY_SHUTDOWN) == 0
    assert lib.fdmux_py_stream_serve(ground.c_loop) == 0
    assert ground.settle(lib.FDMUX_PY_SEND | ONE, joined=b"x") == 0


def test_slot_without_a_stream_has_no_token_and_no_totals(ground: Ground) -> None:
    assert lib.fdmux_py_stream_token(ground.c_loop, 0) == ground.token[0]
    for slot in (0, NO_SLOT):
        lib.fdmux_py_stream_give_back(ground.c_loop, ground.token[0])
        lib.fdmux_py_stream_serve(ground.c_loop)
        assert lib.fdmux_py_stream_token(ground.c_loop, slot) == -errno.ENOENT
        assert not lib.fdmux_py_totals_hold(ground.c_loop, slot)
    assert (
        lib.fdmux_py_stream_await_low(ground.c_loop, ground.token[0], 1)
        == -errno.ENOENT
    )


def test_stream_is_given_back_once(ground: Ground) -> None:
    assert lib.fdmux_py_stream_give_back(ground.c_loop, ground.token[0]) == 0
    assert lib.fdmux_py_stream_give_back(ground.c_loop, ground.token[0]) == 0
    assert lib.fdmux_py_stream_serve(ground.c_loop) == 0
    assert (
        lib.fdmux_py_stream_give_back(ground.c_loop, ground.token[0]) == -errno.ENOENT
    )


def test_words_without_a_batch_are_invalid(ground: Ground) -> None:
    nowhere = cast("CStreamBatch", ffi.NULL)
    assert lib.fdmux_stream_collect(ground.c_loop, nowhere) == 0
    assert ground.settle(lib.FDMUX_PY_DROP) == -errno.EINVAL
    assert ground.streams.settle_in_c([]) == -errno.EINVAL


def test_every_function_says_that_the_loop_is_closed(ground: Ground) -> None:
    ground.native.close()
    c_loop, token = ground.c_loop, ground.token[0]
    nothing = (ground.handle, b"", 0, b"", 0)
    options = ground.streams.options
    results = [
        lib.fdmux_py_stream_settle(*nothing),
        lib.fdmux_py_stream_flush(*nothing),
        lib.fdmux_py_stream_turn(*nothing),
        lib.fdmux_py_stream_serve(c_loop),
        lib.fdmux_py_stream_lend(c_loop, ground.ours.fileno(), options, ground.token),
        lib.fdmux_py_stream_give_back(c_loop, token),
        lib.fdmux_py_stream_await_low(c_loop, token, 1),
        lib.fdmux_py_stream_token(c_loop, 0),
        lib.fdmux_py_stream_tick(c_loop, 1),
        lib.fdmux_py_io_add(c_loop, ground.ours.fileno(), 1),
    ]
    assert results == [-errno.ESTALE] * len(results)
    assert not lib.fdmux_py_totals_hold(c_loop, 0)
    assert ground.streams.settle_in_c([]) == -errno.ESTALE


def test_closed_loop_has_an_empty_batch(ground: Ground) -> None:
    with Selector() as selector:
        ground.streams.wait_with(selector._batch)
        ground.native.close()
        assert ground.streams.turn_in_c([], 0) == (-errno.ESTALE, [], [])


def test_writes_that_are_none_raise_and_send_nothing(ground: Ground) -> None:
    exchange = cast("Exchange", ground.streams.settle_in_c)
    for writes, kind in (
        ([lib.FDMUX_PY_SEND, "text"], TypeError),
        (["word", b"data"], TypeError),
        ([-1, b"data"], OverflowError),
    ):
        with pytest.raises(kind):
            exchange(writes)
    with pytest.raises(TypeError):
        cast("Exchange", ground.streams.turn_in_c)([], "soon")
    ground.peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        ground.peer.recv(1)


def test_word_without_its_bytes_is_dropped(ground: Ground) -> None:
    writes: list[int | bytes] = [lib.FDMUX_PY_SEND, b"sent", lib.FDMUX_PY_SEND]
    assert ground.streams.settle_in_c(writes) == 0
    assert writes == []
    assert ground.peer.recv(9) == b"sent"


def test_descriptor_that_cannot_be_one_is_refused(ground: Ground) -> None:
    assert lib.fdmux_py_io_add(ground.c_loop, -1, 1) == -errno.EBADF
    assert lib.fdmux_py_io_add(ground.c_loop, 1 << 30, 1) == -errno.EMFILE


def test_wait_whose_deadline_has_passed_does_not_wait_again() -> None:
    with Selector() as selector:
        batch = selector._batch
        assert lib.fdmux_py_select(batch, 1) == 0
        assert lib.fdmux_py_select_again(batch) == 0


def test_capsule_of_nothing_or_of_an_unknown_kind_is_not_made() -> None:
    made: list[object] = []
    unknown = lib.FDMUX_PY_NAME_MEMORY + 1
    append = lib.fdmux_py_capsule_append
    assert append(id(made), 1, unknown, 0, 0) == -errno.EINVAL
    assert append(id(made), 0, lib.FDMUX_PY_NAME_LOOP, 0, 0) == -errno.ENOMEM
    assert made == []


def test_loop_that_is_none_cannot_be_closed() -> None:
    assert lib.fdmux_py_loop_close(ffi.NULL) == -errno.EINVAL
    assert lib.fdmux_py_is_fn_error(ffi.NULL, -errno.EIO) == 0


def test_demo_is_not_freed_while_its_calls_wait() -> None:
    with NativeLoop() as native:
        made = ffi.new("struct fdmux_py_demo **")
        assert lib.fdmux_py_demo_start(native._c_loop, made) == 0
        assert lib.fdmux_py_demo_stop(made[0]) == -errno.EBUSY
        native.dispatch(0)
        assert lib.fdmux_py_demo_stop(made[0]) == 0


def test_demo_is_freed_when_its_calls_were_dropped() -> None:
    native = NativeLoop()
    made = ffi.new("struct fdmux_py_demo **")
    counts = ffi.new("struct fdmux_py_demo_counts *")
    assert lib.fdmux_py_demo_start(native._c_loop, made) == 0
    assert lib.fdmux_py_demo_stop(made[0]) == -errno.EBUSY  # its thread has ended
    native.close()
    lib.fdmux_py_demo_count(made[0], counts)
    assert counts.dropped == lib.FDMUX_PY_DEMO_CALLS
    assert counts.calls == 0
    assert lib.fdmux_py_demo_stop(made[0]) == 0
