"""The order and pace of connection attempts: no socket, no clock, no waiting."""

from __future__ import annotations

import socket
from math import inf

from fdmux.sockets.schedule import STAGGER, Address, Schedule, interleave

V4, V6 = socket.AF_INET, socket.AF_INET6


def address(family: int, host: str) -> Address:
    return Address(family, 0, (host, 80))


ONE, TWO, THREE = (address(V6, f"::{number}") for number in (1, 2, 3))
TEN, ELEVEN = (address(V4, f"10.0.0.{number}") for number in (10, 11))


def test_families_take_turns_and_the_first_begins() -> None:
    assert interleave([ONE, TWO, THREE, TEN, ELEVEN]) == [ONE, TEN, TWO, ELEVEN, THREE]
    assert interleave([TEN, ELEVEN, ONE]) == [TEN, ONE, ELEVEN]


def test_repeated_addresses_are_tried_once() -> None:
    assert interleave([TEN, TEN, ELEVEN, TEN]) == [TEN, ELEVEN]


def test_no_address_gives_no_turn() -> None:
    assert interleave([]) == []
    assert Schedule([]).take(0.0) is None
    assert Schedule([]).next_start == inf


def test_next_attempt_waits_for_the_stagger() -> None:
    schedule = Schedule([ONE, TEN])
    assert schedule.take(100.0) == ONE
    assert schedule.next_start == 100.0 + STAGGER
    assert schedule.take(100.0 + STAGGER - 0.001) is None
    assert schedule.take(100.0 + STAGGER) == TEN


def test_next_attempt_starts_at_once_after_a_failure() -> None:
    schedule = Schedule([ONE, TEN, TWO])
    assert schedule.take(100.0) == ONE
    schedule.hasten()
    assert schedule.take(100.0) == TEN
    assert schedule.take(100.0) is None, "one failure hastens one attempt"


def test_nothing_is_due_once_all_are_given() -> None:
    schedule = Schedule([ONE])
    schedule.take(0.0)
    schedule.hasten()
    assert schedule.take(1e9) is None
    assert schedule.next_start == inf


def test_the_stagger_is_the_recommended_one() -> None:
    assert STAGGER == 0.25  # RFC 8305 section 5
