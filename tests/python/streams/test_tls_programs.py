"""Streams with TLS against the TLS of others: openssl, curl, Python's http.client."""

from __future__ import annotations

import http.client
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.python.streams.recorder import Recorder, run_until

from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.sockets.wait import wait_readable
from fdmux.streams.client import connect_stream
from fdmux.streams.echo import EchoServer
from fdmux.streams.server import StreamServer
from fdmux.streams.stream import StreamHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.certificates import Certificates

    from fdmux.streams.stream import Stream

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.slow]

LONG = 30.0
VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])
BODY = bytes(range(256)) * 4000  # of many records


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs the program {name} (Debian: {name})")
    return found


class Web(StreamHandler):
    """Answers any request with `BODY`, and closes."""

    def on_data(self, stream: Stream, data: bytes) -> None:
        if b"\r\n\r\n" in data:
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n"
            stream.data = memoryview(f"{head}Connection: close\r\n\r\n".encode() + BODY)
            self.on_drain(stream)

    def on_drain(self, stream: Stream) -> None:
        rest = stream.data
        assert isinstance(rest, memoryview)
        while rest and not stream.buffered:
            stream.write(rest[:60_000])
            rest = stream.data = rest[60_000:]
        if not rest:
            stream.close()


@pytest.fixture
def web(certificates: Certificates) -> Iterator[StreamServer]:
    context = certificates.server_context()
    with StreamServer("127.0.0.1", 0, Web(), ssl=context) as server:
        server.run_in_thread()
        yield server


@VERSIONS
def test_curl_gets_a_page(
    web: StreamServer, certificates: Certificates, version: str
) -> None:
    port = web.address[1]
    command = [program("curl"), "--silent", "--show-error", "--noproxy", "*"]
    command += ["--cacert", str(certificates.authority), "--tls-max", version]
    command += ["--resolve", f"localhost:{port}:127.0.0.1"]
    done = subprocess.run(
        [*command, f"https://localhost:{port}/"],
        capture_output=True,
        timeout=LONG,
        check=False,
    )
    assert done.stderr == b""
    assert done.stdout == BODY


def test_http_client_gets_a_page(web: StreamServer, certificates: Certificates) -> None:
    connection = http.client.HTTPSConnection(
        *web.address, timeout=LONG, context=certificates.client_context()
    )
    connection.request("GET", "/")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, BODY)
    connection.close()


@VERSIONS
def test_s_client_talks(certificates: Certificates, version: str) -> None:
    """With TLS 1.3 it renews its keys in between."""
    context = certificates.server_context()
    with EchoServer(port=0, ssl=context) as server:
        server.run_in_thread()
        host, port = server.address
        command = [program("openssl"), "s_client", "-connect", f"{host}:{port}"]
        command += ["-CAfile", str(certificates.authority), "-verify_return_error"]
        command += [f"-tls{version.replace('.', '_')}", "-servername", "localhost"]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            talk = [(b"first line\n", b"first line\n")]
            if version == "1.3":
                talk += [(b"K\n", b"KEYUPDATE\n"), (b"new keys\n", b"new keys\n")]
            for line, answer in talk:
                process.stdin.write(line)
                process.stdin.flush()
                while (seen := process.stdout.readline()) != answer:
                    assert seen
            process.stdin.write(b"Q\n")
            process.communicate(timeout=LONG)
    assert process.returncode == 0


def test_s_server_renegotiates(certificates: Certificates) -> None:
    """With TLS 1.2, in the middle of the connection: OpenSSL writes while it reads."""
    command = [program("openssl"), "s_server", "-accept", "127.0.0.1:0", "-tls1_2"]
    command += ["-cert", str(certificates.server), "-naccept", "1"]
    handler = Recorder()
    with (
        subprocess.Popen(
            command,
            bufsize=0,  # no line hides in a buffer from `wait_for`
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process,
        SelectorEventLoop() as loop,
    ):
        assert process.stdin is not None
        line = wait_for(loop, process, b"ACCEPT")
        address = ("127.0.0.1", int(line.rpartition(b":")[2]))
        client = connect_stream(
            loop, address, handler, ssl=certificates.client_context()
        )
        run_until(loop, lambda: handler.calls)
        process.stdin.write(b"before\n")
        run_until(loop, lambda: handler.data == b"before\n")
        process.stdin.write(b"r\n")
        wait_for(loop, process, b"SSL_do_handshake -> 1")
        client.write(b"new keys\n")
        wait_for(loop, process, b"new keys")
        process.stdin.write(b"after\n")
        run_until(loop, lambda: handler.data == b"before\nafter\n")
        client.close()
        run_until(loop, lambda: handler.errors)
        process.terminate()
    assert handler.errors == [None]


def wait_for(
    loop: SelectorEventLoop, process: subprocess.Popen[bytes], beginning: bytes
) -> bytes:
    """Run ``loop`` until the program prints a line with this beginning."""
    assert process.stdout is not None
    while True:
        while not wait_readable([process.stdout], 0):
            loop.run_once(0)
        line = process.stdout.readline()
        assert line
        if line.startswith(beginning):
            return line


@VERSIONS
def test_s_server_is_talked_to(certificates: Certificates, version: str) -> None:
    command = [program("openssl"), "s_server", "-accept", "127.0.0.1:0", "-rev"]
    command += ["-cert", str(certificates.server), "-naccept", "1"]
    handler = Recorder()
    with (
        subprocess.Popen(
            [*command, f"-tls{version.replace('.', '_')}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process,
        SelectorEventLoop() as loop,
    ):
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith(b"ACCEPT"):
            assert line
        port = int(line.rpartition(b":")[2])
        client = connect_stream(
            loop,
            ("127.0.0.1", port),
            handler,
            ssl=certificates.client_context(),
            server_hostname="localhost",
        )
        client.write(b"stressed\n")
        run_until(loop, lambda: handler.data.endswith(b"\n"))
        assert handler.data == b"desserts\n"
        assert client.tls is not None
        assert client.tls.version == f"TLSv{version}"
        client.close()
        run_until(loop, lambda: handler.errors)
        process.terminate()
    assert handler.errors == [None]
