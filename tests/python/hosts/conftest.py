"""Shared by the tests of hosts: libraries, runners, and hosts that are cleaned up."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from typing import TYPE_CHECKING

import pytest

from fdmux.hosts import registry
from fdmux.native import completion

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import ModuleType

    Main = Callable[[], Awaitable[object]]
    Run = Callable[[Main], object]


def library(name: str) -> ModuleType:
    """Import a host's library, or skip the test."""
    found: ModuleType = pytest.importorskip(name, reason=f"needs {name}")
    return found


@pytest.fixture(scope="session", autouse=True)
def libuv_is_there() -> None:
    """Make libuv create the pipe that it keeps for the whole process."""
    with contextlib.suppress(ImportError):
        importlib.import_module("uvloop").new_event_loop().close()


def run_asyncio(main: Main) -> object:
    return asyncio.run(main())  # type: ignore[arg-type] # a coroutine function


def run_uvloop(main: Main) -> object:
    return library("uvloop").run(main())


def run_trio(main: Main) -> object:
    return library("trio").run(main)


@pytest.fixture(params=[run_asyncio, run_uvloop, run_trio])
def run(request: pytest.FixtureRequest) -> Run:
    """A function that runs a coroutine function in a new loop, of each library."""
    found: Run = request.param
    return found


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
    """gevent, with a new hub for this test."""
    gevent = library("gevent")
    gevent.get_hub()
    yield gevent
    mounted = [reference() for reference in registry.mounts.values()]
    ports = [reference() for reference in completion.ports.values()]
    for watched in [*mounted, *ports]:
        if watched is not None and watched.host is gevent.get_hub():
            watched.unmount()
    gevent.get_hub().destroy(destroy_loop=True)
