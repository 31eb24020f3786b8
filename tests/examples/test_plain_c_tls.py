"""examples/plain-c-tls: built against an installed core and libssl, and talked to."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.examples.conftest import Tool

pytestmark = [
    pytest.mark.slow,  # the core is built for them
    pytest.mark.skipif(
        not Path("/usr/include/openssl/ssl.h").exists(),
        reason="no headers of OpenSSL (Debian: libssl-dev)",
    ),
    pytest.mark.skipif(
        shutil.which("openssl") is None, reason="needs openssl for a certificate"
    ),
]

SOURCES = ROOT / "examples" / "plain-c-tls"


@pytest.fixture(scope="module")
def program(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build and install the core, then the example."""
    folder = tmp_path_factory.mktemp("plain-tls")
    core, prefix, build = folder / "core", folder / "prefix", folder / "build"
    tool("cmake", "-S", ROOT, "-B", core, "-DFDMUX_PYTHON=OFF")
    tool("cmake", "--build", core, "-j2")
    tool("cmake", "--install", core, "--prefix", prefix)
    tool("cmake", "-S", SOURCES, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    tool("cmake", "--build", build)
    return build / "echo_tls"


@pytest.fixture(scope="module")
def certificate(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate; its key is beside it."""
    folder = tmp_path_factory.mktemp("certificate")
    tool(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes"),
        *("-keyout", folder / "key.pem", "-out", folder / "certificate.pem"),
        *("-subj", "/CN=localhost"),
    )
    return folder / "certificate.pem"


@pytest.fixture
def port(program: Path, certificate: Path) -> Iterator[int]:
    """Run the service; it must end cleanly after a signal."""
    command = [program, certificate, certificate.parent / "key.pem"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline().rpartition(":")[2])
            server.send_signal(signal.SIGTERM)
            assert server.wait(10) == 0
        finally:
            server.kill()


@contextlib.contextmanager
def connected(port: int, version: ssl.TLSVersion) -> Iterator[ssl.SSLSocket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it signs itself
    context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain) as client,
    ):
        yield client


def receive(client: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        got = client.recv(size - len(data))
        assert got
        data += got
    return data


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_everything_comes_back_and_close_notify_is_answered(
    port: int, version: ssl.TLSVersion
) -> None:
    with connected(port, version) as idle, connected(port, version) as client:
        for size in (1, 16383, 16384, 16385, 100_000):
            data = bytes(range(251)) * (size // 251 + 1)
            client.sendall(data[:size])
            assert receive(client, size) == data[:size]
        client.unwrap()  # raises unless close_notify comes back
        idle.sendall(b"still here")
        assert receive(idle, 10) == b"still here"


def test_plaintext_is_refused_with_an_alert(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        received = client.recv(1000)
    assert received[:1] in {b"\x15", b""}  # an alert; none for HTTP in some releases
