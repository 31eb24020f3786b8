"""examples/native-clients and plain-c-clients: four C libraries, in asyncio and in C.

The servers are the real ones, which the example starts itself.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import textwrap
from typing import TYPE_CHECKING

import pytest
from tests.adapters import built, servers
from tests.adapters.conftest import skip
from tests.examples.conftest import check_links
from tests.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.examples.conftest import Installation, Tool

pytestmark = pytest.mark.slow  # four servers are started for most of them

SOURCE = ROOT / "examples" / "native-clients"
PLAIN = ROOT / "examples" / "plain-c-clients"
KINDS = ("redis", "http", "dns", "postgresql")
SERVERS = {
    "redis-server": "redis-server",
    "nginx": "nginx-light",
    "postgres": "postgresql",
    "setpriv": "util-linux",
}
RUN_SECONDS = 60.0
CONTROL = re.compile("\x1b\\[[?0-9;]*[A-Za-z]")  # of the terminal

# Two addresses: nobody listens at the first, and nobody accepts at the second.
BEGIN = """
import asyncio, socket
import fdmux, native_clients
from fdmux.aio import Completion

refusing, silent = socket.socket(), socket.create_server(("127.0.0.1", 0))
refusing.bind(("127.0.0.1", 0))

def address_of(kind, sock):
    host, port = sock.getsockname()
    if kind == "postgresql":
        return f"host={host} port={port} user=nobody"
    return f"{'http://' if kind == 'http' else ''}{host}:{port}"

def ask(kind, sock):
    client = native_clients.Client(kind, address_of(kind, sock), fdmux.current())
    completion = Completion()
    client.ask("/x" if kind == "http" else "x", completion)
    return client, completion
