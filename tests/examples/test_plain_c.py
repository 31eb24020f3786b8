"""The core without Python: built, installed, and used by C programs in every way.

The programs of examples/plain-c are built through CMake and through pkg-config, against
an installed prefix and against what the wheel contains.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.tree import ROOT

if TYPE_CHECKING:
    from tests.examples.conftest import Installation, Tool

pytestmark = pytest.mark.slow  # the core is built for the first of them

SOURCES = ROOT / "examples" / "plain-c"
PROGRAMS = ("first", "echo", "datagrams")
INSTALLED = {
    "include/fdmux.h",
    "include/fdmux_api.h",
    "include/fdmux_frame.h",
    "include/fdmux_python.h",
    "include/fdmux_stream.h",
    "include/fdmux_tls.h",
    "include/fdmux_datagram.h",
    *(
        f"include/fdmux/adapters/{path.name}"
        for path in (ROOT / "csrc" / "include" / "adapters").glob("*.h")
    ),
    "lib/cmake/fdmux/fdmuxConfig.cmake",
    "lib/cmake/fdmux/fdmuxConfigVersion.cmake",
    "lib/cmake/fdmux/fdmuxTargets-relwithdebinfo.cmake",
    "lib/cmake/fdmux/fdmuxTargets.cmake",
    "lib/libfdmux.a",
    "lib/pkgconfig/fdmux.pc",
}


@pytest.fixture(scope="module")
def prefix(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installed core, moved after the install, as a package manager may do."""
    folder = tmp_path_factory.mktemp("plain")
    build = folder / "build"
    tool("cmake", "-S", ROOT, "-B", build, "-DFDMUX_PYTHON=OFF", "-DFDMUX_WERROR=ON")
    tool("cmake", "--build", build, "-j2")
    tool("cmake", "--install", build, "--prefix", folder / "first-prefix")
    return (folder / "first-prefix").rename(folder / "prefix")


@pytest.fixture(params=["prefix", "wheel"])
def sdk(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """The folders of the CMake package and of the pkg-config file."""
    if request.param == "prefix":
        prefix: Path = request.getfixturevalue("prefix")
        return prefix / "lib" / "cmake" / "fdmux", prefix / "lib" / "pkgconfig"
    installation: Installation = request.getfixturevalue("installation")
    code = "import fdmux; print(fdmux.get_cmake_dir(), fdmux.get_pkgconfig_dir())"
    cmake_dir, pkgconfig_dir = installation.python(code).split()
    return Path(cmake_dir), Path(pkgconfig_dir)


@pytest.fixture(params=["cmake", "pkg-config"])
def programs(
    request: pytest.FixtureRequest, tool: Tool, sdk: tuple[Path, Path], tmp_path: Path
) -> Path:
    """A folder with the built examples."""
    cmake_dir, pkgconfig_dir = sdk
    if request.param == "cmake":
        tool("cmake", "-S", SOURCES, "-B", tmp_path, f"-Dfdmux_DIR={cmake_dir}")
        tool("cmake", "--build", tmp_path)
        return tmp_path
    if shutil.which("pkg-config") is None:
        pytest.skip("no pkg-config (Debian: pkg-config)")
    flags = tool(
        *("env", f"PKG_CONFIG_PATH={pkgconfig_dir}"),
        *("pkg-config", "--cflags", "--libs", "fdmux"),
    ).split()
    for name in PROGRAMS:
        tool("cc", SOURCES / f"{name}.c", "-o", tmp_path / name, *flags)
    return tmp_path


def test_prefix_has_every_part_and_nothing_else(prefix: Path) -> None:
    found = {str(path.relative_to(prefix)) for path in prefix.rglob("*.*")}
    assert found - {"lib/cmake"} == INSTALLED


def test_no_python_anywhere(prefix: Path, tool: Tool) -> None:
    assert "Py" not in tool("nm", prefix / "lib" / "libfdmux.a")


def test_prefix_is_found_by_cmake_prefix_path(
    prefix: Path, tool: Tool, tmp_path: Path
) -> None:
    tool("cmake", "-S", SOURCES, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}")
    cache = (tmp_path / "CMakeCache.txt").read_text()
    assert f"fdmux_DIR:PATH={prefix}/lib/cmake/fdmux" in cache


def test_programs_run(programs: Path, tool: Tool) -> None:
    """One fixture for all, so that each combination is built once."""
    assert tool(programs / "first") == (
        '3 ticks, "pipe" from the pipe, "thread" from the thread\n'
    )
    check_echo(programs / "echo")
    check_datagrams(programs / "datagrams")
    libraries = tool("readelf", "--dynamic", "--wide", programs / "echo")
    assert "NEEDED" in libraries
    assert "python" not in libraries
    assert "fdmux" not in libraries


def check_echo(program: Path) -> None:
    """Check two clients at once; then end the server by a signal."""
    with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().rpartition(":")[2])
            data = bytes(range(256)) * 256
            with socket.create_connection(("127.0.0.1", port), timeout=10) as idle:
                assert echoed(port, data) == data
                idle.sendall(b"still here")
                assert idle.recv(100) == b"still here"
            server.send_signal(signal.SIGTERM)
            said, _ = server.communicate(timeout=10)
        finally:
            server.kill()
    assert server.returncode == 0
    assert said == f"2 connections, {len(data) + 10} bytes back\n"


def check_datagrams(program: Path) -> None:
    with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().rpartition(":")[2])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(10)
                client.connect(("127.0.0.1", port))
                for data in (b"one", b"", b"three"):
                    client.send(data)
                assert [client.recv(10) for _ in range(3)] == [b"one", b"", b"three"]
            server.send_signal(signal.SIGTERM)
            said, _ = server.communicate(timeout=10)
        finally:
            server.kill()
    assert (server.returncode, said) == (0, "3 datagrams, 3 back\n")


def echoed(port: int, data: bytes) -> bytes:
    """Send all of ``data``, which fits the kernel's buffers; return what came back."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answer:
            return answer.read()
