"""TLS with the program openssl, on asyncio's transports and on ours."""

from __future__ import annotations

import asyncio
from asyncio import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.python.hosts.asyncio.asyncio_ends import Loop, run
from tests.python.hosts.asyncio.asyncio_tls_ends import (
    KINDS,
    Contexts,
    make_contexts,
    make_tls_loop,
)
from tests.python.hosts.asyncio.program_servers import free_port, program

if TYPE_CHECKING:
    from tests.certificates import Certificates

loop = pytest.fixture(params=KINDS)(make_tls_loop)
contexts = pytest.fixture(make_contexts)


async def start_openssl(*arguments: str) -> subprocess.Process:
    return await asyncio.create_subprocess_exec(
        program("openssl"),
        *arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


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
