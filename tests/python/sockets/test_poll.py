"""The stand-in for poll(2) that Windows gets, here on the select of this system."""

from __future__ import annotations

import runpy
import socket
import sys
from typing import TYPE_CHECKING, Protocol, cast

import pytest

from fdmux.sockets import poll as module

if TYPE_CHECKING:
    from collections.abc import Iterator


class Poller(Protocol):
    """What is made at run time."""

    def register(self, fd: int | socket.socket, events: int) -> None: ...

    def poll(self, timeout: float | None) -> list[tuple[int, int]]: ...


@pytest.fixture
def poller(monkeypatch: pytest.MonkeyPatch) -> Poller:
    monkeypatch.setattr(sys, "platform", "win32")
    return cast("Poller", runpy.run_path(module.__file__)["poll"]())


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


READ, WRITE, CLOSED = 0x1, 0x4, 0x20


def test_nothing_is_ready(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    poller.register(pair[0], READ)
    assert poller.poll(0) == []


def test_both_directions(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    pair[1].send(b"x")
    poller.register(pair[0], READ | WRITE)
    poller.register(pair[1].fileno(), WRITE)
    assert poller.poll(None) == [
        (pair[0].fileno(), READ | WRITE),
        (pair[1].fileno(), WRITE),
    ]


def test_closed_descriptor_is_told(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    gone = pair[0].fileno()
    poller.register(gone, READ)
    poller.register(pair[1], READ)
    pair[0].close()
    assert poller.poll(0) == [(gone, CLOSED)]
