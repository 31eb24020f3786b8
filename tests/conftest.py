"""What every test shares: the leak check, the tiers, the fault switch, options."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from tests.certificates import Certificates, make_certificates
from tests.core.targets import chosen_targets
from tests.report_header import header_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

if sys.platform == "win32":
    pytest_plugins = ["tests.windows_lacks"]
THREAD_ENDS_WITHIN = 5.0
# Markers of what runs only when ``-m`` names it; see README.md.
TIERS = ("builds", "commit", "nightly", "soak", "adapters")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of core and reliability; pytest reads only this file in time."""
    group = parser.getgroup("C tests")
    group.addoption(
        "--c-sanitize",
        default="",
        metavar="LIST",
        help="build the C tests with sanitizers, such as address,undefined",
    )
    group.addoption(
        "--c-werror", action="store_true", help="build the C tests with -Werror"
    )
    group.addoption(
        "--c-target",
        type=chosen_targets,
        default="",
        metavar="LIST",
        help="cross-compile the C tests: all, or names of tests/core/targets.py",
    )
    group.addoption(
        "--c-kqueue",
        default="",
        metavar="model|oldest|PREFIX",
        help="run the C tests on kqueue: on the model, on that of an old system, or on "
        "libkqueue installed below PREFIX",
    )
    bars = parser.getgroup("bars of reliability")
    bars.addoption(
        "--bars-to", metavar="FILE", help="write the table of bars as Markdown"
    )
    parser.getgroup("adapters").addoption(
        "--matrix-to", metavar="FILE", help="write the table of adapters into FILE"
    )
    bars.addoption(
        "--soak-seconds",
        type=float,
        default=3600.0,
        metavar="N",
        help="how long the soak takes, instead of an hour",
    )


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out the tiers unless ``-m`` asks for something."""
    if config.getoption("markexpr"):
        return
    left_out = {item for item in items if any(map(item.get_closest_marker, TIERS))}
    if left_out:
        config.hook.pytest_deselected(items=sorted(left_out, key=str))
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def pytest_report_header() -> list[str]:
    return header_lines()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that inject faults if the build cannot."""
    if item.get_closest_marker("faults") and not can_inject_faults():
        pytest.skip("needs a build with FDMUX_TESTING=ON")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Switch the faults off before the fixtures of the test are torn down."""
    if item.get_closest_marker("faults") and can_inject_faults():
        from fdmux._ffi import lib  # noqa: PLC0415 - the C tests run without the package

        lib.fdmux_testing_fail(0, 0, 0, 0)
        lib.fdmux_testing_short(0)


def can_inject_faults() -> bool:
    from fdmux._ffi import lib  # noqa: PLC0415 - the C tests run without the package

    return hasattr(lib, "fdmux_testing_fail")


def open_descriptors() -> dict[int, str]:
    """Map each open descriptor of this process to the file it refers to.

    Windows does not tell; there Python's own ResourceWarning is what remains.
    """
    if sys.platform == "win32":
        return {}
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the descriptor of listdir itself
    return found


def live_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def threads_beyond(names: set[str]) -> set[str]:
    """Name the threads that stay; a thread that is about to end may take a moment."""
    for thread in threading.enumerate():
        if thread.name not in names:
            thread.join(THREAD_ENDS_WITHIN)
    return live_threads() - names


@pytest.fixture(autouse=True, scope="module")
def few_objects_to_look_through() -> Iterator[None]:
    """Freeze older objects, so that the collection after each test is cheap."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_leak() -> Iterator[None]:
    """Fail a test that leaves a descriptor or a thread behind."""
    before, threads_before = open_descriptors(), live_threads()
    yield
    gc.collect()
    after = open_descriptors()
    leaked = {fd: name for fd, name in after.items() if before.get(fd) != name}
    assert not leaked, f"descriptors left open: {leaked}"
    assert not threads_beyond(threads_before), "threads left running"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected pair of non-blocking sockets."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right
