"""Pairs of blocking sockets: the functions tested here must not need another mode."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers import Pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@pytest.fixture
def other() -> Iterator[Pair]:
    """A second pair."""
    left, right = socket.socketpair()
    with left, right:
        yield left, right
