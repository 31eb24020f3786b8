"""A pool whose server is away: it waits, and tries again less and less often."""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.pool import backoff
from fdmux.pool.backoff import Backoff
from fdmux.pool.outcome import ExchangeConnectionError, ExchangeTimeoutError
from fdmux.pool.pool import ClientPool
from fdmux.streams.echo import EchoServer

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = 30.0


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port that refuses, until a server with reuse_port takes it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
        if sys.platform == "win32":  # nobody else may have a port that is bound there
            sock.close()
        yield port


def test_delays_double_with_jitter_until_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for share in (0.5, 1.0):
        monkeypatch.setattr("random.uniform", lambda _low, _high, share=share: share)
        waits = Backoff(10.0)
        now, delays = 1000.0, []
        while waits.failed(now):
            delays.append(waits.not_before - now)
            now = waits.not_before
        wanted = [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
        assert delays[:7] == pytest.approx([share * one for one in wanted])
        assert max(delays) <= backoff.LONGEST
        assert now <= 1010.0 < waits.not_before


def test_jitter_is_random_within_a_half() -> None:
    firsts = set()
    for _ in range(50):
        waits = Backoff(10.0)
        waits.failed(0.0)
        firsts.add(waits.not_before)
    assert len(firsts) > 10
    assert min(firsts) >= backoff.FIRST / 2
    assert max(firsts) <= backoff.FIRST


def test_attempts_that_fail_together_count_as_one() -> None:
    waits = Backoff(10.0)
    for _ in range(8):
        assert waits.failed(0.0)
    assert waits.not_before <= backoff.FIRST


def test_success_begins_anew() -> None:
    waits = Backoff(1.0)
    for number in range(5):
        waits.failed(float(number))
    waits.succeeded()
    assert waits.not_before < 0
    assert waits.failed(100.0)
    assert waits.not_before <= 100.0 + backoff.FIRST


def test_messages_wait_for_a_server_that_comes_back(free_port: int) -> None:
    with SelectorEventLoop() as loop:
        server = EchoServer(port=free_port, loop=loop)
        server.start()
        pool = ClientPool("127.0.0.1", free_port, 4, LONG, loop=loop, away_timeout=LONG)
        with pool:
            assert pool.exchange([b"a"], reply=1) == [b"a"]
            server.stop()
            loop.call_later(0.3, server.start)
            assert pool.exchange([b"b"] * 20, reply=1) == [b"b"] * 20
        server.stop()


def test_messages_fail_when_the_server_stays_away(
    free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once: not each after attempts of its own."""
    attempts = []
    start = "fdmux.pool.pool.use_address"

    def count(*_arguments: object) -> None:
        attempts.append(1)
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    monkeypatch.setattr(start, count)
    with ClientPool("127.0.0.1", free_port, 4, LONG, away_timeout=0.2) as pool:
        outcomes = pool.exchange([b"x"] * 50, reply=1, return_errors=True)
    assert {type(one) for one in outcomes} == {ExchangeConnectionError}
    assert 2 <= len(attempts) <= 10


def test_refused_messages_fail_together_in_bounded_attempts(free_port: int) -> None:
    """Also in the next exchange, which begins while the server is still away."""
    with ClientPool("127.0.0.1", free_port, 4, LONG, away_timeout=0.2) as pool:
        for _ in range(2):
            outcomes = pool.exchange([b"x"] * 50, reply=1, return_errors=True)
            assert {type(one) for one in outcomes} == {ExchangeConnectionError}
            assert "refused" in str(outcomes[-1])


def test_exchange_after_one_that_was_cut_short_waits_its_turn(free_port: int) -> None:
    with ClientPool("127.0.0.1", free_port, 1, 0.1, away_timeout=LONG) as pool:
        for _ in range(3):
            with pytest.raises(ExchangeTimeoutError):
                pool.exchange([b"x"], reply=1)


def test_own_timeout_of_a_message_comes_first(free_port: int) -> None:
    with (
        ClientPool("127.0.0.1", free_port, 1, 0.1, away_timeout=LONG) as pool,
        pytest.raises(ExchangeTimeoutError),
    ):
        pool.exchange([b"x"], reply=1)


def test_without_away_timeout_it_fails_at_once(free_port: int) -> None:
    with (
        ClientPool("127.0.0.1", free_port, 1, LONG) as pool,
        pytest.raises(ExchangeConnectionError, match="refused"),
    ):
        pool.exchange([b"x"], reply=1)