"""
END = """
refusing.close()
silent.close()
"""


@pytest.fixture(scope="module")
def libraries() -> None:
    """Skip if a library is not installed."""
    try:
        built.flags_of("hiredis", "curl", "cares", "libpq")
    except servers.MissingError as error:
        skip(error)


@pytest.fixture(scope="module")
def programs() -> None:
    """Skip if a server is not installed."""
    try:
        for name, package in SERVERS.items():
            servers.program(name, package)
        servers.program("initdb", "postgresql")
    except servers.MissingError as error:
        skip(error)


@pytest.fixture(scope="module")
def example(
    libraries: None,
    installation: Installation,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    assert libraries is None  # they are there
    return installation.install_copy(SOURCE, tmp_path_factory.mktemp("native-clients"))


def run_code(installation: Installation, code: str) -> str:
    return installation.run_silently("-c", BEGIN + textwrap.dedent(code) + END)


def check_summary(lines: list[str]) -> None:
    """Check that each server has answered, and that none has failed."""
    said = [line.split() for line in lines[-5:]]
    assert [words[0] for words in said] == [f"{name}:" for name in (*KINDS, "lines")]
    assert all(int(words[1]) > 0 and words[3:] == ["0", "failed"] for words in said)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("loop", ["asyncio", "fdmux"])
def test_service_answers(loop: str, installation: Installation, example: Path) -> None:
    options = ("--seconds", "1.5", "--askers", "10", "--loop", loop)
    printed = installation.run("python", "-W", "error", example / "run.py", *options)
    lines = printed.splitlines()
    check_summary(lines)
    assert all(f"{kind} " in lines[0] for kind in KINDS)  # the first second


@pytest.mark.usefixtures("programs")
def test_figures_are_a_table_on_a_terminal(
    installation: Installation, example: Path
) -> None:
    pytest.importorskip("rich")  # where it is, pip can get it
    installation.install("rich>=13")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            *(installation.prefix / "bin" / "python", "-W", "error"),
            *(example / "run.py", "--seconds", "1.5", "--askers", "10"),
        ],
        stdout=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": ""},
    )
    os.close(theirs)
    printed = b""
    try:
        while part := read_terminal(ours):
            printed += part
        assert process.wait(RUN_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    text = printed.decode()
    assert "per second" in text
    assert "postgresql │" in text
    check_summary(CONTROL.sub("", text).splitlines())


def read_terminal(fd: int) -> bytes:
    """Return what was printed; nothing after the end of the program."""
    try:
        return os.read(fd, 65536)
    except OSError:  # pty(7): EIO when the other side was closed
        return b""


@pytest.mark.parametrize("kind", KINDS)
def test_refused_question_raises_and_the_client_tries_again(
    kind: str, installation: Installation, example: Path
) -> None:
    assert example.is_dir()
    code = f"""
    async def main():
        client, completion = ask("{kind}", refusing)
        for _ in range(3):
            try:
                await completion
            except ConnectionError as error:
                print("raised")
                assert str(error)
            completion = Completion()
            client.ask("/x" if "{kind}" == "http" else "x", completion)
        client.close()

    asyncio.run(main())
    """
    assert run_code(installation, code) == "raised\n" * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["close", "forget", "end of the loop"])
def test_question_in_flight_fails_when_the_client_ends(
    kind: str, way: str, installation: Installation, example: Path
) -> None:
    assert example.is_dir()
    ends = {"close": "client.close()", "forget": "client = None"}
    code = f"""
    import gc, weakref

    async def main():
        client, completion = ask("{kind}", silent)
        await asyncio.sleep(0)
        if "{way}" == "end of the loop":
            return client, weakref.ref(completion)
        {ends.get(way, "")}
        try:
            await completion
        except ConnectionError:
            return None, weakref.ref(completion)

    client, left = asyncio.run(main())
    if client is not None:
        client.close()
    gc.collect()  # its exception has a traceback, which has it
    assert left() is None  # C has given it back
    print("over")
    """
    assert run_code(installation, code) == "over\n"


def test_client_stays_what_it_is(installation: Installation, example: Path) -> None:
    assert example.is_dir()
    code = """
    async def main():
        client, completion = ask("redis", silent)
        for kind in ("http", "none"):
            try:
                client.__init__(kind, "http://127.0.0.1:1", fdmux.current())
            except ValueError as error:
                print(error)
        client.close()
        try:
            await completion
        except ConnectionError:
            print("closed")

    asyncio.run(main())
    """
    kinds = "make a client of the kind http\nmake a client of the kind none\n"
    assert run_code(installation, code) == f"{kinds}closed\n"


@pytest.mark.usefixtures("programs")
def test_large_commands_and_a_lost_connection(
    installation: Installation, example: Path
) -> None:
    """A command waits for room in the socket; after QUIT the server hangs up."""
    code = f"""
    import sys
    sys.path.insert(0, {str(example)!r})
    from servers import Servers

    SIZE = 8_000_000  # more than the kernel takes at once

    async def main(address):
        client = native_clients.Client("redis", address, fdmux.current())

        async def ask(question):
            completion = Completion()
            client.ask(question, completion)
            return await completion

        assert await ask("PING") == "PONG"  # connected: the socket is tried at once
        assert await ask("SET large " + "x" * SIZE) == "OK"
        assert await ask("GET large") == "x" * SIZE
        answers = await asyncio.gather(
            *map(ask, ["QUIT", *["STRLEN large"] * 10]), return_exceptions=True
        )
        assert answers[0] == "OK"
        assert all(isinstance(answer, ConnectionError) for answer in answers[1:])
        assert await ask("STRLEN large") == str(SIZE)  # connected again
        client.close()

    with Servers() as servers:
        asyncio.run(main(servers.addresses["redis"]))
    print("over")
    """
    assert run_code(installation, code) == "over\n"


def test_example_links_nothing_of_fdmux(
    installation: Installation, example: Path
) -> None:
    assert example.is_dir()
    check_links(installation, "native_clients")


@pytest.mark.usefixtures("programs", "libraries")
def test_the_same_clients_run_in_plain_c(
    installation: Installation, tool: Tool, tmp_path: Path
) -> None:
    cmake_dir = installation.run("fdmux", "--cmake-dir").strip()
    tool("cmake", "-S", PLAIN, "-B", tmp_path, f"-Dfdmux_DIR={cmake_dir}")
    tool("cmake", "--build", tmp_path)
    program = tmp_path / "clients"
    printed = installation.run("python", SOURCE / "servers.py", program)
    assert printed == "".join(f"{kind}: 1000 answers, all right\n" for kind in KINDS)
    libraries = tool("readelf", "--dynamic", "--wide", program)
    assert "hiredis" in libraries
    assert "python" not in libraries
