"""What the tests of hosts share: hosts that leave nothing of their own behind."""

from __future__ import annotations

import contextlib
import importlib
import socket
from typing import TYPE_CHECKING

import pytest

from fdmux.hosts import registry
from fdmux.native import completion

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


def library(name: str) -> ModuleType:
    """Import a host's library, or skip the test and name it."""
    found: ModuleType = pytest.importorskip(name, reason=f"needs {name}")
    return found


@pytest.fixture(scope="session", autouse=True)
def libuv_is_there() -> None:
    """Have libuv make the pipe that it keeps for the whole process."""
    with contextlib.suppress(ImportError):
        importlib.import_module("uvloop").new_event_loop().close()


@pytest.fixture
def uvloop() -> ModuleType:
    return library("uvloop")


@pytest.fixture
def trio() -> ModuleType:
    return library("trio")


@pytest.fixture
def anyio() -> ModuleType:
    return library("anyio")


@pytest.fixture
def gevent() -> Iterator[ModuleType]:
    """gevent, with a hub of its own."""
    gevent = library("gevent")
    gevent.get_hub()
    yield gevent
    mounted = [reference() for reference in registry.mounts.values()]
    ports = [reference() for reference in completion.ports.values()]
    for watched in [*mounted, *ports]:
        if watched is not None and watched.host is gevent.get_hub():
            watched.unmount()
    gevent.get_hub().destroy(destroy_loop=True)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected pair of non-blocking sockets."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right
