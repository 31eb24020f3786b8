"""The hosts in C: poll(2), libuv and GLib carry an fdmux loop, without a thread.

Each program checks itself and prints the outcome. They are built against the wheel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.examples.conftest import Installation, Tool

pytestmark = pytest.mark.slow  # three programs are compiled for the first of them

SOURCES = ROOT / "examples" / "hosts-c"
PACKAGES = {"poll": "", "libuv": "libuv1-dev", "glib": "libglib2.0-dev"}

# Without timerfd_create(2), as in a sandbox, the descriptor has no timer in it.
NO_TIMER_SOURCE = """
#include <errno.h>
int timerfd_create(int clock, int flags);
int timerfd_create(int clock, int flags)
{
    (void)clock, (void)flags;
    errno = ENOSYS;
    return -1;
}
"""


@pytest.fixture(scope="module")
def hosts(
    installation: Installation, tool: Tool, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("hosts")
    cmake_dir = installation.run("fdmux", "--cmake-dir").strip()
    tool("cmake", "-S", SOURCES, "-B", folder, f"-Dfdmux_DIR={cmake_dir}")
    tool("cmake", "--build", folder, "-j2")
    return folder


@pytest.mark.parametrize("name", PACKAGES)
def test_host_carries_everything(name: str, hosts: Path, tool: Tool) -> None:
    program = hosts / f"{name}_host"
    if PACKAGES[name] and not program.exists():
        pytest.skip(f"no headers, or no pkg-config (Debian: {PACKAGES[name]})")
    printed = tool(program)
    assert "1000 of the pipe, 100 posts" in printed
    assert printed.endswith(": ok\n")


def test_poll_host_carries_timers_without_a_timer_in_the_descriptor(
    hosts: Path, tool: Tool, tmp_path: Path
) -> None:
    source, library = tmp_path / "no_timer.c", tmp_path / "no_timer.so"
    source.write_text(NO_TIMER_SOURCE)
    tool("cc", "-shared", "-fPIC", source, "-o", library)
    program = hosts / "poll_host"
    assert tool("env", f"LD_PRELOAD={library}", program).endswith(": ok\n")


@pytest.mark.parametrize("name", PACKAGES)
def test_host_needs_no_thread(name: str, hosts: Path, tool: Tool) -> None:
    built = hosts / "CMakeFiles" / f"{name}_host.dir" / f"{name}_host.c.o"
    if not built.exists():
        pytest.skip(f"no headers, or no pkg-config (Debian: {PACKAGES[name]})")
    symbols = tool("nm", "--undefined-only", built)
    assert "proof_dispatch" in symbols
    assert "thread" not in symbols
