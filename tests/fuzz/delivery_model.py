"""The model of one connection, which the calls of fuzz_delivery.py are checked by.

Its rules: bytes come in order and once; no data while reading is paused, nothing after
a close but its end, and that once; what was written before a close arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import socket
from typing import TYPE_CHECKING, Protocol

from tests.peers import reset

import fdmux

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (0, 1, 2, 5, 100, 4096, 33_000, 70_000, 200_000)
PATTERN = random.Random(1).randbytes(1 << 22)


class FuzzError(Exception):
    """What a callback raises."""


class BrokenRuleError(AssertionError):
    """A rule does not hold."""


def must(condition: bool, rule: str) -> None:
    if not condition:
        raise BrokenRuleError(rule)


class Verbs(Protocol):
    """What a stream and a transport have in common."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object: ...
    def writelines(self, lines: list[bytes], /) -> object: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Chooser(Protocol):
    """The run that a connection belongs to."""

    def choose(self, count: int) -> int: ...
    def size(self) -> int: ...
    def inside(self, side: Side, *, may_raise: bool = True) -> None: ...


def do_nothing() -> None:
    """Shut down what does not exist yet."""


@dataclasses.dataclass
class Side:
    """One connection: what its peer, its user and its callbacks have done."""

    run: Chooser
    peer: socket.socket
    verbs: Verbs | None = None
    shut_down: Callable[[], None] = do_nothing
    sent: int = 0  # by the peer
    got: int = 0
    written: int = 0
    read: int = 0  # by the peer
    is_peer_over: bool = False  # it sends no more
    is_peer_gone: bool = False  # it reads no more
    is_paused: bool = False
    is_shut: bool = False
    is_closing: bool = False
    is_dropped: bool = False  # aborted: what is queued is lost
    is_ended: bool = False
    is_closed: bool = False
    error: object = None

    # Callbacks ------------------------------------------------------------------

    def _check_call(self, what: str) -> None:
        must(not self.is_closed, f"{what} after the end")
        must(not self.is_closing, f"{what} after a close")

    def on_data(self, data: bytes) -> None:
        self._check_call("data")
        must(not self.is_paused, "data while reading is paused")
        must(not self.is_ended, "data after the peer's end")
        must(len(data) > 0, "data without a byte")
        must(data == PATTERN[self.got : self.got + len(data)], "other bytes")
        self.got += len(data)
        self.run.inside(self)

    def on_end(self) -> bool:
        """Return whether the connection stays open."""
        self._check_call("the peer's end")
        must(not self.is_paused, "the peer's end while reading is paused")
        must(self.is_peer_over and self.got == self.sent, "an end before the data")
        must(not self.is_ended, "a second end")
        self.is_ended = True
        self.run.inside(self)
        return self.run.choose(2) == 0

    def on_writable(self) -> None:
        self._check_call("writable")
        self.run.inside(self, may_raise=False)

    def on_close(self, error: object) -> None:
        must(not self.is_closed, "a second close")
        must(error is not None or self.is_closing, "an end that nobody asked for")
        self.is_closed = self.is_closing = True
        self.error = error
        self.run.inside(self, may_raise=False)

    # What the user does ---------------------------------------------------------

    def write(self) -> None:
        data = PATTERN[self.written : self.written + self.run.size()]
        assert self.verbs is not None
        is_open, is_shut = not self.is_closing, self.is_shut
        if isinstance(self.verbs, asyncio.Transport) and not (
            is_open or self.is_closed
        ):
            return  # asyncio still sends it if something is queued
        if is_open and not is_shut:
            self.written += len(data)
        try:
            self._write_as(self.run.choose(4), self.verbs, data)
        except (BrokenPipeError, RuntimeError) as error:
            must(is_shut, f"an error of write: {error!r}")
        else:
            must(not (is_open and is_shut and data), "a write after shutdown")

    @staticmethod
    def _write_as(form: int, verbs: Verbs, data: bytes) -> None:
        if form == 0:
            verbs.write(memoryview(data))
        elif form == 1:
            verbs.writelines([data[:7], data[7:]])
        elif form == 2:
            buffer = bytearray(data)
            verbs.write(buffer)
            buffer[:] = bytes(len(buffer))  # it is the caller's again
        else:
            verbs.write(data)

    def shutdown(self) -> None:
        if not self.is_closing:
            self.is_shut = True
        self.shut_down()

    def close(self) -> None:
        assert self.verbs is not None
        self.is_closing = True
        self.verbs.close()

    def abort(self) -> None:
        assert self.verbs is not None
        self.is_closing = self.is_dropped = True
        self.verbs.abort()

    def pause(self) -> None:
        assert self.verbs is not None
        self.is_paused = True
        self.verbs.pause_reading()

    def resume(self) -> None:
        assert self.verbs is not None
        self.is_paused = False
        self.verbs.resume_reading()

    def look(self) -> None:
        """Ask for facts."""
        assert self.verbs is not None
        repr(self.verbs)
        if isinstance(self.verbs, fdmux.Stream):
            must(self.verbs.is_closing or not self.is_closing, "is_closing")
            must(self.verbs.buffered >= 0 and self.verbs.fileno() >= -1, "facts")
        elif isinstance(self.verbs, asyncio.Transport):
            must(self.verbs.get_write_buffer_size() >= 0, "the buffer's size")

    # What the peer does ---------------------------------------------------------

    def peer_send(self) -> None:
        if self.is_peer_over:
            return
        data = PATTERN[self.sent : self.sent + self.run.size()]
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self.sent += self.peer.send(data)

    def peer_read(self) -> bool:
        """Return whether there was anything."""
        if self.is_peer_gone:
            return False
        try:
            data = self.peer.recv(1 << 20)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        must(data == PATTERN[self.read : self.read + len(data)], "other bytes written")
        self.read += len(data)
        must(self.read <= self.written, "more than was written")
        return len(data) > 0

    def peer_end(self) -> None:
        if not self.is_peer_over:
            self.is_peer_over = True
            with contextlib.suppress(OSError):
                self.peer.shutdown(socket.SHUT_WR)

    def peer_close(self) -> None:
        if self.run.choose(4) == 0 and not self.is_peer_gone:  # rare
            self.is_peer_over = self.is_peer_gone = True
            if self.run.choose(2) == 0:
                reset(self.peer)
            else:
                self.peer.close()

    def check_end(self) -> None:
        """What must hold when all is over."""
        must(self.is_closed or self.verbs is None, "no end")
        if self.error is not None or self.is_dropped or self.is_peer_gone:
            return
        # A socket that is closed with unread data resets its peer (RFC 2525, 2.17):
        # what was on its way may be lost.
        must(self.read == self.written or self.got < self.sent, "bytes that got lost")


CALLS_OF_A_SIDE = (
    *(Side.write,) * 3,
    *(Side.peer_send,) * 4,
    *(Side.peer_read,) * 3,
    *(Side.resume,) * 2,
    Side.pause,
    Side.look,
    Side.shutdown,
    Side.close,
    Side.abort,
    Side.peer_end,
    Side.peer_close,
)
