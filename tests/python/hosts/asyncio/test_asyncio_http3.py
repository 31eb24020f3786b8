"""HTTP/3 by aioquic on our loop: answers as on asyncio's, and aioquic's own examples.

The examples are in aioquic's source release and not in its wheel. Their folder is named
by ``AIOQUIC_EXAMPLES``; docs/testing.md says how to get it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.peers import free_port
from tests.python.hosts.asyncio import program_servers

from fdmux.hosts.asyncio import EventLoop
from fdmux.hosts.asyncio.datagrams import DatagramTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.python.hosts.asyncio.program_servers import Certificate

SOON = 60.0
SIZE = 1 << 20
POSTED = "all=" + "0123456789" * 10_000

pytestmark = pytest.mark.slow

# Runs an example with the loop that is named first. uvloop is hidden, since the
# examples take it where they find it.
LAUNCH = """
import asyncio, runpy, sys
from pathlib import Path

sys.modules["uvloop"] = None
loop, sys.argv = sys.argv[1], sys.argv[2:]
if loop == "fdmux":
    from fdmux.hosts.asyncio import run
    asyncio.run = run
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return program_servers.make_certificate(tmp_path_factory.mktemp("certificate"))


def test_http3_answers_as_on_asyncio(certificate: Certificate) -> None:
    pytest.importorskip("aioquic.asyncio", reason="needs aioquic")
    from tests.python.hosts.asyncio import program_http3  # noqa: PLC0415 - needs it

    def answers_on(
        loop_factory: Callable[[], asyncio.AbstractEventLoop],
    ) -> tuple[list[program_http3.Answer], type]:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            task = program_http3.exchange(certificate)
            return runner.run(asyncio.wait_for(task, SOON))

    ours, transport = answers_on(EventLoop)
    assert transport is DatagramTransport
    assert ours == answers_on(asyncio.SelectorEventLoop)[0]
    sizes = [4 << 20, 2 << 20, *range(1, 3000, 200)]
    assert [length for _, length, _ in ours] == sizes
    large = hashlib.sha256(program_http3.content(4 << 20)).hexdigest()
    assert ours[0][2] == large


# ---- aioquic's own examples ------------------------------------------------------


@pytest.fixture(scope="module")
def examples() -> Path:
    for name in ("aioquic", "starlette", "wsproto", "jinja2"):
        pytest.importorskip(name, reason=f"needs {name}")
    folder = os.environ.get("AIOQUIC_EXAMPLES")
    if folder is None:
        pytest.skip("needs aioquic's examples, and AIOQUIC_EXAMPLES with their folder")
    return Path(folder)


class Examples:
    """The server on one loop, and clients on another, in a folder for this pair."""

    def __init__(self, examples: Path, certificate: Certificate, folder: Path) -> None:
        self.examples = examples
        self.certificate = certificate
        self.folder = folder
        self.port = free_port(socket.SOCK_DGRAM)

    def command(self, loop: str, name: str, *arguments: str) -> list[str]:
        example = str(self.examples / name)
        return [sys.executable, "-c", LAUNCH, loop, example, *arguments]

    @contextlib.contextmanager
    def server(self, loop: str) -> Iterator[None]:
        """Run the server, and see that Ctrl-C ends it without an error."""
        command = self.command(loop, "http3_server.py", "--host", "127.0.0.1")
        command += ["--port", str(self.port), "-c", str(self.certificate.path)]
        command += ["-k", str(self.certificate.key)]
        log = self.folder / "server.log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            yield
            process.send_signal(signal.SIGINT)
            assert process.wait(SOON) == 0, log.read_text()
            assert "Traceback" not in log.read_text()
        finally:
            process.kill()
            process.wait()

    def ask(self, loop: str, *arguments: str, paths: tuple[str, ...]) -> list[str]:
        """Run the client; return what it said, but for times, in any order."""
        urls = [f"https://localhost:{self.port}{path}" for path in paths]
        if paths == ("/ws",):
            urls = [f"wss://localhost:{self.port}/ws"]
        command = self.command(
            loop, "http3_client.py", "--ca-certs", str(self.certificate.path)
        )
        command += [*arguments, *urls]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SOON
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        said = re.sub(r"(?m)^[-\d]+ [\d:,]+ |\[\w+\] | in [\d.]+ s .*", "", done.stderr)
        # A ticket may come after an answer to 0-RTT, or not any more.
        lines = [it for it in said.splitlines() if "session ticket" not in it]
        return sorted(lines) + done.stdout.splitlines()

    def scenario(self, server: str, client: str) -> dict[str, object]:
        """Files over several streams, a push, 0-RTT, a POST, a WebSocket, HTTP/0.9."""
        files = self.folder / "files"
        files.mkdir()
        to = ("--output-dir", str(files))
        post = ("--key-update", "-d", POSTED)
        ticket = ("--session-ticket", str(self.folder / "ticket"))
        with self.server(server):
            said = {
                "files": self.ask(
                    client, *to, *ticket, paths=("/", f"/{SIZE}", "/robots.txt", "/17")
                ),
                "again": self.ask(client, *ticket, "--zero-rtt", paths=("/1",)),
                "post": self.ask(client, *to, *post, paths=("/echo",)),
                "websocket": self.ask(client, paths=("/ws",)),
                "old": self.ask(client, "--legacy-http", paths=("/1000",)),
            }
        hashes = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(files.iterdir())
        }
        return {**said, "hashes": hashes}


@pytest.fixture(scope="module")
def on_asyncio(
    examples: Path, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("stock")
    return Examples(examples, certificate, folder).scenario("asyncio", "asyncio")


@pytest.mark.parametrize(
    ("server", "client"),
    [("fdmux", "fdmux"), ("fdmux", "asyncio"), ("asyncio", "fdmux")],
)
def test_examples_of_aioquic_do_as_on_asyncio(
    examples: Path,
    certificate: Certificate,
    tmp_path: Path,
    on_asyncio: dict[str, object],
    server: str,
    client: str,
) -> None:
    ours = Examples(examples, certificate, tmp_path).scenario(server, client)
    assert ours == on_asyncio
    hashes = ours["hashes"]
    assert isinstance(hashes, dict)
    assert hashes[str(SIZE)] == hashlib.sha256(b"Z" * SIZE).hexdigest()
    assert hashes["echo"] == hashlib.sha256(POSTED.encode()).hexdigest()
    assert set(hashes) == {
        str(SIZE),
        "17",
        "echo",
        "index.html",
        "robots.txt",
        "style.css",
    }
