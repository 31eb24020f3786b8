"""read_with_timeout keeps the socket's mode; one deadline covers the whole read."""

from __future__ import annotations

import os
import socket
import sys
import time
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Protocol

import pytest

import fdmux.sockets.read
from fdmux.sockets.read import ReadTimeoutError, fill, read_with_timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

Pair = tuple[socket.socket, socket.socket]


class Untouchable(socket.socket):
    """A socket that does not let its mode be changed, not even for a moment."""

    def setblocking(self, flag: bool, /) -> None:
        raise AssertionError(f"setblocking({flag}) was called")

    def settimeout(self, value: float | None, /) -> None:
        raise AssertionError(f"settimeout({value}) was called")


@pytest.fixture(params=[None, 0.0, 3.0], ids=["blocking", "non-blocking", "timed"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    plain, right = socket.socketpair()
    left = Untouchable(fileno=plain.detach())
    with left, right:
        socket.socket.settimeout(left, request.param)
        mode = mode_of(left)
        yield left, right
        assert mode_of(left) == mode


def mode_of(sock: socket.socket) -> tuple[float | None, bool]:
    """The mode that Python knows, and that of the kernel, where that tells it."""
    is_blocking = sys.platform == "win32" or os.get_blocking(sock.fileno())
    return sock.gettimeout(), is_blocking


def test_mode_is_kept_when_the_bytes_are_there(pair: Pair) -> None:
    pair[1].send(b"abc")
    assert read_with_timeout(pair[0], 3) == b"abc"


def test_mode_is_kept_on_timeout_and_deadline_is_ours(pair: Pair) -> None:
    pair[1].send(b"abc")
    started = time.monotonic()
    with pytest.raises(ReadTimeoutError):
        read_with_timeout(pair[0], 4, 0.02)
    assert 0.02 <= time.monotonic() - started < 1.0, "the socket's own timeout is 3 s"


def test_mode_is_kept_on_end_of_stream(pair: Pair) -> None:
    pair[1].shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError):
        read_with_timeout(pair[0], 4)


def test_deadline_holds_when_someone_else_changed_the_open_file(pair: Pair) -> None:
    """O_NONBLOCK belongs to the open file, which dup() and fork() share."""
    fd = pair[0].fileno()
    before = os.get_blocking(fd)
    os.set_blocking(fd, True)
    with pytest.raises(ReadTimeoutError):
        read_with_timeout(pair[0], 4, 0.02)
    os.set_blocking(fd, before)


class SlowPeer:
    """A peer that sends a byte, then pauses; time passes only in its pauses."""

    def __init__(self, pause: float, *, ready: bool) -> None:
        self.now = 1000.0
        self.pause = pause
        self.ready = ready
        self.waits: list[float] = []
        self.blocked = False

    def fileno(self) -> int:
        return 7

    def gettimeout(self) -> None:
        return None

    def recv(self, _size: int, _flags: int) -> bytes:
        if self.ready:
            self.now += self.pause
            return b"x"
        self.blocked = not self.blocked
        if self.blocked:
            raise BlockingIOError
        return b"x"

    def wait(self, fds: list[int], timeout: float) -> list[int]:
        self.waits.append(timeout)
        self.now += min(self.pause, timeout)
        return fds


class MakePeer(Protocol):
    def __call__(self, pause: float, *, ready: bool = False) -> SlowPeer: ...


@pytest.fixture
def slow_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> MakePeer:
    def make(pause: float, *, ready: bool = False) -> SlowPeer:
        peer = SlowPeer(pause, ready=ready)
        for module in (fdmux.sockets.read, fdmux.sockets.wait):
            monkeypatch.setattr(module, "monotonic", lambda: peer.now)
        monkeypatch.setattr(fdmux.sockets.read, "wait_readable", peer.wait)
        return peer

    return make


def test_deadline_does_not_start_again_with_each_piece(
    slow_peer: MakePeer,
) -> None:
    peer = slow_peer(0.4)
    with pytest.raises(ReadTimeoutError) as caught:
        read_with_timeout(peer, 10, 1.0)  # type: ignore[arg-type] # a scripted one
    assert peer.waits == pytest.approx([1.0, 0.6, 0.2])
    assert caught.value.partial == b"xxx", "what came at the last moment counts"


def test_peer_that_never_pauses_cannot_outrun_the_deadline(
    slow_peer: MakePeer,
) -> None:
    peer = slow_peer(0.3, ready=True)
    with pytest.raises(ReadTimeoutError) as caught:
        read_with_timeout(peer, 2**40, 1.0)  # type: ignore[arg-type] # a scripted one
    assert caught.value.partial == b"xxxx"
    assert peer.waits == []


def test_spurious_readiness_waits_again(
    slow_peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = slow_peer(0.4)
    script: list[bytes | None] = [None, None, b"abc"]

    def receive(*_: int) -> bytes:
        step = script.pop(0)
        if step is None:
            raise BlockingIOError
        return step

    monkeypatch.setattr(peer, "recv", receive)
    assert read_with_timeout(peer, 3, 1.0) == b"abc"  # type: ignore[arg-type] # scripted
    assert peer.waits == pytest.approx([1.0, 0.6])


def test_fill_asks_for_what_is_missing_and_never_for_much() -> None:
    sizes: list[int] = []
    script: list[bytes | int] = [EVENT_READ, b"abc", EVENT_WRITE, b"def", b""]

    def receive(size: int) -> bytes | int:
        sizes.append(size)
        return script.pop(0)

    buffer = bytearray()
    assert list(fill(buffer, 2**40, receive)) == [EVENT_READ, 0, EVENT_WRITE, 0]
    assert buffer == b"abcdef"
    assert max(sizes) <= 256 * 1024

    sizes.clear()
    script += [b"ghi", b"j"]
    assert list(fill(buffer, 10, receive)) == [0]
    assert sizes == [4, 1]
    assert buffer == b"abcdefghij"
