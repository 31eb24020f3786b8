"""An extension compiled against the headers of any release runs on today's core."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

import fdmux

if TYPE_CHECKING:
    from tests.abi.conftest import Consumer

pytestmark = pytest.mark.slow  # an extension is compiled for each release

# io, ticks, posts, bytes, hooks; and at the end its four watchers are destroyed.
HAPPENED = (1, 3, 10, 17, 1)


@pytest.mark.parametrize("backend", ["epoll", "poll"])
def test_consumer_of_every_release_runs_on_this_core(
    backend: str, consumer: Consumer
) -> None:
    deadline = time.monotonic() + 10
    with fdmux.Selector(backend) as selector:
        consumer.start(selector)
        while consumer.counts()[:5] != HAPPENED:
            assert time.monotonic() < deadline, consumer.counts()
            selector.select(0.01)
        assert consumer.counts()[5] == 0
    assert consumer.counts() == (*HAPPENED, 4)
    assert consumer.finish() == b"hello, later core"


def test_consumer_of_every_release_imports_this_core(consumer: Consumer) -> None:
    major, minor = consumer.import_core()
    assert fdmux.ABI_VERSION[0] == major
    assert fdmux.ABI_VERSION[1] >= minor
    assert consumer.has_table()


def test_python_watches_beside_a_consumer_of_every_release(consumer: Consumer) -> None:
    left, right = socket.socketpair()
    with left, right, fdmux.Selector() as selector:
        selector.register(left, fdmux.EVENT_READ)
        consumer.start(selector)
        right.send(b"x")
        deadline = time.monotonic() + 10
        is_seen = False
        while not is_seen or consumer.counts()[:5] != HAPPENED:
            assert time.monotonic() < deadline, consumer.counts()
            is_seen = bool(selector.select(0.01)) or is_seen
    assert consumer.finish()
