"""TLS goes on while another thread has the GIL, where no Python is called.

The main thread has the GIL inside of `ctypes.PyDLL`, where it reads what the client
says. The client is a process of its own, and says it only if the loop's thread has
decrypted and answered.
"""

from __future__ import annotations

import contextlib
import ctypes
import select
import ssl
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from tests.python.hosts.asyncio.program_servers import program
from tests.tls_servers import SERVERS

from fdmux.streams import tls_library

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.certificates import Certificates
    from tests.tls_servers import Serving

LONG = 30.0
ALLOW_CLIENT_RENEGOTIATION = 0x100 if ssl.OPENSSL_VERSION_INFO >= (3,) else 0

CLIENT = """
import socket, ssl, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
context = ssl.create_default_context(cafile=sys.argv[2])
print("connected", flush=True)
sys.stdin.readline()
tls = context.wrap_socket(sock, server_hostname="localhost")
print("hands shaken", tls.version(), flush=True)
tls.sendall(b"hello")
print(tls.recv(5), flush=True)
"""


class PollEntry(ctypes.Structure):
    """A ``struct pollfd``."""

    _fields_ = (
        ("fd", ctypes.c_int),
        ("events", ctypes.c_short),
        ("revents", ctypes.c_short),
    )


@pytest.fixture(params=SERVERS)
def serve(request: pytest.FixtureRequest) -> Serving:
    choice = tls_library.choose()
    if not choice.is_direct:
        pytest.skip(f"cannot call OpenSSL here: {choice.reason}")
    return SERVERS[str(request.param)]


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        command,
        bufsize=0,  # no line hides in a buffer
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until_said(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdout is not None
    said = b""
    while text not in said:
        assert select.select([process.stdout], [], [], LONG)[0]
        part = process.stdout.read(4096)
        assert part, said
        said += part


@pytest.fixture
def long_turns() -> Iterator[None]:
    """Let a thread keep the GIL until it waits."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    yield
    sys.setswitchinterval(interval)


def ask_with_gil(process: subprocess.Popen[bytes], line: bytes, text: bytes) -> bool:
    """Tell the program something, and wait for its answer; keeps the GIL meanwhile.

    Returns:
        Whether the answer has come.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    libc = ctypes.PyDLL(None)
    entry = PollEntry(process.stdout.fileno(), select.POLLIN)
    buffer = ctypes.create_string_buffer(4096)
    said = b""
    deadline = time.monotonic() + LONG
    libc.write(process.stdin.fileno(), line, len(line))
    while text not in said and time.monotonic() < deadline:
        if libc.poll(ctypes.byref(entry), 1, 1000) == 1:
            count = libc.read(entry.fd, buffer, len(buffer))
            if count <= 0:
                return False
            said += buffer.raw[:count]
    return text in said


@pytest.mark.usefixtures("long_turns")
def test_a_client_gets_the_handshake_of_the_server(
    serve: Serving, certificates: Certificates
) -> None:
    with serve(certificates.server_context(), LONG) as server:
        command = (
            sys.executable,
            "-c",
            CLIENT,
            str(server.port),
            str(certificates.authority),
        )
        with running(*command) as client:
            until_said(client, b"connected")
            while not server.count_accepted():
                time.sleep(0.001)  # gives the GIL to the loop
            assert ask_with_gil(client, b"\n", b"hands shaken TLSv1.3")
            until_said(client, b"hello")


@pytest.mark.usefixtures("long_turns")
def test_records_are_decrypted_and_answered(
    serve: Serving, certificates: Certificates
) -> None:
    """A renegotiation is a handshake in encrypted records, of which Python hears
    nothing."""
    context = certificates.server_context()
    context.options |= ALLOW_CLIENT_RENEGOTIATION
    with serve(context, LONG) as server:
        address = (
            "s_client",
            "-connect",
            f"127.0.0.1:{server.port}",
            "-tls1_2",
            "-msg",
        )
        with running(program("openssl"), *address) as client:
            assert client.stdin is not None
            client.stdin.write(b"before\n")
            until_said(client, b"before\n")
            finished = b"<<< TLS 1.2, Handshake [length 0010], Finished"
            assert ask_with_gil(client, b"R\n", finished)
            client.stdin.write(b"after\n")
            until_said(client, b"after\n")
