"""ClientPool: servers that answer out of turn, slowly, or too late."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from tests.python.pool.test_pool import LONG, ScriptedServer, answer, read_and_reset

from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.pool import connection
from fdmux.pool.outcome import ExchangeTimeoutError
from fdmux.pool.pool import ClientPool

if TYPE_CHECKING:
    import socket

    from tests.python.conftest import FakeClock

BIG = 16 << 20  # more than the kernel takes at once


def test_connection_that_speaks_unasked_is_replaced() -> None:
    asked, spoken = threading.Event(), threading.Event()

    def speak_unasked(sock: socket.socket) -> None:
        answer(b"1")(sock)
        assert asked.wait(LONG)
        sock.sendall(b"and another thing")
        spoken.set()

    with (
        ScriptedServer(speak_unasked, answer(b"2")) as address,
        ClientPool(*address, size=1) as pool,
    ):
        assert pool.exchange([b"x"], 1) == [b"1"]
        asked.set()
        assert spoken.wait(LONG)
        assert pool.exchange([b"y"], 1) == [b"2"]


def read_exactly(sock: socket.socket, size: int) -> None:
    while size > 0:
        size -= len(sock.recv(min(size, 1 << 20)))


@pytest.mark.parametrize("is_one_piece", [False, True])
def test_reply_that_precedes_the_end_of_a_long_message_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, is_one_piece: bool
) -> None:
    """The server does not read until the client has to wait for it."""
    if is_one_piece:
        monkeypatch.setattr(connection, "PIECE_SIZE", BIG)
    is_stuck = threading.Event()
    read: list[int] = []

    def answer_first(sock: socket.socket) -> None:
        sock.sendall(b"early")
        assert is_stuck.wait(LONG)
        read_exactly(sock, BIG)
        read.append(BIG)
        answer(b"later")(sock)

    with (
        SelectorEventLoop() as loop,
        ScriptedServer(answer_first) as address,
        ClientPool(*address, size=1, loop=loop) as pool,
    ):
        loop.call_soon_threadsafe(is_stuck.set)
        assert pool.exchange([bytes(BIG), b"x"], 5) == [b"early", b"later"]
    assert read == [BIG]


def test_message_that_waits_to_be_sent_again_can_run_out_of_time(
    clock: FakeClock,
) -> None:
    def time_out_and_reset(sock: socket.socket) -> None:
        clock.advance(5)
        read_and_reset(sock)

    with (
        SelectorEventLoop(clock=clock) as loop,
        ScriptedServer(time_out_and_reset) as address,
        ClientPool(*address, size=1, timeout=5, loop=loop) as pool,
    ):
        with pytest.raises(ExchangeTimeoutError):
            pool.exchange([b"x"], 1)
        assert pool.connection_count == 0
