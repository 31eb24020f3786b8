"""Which callbacks are called for a descriptor, and when they end."""

from __future__ import annotations

import os
import selectors
import socket
from typing import TYPE_CHECKING

import pytest

from fdmux.loop.event_loop import SelectorEventLoop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def other_pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def fail(_sock: object) -> None:
    pytest.fail("called, though it was taken back")


def test_callback_gets_the_registered_object(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    called: list[object] = []
    loop.register_read(pair[0], called.append)
    loop.register_write(pair[1].fileno(), called.append)
    pair[1].send(b"x")
    assert loop.run_once(1) == 2
    assert sorted(called, key=repr) == sorted([pair[0], pair[1].fileno()], key=repr)


def test_one_socket_has_both_directions(loop: SelectorEventLoop, pair: Pair) -> None:
    called: list[str] = []
    loop.register_read(pair[0], lambda _: called.append("read"))
    loop.register_write(pair[0], lambda _: called.append("write"))
    assert loop.run_once(1) == 1
    pair[1].send(b"x")
    assert loop.run_once(1) == 2
    assert called == ["write", "read", "write"]


def test_one_direction_can_be_taken_back(loop: SelectorEventLoop, pair: Pair) -> None:
    called: list[str] = []
    loop.register_read(pair[0], lambda _: called.append("read"))
    loop.register_write(pair[0], lambda _: called.append("write"))
    pair[1].send(b"x")
    loop.unregister_write(pair[0])
    assert loop.run_once(1) == 1
    loop.register_write(pair[0], lambda _: called.append("write"))
    loop.unregister_read(pair[0])
    assert loop.run_once(1) == 1
    loop.unregister_read(pair[0])
    loop.unregister_write(pair[0])
    assert loop.run_once(0) == 0
    assert called == ["read", "write"]


def test_registering_again_replaces_the_callback(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    called: list[object] = []
    loop.register_read(pair[0], fail)
    loop.register_read(pair[0], called.append)
    pair[1].send(b"x")
    assert loop.run_once(1) == 1
    assert called == [pair[0]]


def test_level_triggered_until_read(loop: SelectorEventLoop, pair: Pair) -> None:
    loop.register_read(pair[0], lambda _: None)
    pair[1].send(b"x")
    assert [loop.run_once(1), loop.run_once(1)] == [1, 1]
    pair[0].recv(1)
    assert loop.run_once(0) == 0


def test_end_of_stream_wakes_reader_and_writer(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    called: list[str] = []
    loop.register_read(pair[0], lambda _: called.append("read"))
    loop.register_write(pair[0], lambda _: called.append("write"))
    pair[1].close()
    loop.run_once(1)
    assert called == ["read", "write"]


def test_unregister_is_quiet_when_there_is_nothing(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    loop.unregister(pair[0])
    loop.unregister(999_999)
    loop.unregister(-1)
    loop.register_read(pair[0], fail)
    pair[0].close()
    loop.unregister(pair[0])
    loop.unregister(pair[0])
    assert loop.run_once(0) == 0


def test_callback_may_unregister_itself(loop: SelectorEventLoop, pair: Pair) -> None:
    loop.register_read(pair[0], loop.unregister)
    pair[1].send(b"x")
    assert loop.run_once(1) == 1
    assert loop.run_once(0) == 0


def test_unregistered_socket_is_not_called_in_same_batch(
    loop: SelectorEventLoop, pair: Pair, other_pair: Pair
) -> None:
    called: list[object] = []

    def only_one(sock: socket.socket) -> None:
        called.append(sock)
        loop.unregister(pair[0])
        loop.unregister(other_pair[0])

    loop.register_read(pair[0], only_one)
    loop.register_read(other_pair[0], only_one)
    pair[1].send(b"x")
    other_pair[1].send(b"x")
    assert loop.run_once(1) == 1
    assert len(called) == 1
    assert loop.run_once(0) == 0


def test_write_is_not_called_when_read_unregisters(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    loop.register_read(pair[0], loop.unregister)
    loop.register_write(pair[0], fail)
    pair[1].send(b"x")
    assert loop.run_once(1) == 1


def test_reused_number_gets_no_stale_event_in_same_batch(
    loop: SelectorEventLoop, pair: Pair, other_pair: Pair
) -> None:
    """Both are ready; the first closes the second, a new socket reuses its number."""
    quiet, quiet_peer = socket.socketpair()
    called: list[object] = []

    def replace_other(sock: socket.socket) -> None:
        called.append(sock)
        loop.unregister(sock)
        victim = other_pair[0] if sock is pair[0] else pair[0]
        number = victim.fileno()
        victim.close()
        os.dup2(quiet.fileno(), number)
        stranger = socket.socket(fileno=number)
        loop.register_read(stranger, fail)
        called.append(stranger)

    loop.register_read(pair[0], replace_other)
    loop.register_read(other_pair[0], replace_other)
    pair[1].send(b"x")
    other_pair[1].send(b"x")
    with quiet, quiet_peer:
        assert loop.run_once(1) == 1
        stranger = called[1]
        assert isinstance(stranger, socket.socket)
        loop.register_read(stranger, called.append)
        quiet_peer.send(b"x")
        loop.run_once(1)
        assert called[-1] is stranger
        loop.unregister(stranger)
        stranger.close()


def test_closed_socket_in_same_batch_is_not_called(
    loop: SelectorEventLoop, pair: Pair, other_pair: Pair
) -> None:
    called: list[object] = []

    def close_both(sock: socket.socket) -> None:
        called.append(sock)
        pair[0].close()
        other_pair[0].close()

    loop.register_read(pair[0], close_both)
    loop.register_read(other_pair[0], close_both)
    pair[1].send(b"x")
    other_pair[1].send(b"x")
    loop.run_once(1)
    assert len(called) == 1
    assert loop.run_once(0) == 0


def test_number_of_a_closed_socket_can_be_registered(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    called: list[object] = []
    number = pair[0].fileno()
    loop.register_read(pair[0], fail)
    left, right = socket.socketpair()
    with left, right:
        pair[0].close()
        os.dup2(left.fileno(), number)
        with socket.socket(fileno=number) as again:
            loop.register_read(again, called.append)
            right.send(b"x")
            assert loop.run_once(1) == 1
            assert called == [again]
            loop.unregister(again)


def test_number_reused_behind_a_plain_number_is_watched(
    loop: SelectorEventLoop,
) -> None:
    """The kernel forgot the number when its file was closed; we must not rely on it."""
    called: list[int] = []
    first, first_peer = os.pipe()
    second, second_peer = os.pipe()
    loop.register_read(first, fail)
    os.close(first)
    os.dup2(second, first)
    loop.register_read(first, called.append)
    os.write(second_peer, b"x")
    assert loop.run_once(1) == 1
    assert called == [first]
    loop.unregister(first)
    for fd in (first, first_peer, second, second_peer):
        os.close(fd)


def test_dup_of_a_closed_socket_neither_spins_nor_calls(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    """epoll(7): the entry lives on with the dup, and reports the old number."""
    loop.register_read(pair[0], fail)
    with pair[0].dup():
        pair[0].close()
        pair[1].send(b"x")
        loop.run_once(0)  # may notice it
        started = loop.time()
        assert loop.run_once(0.05) == 0
        assert loop.time() - started >= 0.05


def test_dup_of_a_closed_socket_does_not_disturb_its_number(
    loop: SelectorEventLoop, pair: Pair
) -> None:
    number = pair[0].fileno()
    loop.register_read(pair[0], fail)
    quiet, quiet_peer = socket.socketpair()
    with pair[0].dup(), quiet, quiet_peer:
        pair[0].close()
        os.dup2(quiet.fileno(), number)
        with socket.socket(fileno=number) as again:
            loop.register_read(again, fail)
            pair[1].send(b"x")  # makes the dup readable, not `again`
            assert loop.run_once(0) == 0
            loop.unregister(again)


def test_object_that_connected_again_is_watched_under_its_new_number(
    loop: SelectorEventLoop, pair: Pair, other_pair: Pair
) -> None:
    class Reconnecting:
        sock = pair[0]

        def fileno(self) -> int:
            return self.sock.fileno()

    called: list[object] = []
    reconnecting = Reconnecting()
    loop.register_read(reconnecting, fail)
    reconnecting.sock = other_pair[0]
    loop.register_read(reconnecting, called.append)
    pair[1].send(b"x")
    other_pair[1].send(b"x")
    loop.run_once(1)
    loop.run_once(0)
    assert called == [reconnecting, reconnecting]


def test_closed_file_object_is_dropped(loop: SelectorEventLoop) -> None:
    """The fileno() of a closed file raises; that of a closed socket returns -1."""
    read_fd, write_fd = os.pipe()
    with open(read_fd, "rb", buffering=0) as reader:  # noqa: PTH123 - a descriptor
        loop.register_read(reader, fail)
    os.close(write_fd)
    loop.run_once(0)
    assert loop.run_once(0) == 0


@pytest.mark.parametrize("wrong", [-1, 2.5, "x", None, object()])
def test_what_is_no_descriptor_is_refused(
    loop: SelectorEventLoop, wrong: object
) -> None:
    with pytest.raises(ValueError, match="Invalid file"):
        loop.register_read(wrong, fail)  # type: ignore[type-var] # on purpose


def test_closed_socket_is_refused(loop: SelectorEventLoop, pair: Pair) -> None:
    pair[0].close()
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        loop.register_read(pair[0], fail)


def test_callback_must_be_callable(loop: SelectorEventLoop, pair: Pair) -> None:
    with pytest.raises(TypeError, match="callback is None; it must be callable"):
        loop.register_read(pair[0], None)  # type: ignore[arg-type] # on purpose
    pair[1].send(b"x")
    assert loop.run_once(0) == 0


def test_regular_file_is_refused_as_the_kernel_does(tmp_path: Path) -> None:
    with (
        SelectorEventLoop(selectors.EpollSelector()) as loop,
        (tmp_path / "file").open("wb") as file,
    ):
        for _ in range(2):  # the second time tells that nothing was kept
            with pytest.raises(PermissionError):
                loop.register_write(file, fail)


def test_two_thousand_descriptors_at_once(
    loop: SelectorEventLoop, selector_factory: object
) -> None:
    if selector_factory is selectors.SelectSelector:
        pytest.skip("select(2) ends at descriptor 1023")
    called: set[int] = set()
    fds = [os.eventfd(1) for _ in range(2000)]
    try:
        for fd in fds:
            loop.register_read(fd, called.add)
        while len(called) < 2000:
            assert loop.run_once(1) > 0
        assert called == set(fds)
    finally:
        for fd in fds:
            loop.unregister(fd)
            os.close(fd)
