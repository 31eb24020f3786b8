"""TLS with the program openssl, on asyncio's transports and on ours."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import subprocess
from typing import TYPE_CHECKING, cast

import pytest
from tests.peers import free_port
from tests.python.hosts.asyncio.asyncio_ends import Loop, run
from tests.python.hosts.asyncio.asyncio_tls_ends import (
    KINDS,
    Contexts,
    make_contexts,
    make_tls_loop,
)
from tests.python.hosts.asyncio.program_servers import program

if TYPE_CHECKING:
    from tests.certificates import Certificates

loop = pytest.fixture(params=KINDS)(make_tls_loop)
contexts = pytest.fixture(make_contexts)

# ssl.OP_ALLOW_CLIENT_RENEGOTIATION, which Python does not name; older ones allow it.
ALLOW_CLIENT_RENEGOTIATION = 0x100 if ssl.OPENSSL_VERSION_INFO >= (3,) else 0


NEW_KEYS = b"TLS 1.3, Handshake [length 0005], KeyUpdate"


class Echo(asyncio.Protocol):
    """Sends back what it gets, and keeps how it has ended."""

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


async def start_openssl(*arguments: str) -> subprocess.Process:
    return await asyncio.create_subprocess_exec(
        program("openssl"),
        *arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def say(process: subprocess.Process, line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line)


async def end(process: subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def until_printed(process: subprocess.Process, text: bytes) -> None:
    assert process.stdout is not None
    printed = b""
    while text not in printed:
        line = await process.stdout.readline()
        assert line, printed
        printed += line


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_client_of_the_server_of_openssl(
    loop: Loop, contexts: Contexts, certificates: Certificates, version: str
) -> None:
    async def main() -> None:
        port = free_port()
        server = await start_openssl(
            *("s_server", "-accept", str(port), "-cert", str(certificates.server)),
            *(version, "-rev"),
        )
        await until_printed(server, b"ACCEPT")
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=contexts.client, server_hostname="localhost"
        )
        writer.write(b"abcdef\n")
        assert await reader.readline() == b"fedcba\n"
        writer.close()
        await writer.wait_closed()
        await end(server)

    run(loop, main())


@pytest.mark.parametrize(
    ("version", "command", "asked", "answer"),
    [
        ("-tls1_3", b"k\n", b"KEYUPDATE", b""),
        ("-tls1_3", b"K\n", b"KEYUPDATE", b"<<< " + NEW_KEYS),
        ("-tls1_2", b"R\n", b"RENEGOTIATING", b""),
    ],
    ids=["new keys", "new keys both ways", "renegotiation"],
)
def test_client_changes_the_keys_in_mid_stream(
    loop: Loop,
    contexts: Contexts,
    version: str,
    command: bytes,
    asked: bytes,
    answer: bytes,
) -> None:
    async def main() -> None:
        contexts.server.options |= ALLOW_CLIENT_RENEGOTIATION
        protocols: list[Echo] = []

        def make() -> Echo:
            protocols.append(Echo())
            return protocols[-1]

        server = await asyncio.get_running_loop().create_server(
            make, "127.0.0.1", 0, ssl=contexts.server
        )
        port = server.sockets[0].getsockname()[1]
        client = await start_openssl(
            "s_client", "-connect", f"127.0.0.1:{port}", version, "-msg"
        )
        for number in range(3):
            text = b"line %d\n" % number
            say(client, text)
            await until_printed(client, text)
            say(client, command)
            await until_printed(client, asked)
            if answer:  # OpenSSL gives it with the next record
                say(client, b"more\n")
                await until_printed(client, answer)
        say(client, b"the last\n")
        await until_printed(client, b"the last\n")
        say(client, b"Q\n")
        assert await protocols[0].lost is None
        await end(client)
        server.close()
        await server.wait_closed()

    run(loop, main())


@pytest.mark.parametrize(
    ("version", "command", "sent"),
    [
        ("-tls1_3", b"k\n", b">>> " + NEW_KEYS),
        ("-tls1_3", b"K\n", b">>> " + NEW_KEYS),
        ("-tls1_2", b"r\n", b"SSL_do_handshake -> 1"),
    ],
    ids=["new keys", "new keys both ways", "renegotiation"],
)
def test_server_changes_the_keys_in_mid_stream(
    loop: Loop,
    contexts: Contexts,
    certificates: Certificates,
    version: str,
    command: bytes,
    sent: bytes,
) -> None:
    async def main() -> None:
        port = free_port()
        server = await start_openssl(
            *("s_server", "-accept", str(port), "-cert", str(certificates.server)),
            *(version, "-msg"),
        )
        await until_printed(server, b"ACCEPT")
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=contexts.client, server_hostname="localhost"
        )
        for number in range(3):
            text = b"line %d\n" % number
            say(server, text)
            assert await reader.readline() == text
            say(server, command)
            await until_printed(server, sent)
            writer.write(b"from us: " + text)
            await until_printed(server, b"from us: " + text)
        say(server, b"Q\n")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await end(server)

    run(loop, main())


def test_a_renegotiation_that_is_not_allowed_ends_nothing_of_others(
    loop: Loop, contexts: Contexts
) -> None:
    """OpenSSL answers the client with an alert, and s_client gives up."""

    async def main() -> None:
        contexts.server.options |= ssl.OP_NO_RENEGOTIATION
        protocols: list[Echo] = []

        def make() -> Echo:
            protocols.append(Echo())
            return protocols[-1]

        server = await asyncio.get_running_loop().create_server(
            make, "127.0.0.1", 0, ssl=contexts.server
        )
        port = server.sockets[0].getsockname()[1]
        address = ("s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2")
        clients = []
        for _ in range(2):
            clients.append(client := await start_openssl(*address))
            say(client, b"before\n")
            await until_printed(client, b"before\n")
        first, second = clients
        say(first, b"R\n")
        await protocols[0].lost
        say(second, b"after\n")
        await until_printed(second, b"after\n")
        await end(first)
        await end(second)
        await protocols[1].lost
        server.close()
        await server.wait_closed()

    run(loop, main())
