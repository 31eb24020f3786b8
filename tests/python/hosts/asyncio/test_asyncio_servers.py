"""`Server.close_clients` and `abort_clients`, on every Python."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from typing import TYPE_CHECKING, Protocol, cast

import pytest
from tests.python.hosts.asyncio.asyncio_ends import BIG

from fdmux.hosts.asyncio import EventLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from tests.certificates import Certificates

    class KnowsClients(Protocol):
        """`asyncio.Server` since 3.13."""

        def close_clients(self) -> None: ...
        def abort_clients(self) -> None: ...


HAS_CLIENTS = hasattr(asyncio.Server, "close_clients")
KINDS = {"ours": EventLoop}
if HAS_CLIENTS:
    KINDS["stock"] = asyncio.SelectorEventLoop  # type: ignore[assignment] # its base
LONG = 30.0


class Client(asyncio.Protocol):
    """The end in the server; answers the first bytes with `answer`."""

    answer = b"x"

    def __init__(self, clients: list[Client]) -> None:
        clients.append(self)
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, _data: bytes) -> None:
        self.transport.write(self.answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@pytest.fixture(params=KINDS)
def runner(request: pytest.FixtureRequest) -> asyncio.Runner:
    return asyncio.Runner(loop_factory=KINDS[str(request.param)])


def run(runner: asyncio.Runner, main: Coroutine[None, None, None]) -> None:
    with runner as loop:
        loop.run(asyncio.wait_for(main, LONG))


def knowing(server: asyncio.Server) -> KnowsClients:
    return cast("KnowsClients", server)


async def meet(port: int) -> socket.socket:
    """Connect, and wait until the server has read and answered."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, b"hello")
    assert await loop.sock_recv(sock, 1) == b"x"
    return sock


@pytest.mark.parametrize("end", ["close_clients", "abort_clients"])
def test_clients_are_ended(runner: asyncio.Runner, end: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients: list[Client] = []
        server = await loop.create_server(lambda: Client(clients), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        first, second, third = [await meet(port) for _ in range(3)]
        third.close()
        assert await clients[2].lost is None
        server.close()
        getattr(knowing(server), end)()
        for sock, client in ((first, clients[0]), (second, clients[1])):
            with sock:
                assert await loop.sock_recv(sock, 1) == b""
            assert await client.lost is None
        await server.wait_closed()
        getattr(knowing(server), end)()  # nobody is left

    run(runner, main())


def test_close_sends_what_is_queued_and_abort_drops_it(
    runner: asyncio.Runner,
) -> None:
    class Big(Client):
        answer = b"x" * BIG

    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients: list[Client] = []
        server = await loop.create_server(lambda: Big(clients), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with await meet(port) as sock:
            knowing(server).close_clients()
            assert clients[0].transport.is_closing()
            received = 1
            while data := await loop.sock_recv(sock, 1 << 20):
                received += len(data)
            assert received == BIG
        with await meet(port) as sock:
            knowing(server).close_clients()
            assert not clients[1].lost.done()
            knowing(server).abort_clients()
            assert await clients[1].lost is None
        server.close()
        await server.wait_closed()

    run(runner, main())


def test_server_of_a_unix_socket(runner: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients: list[Client] = []
        path = str(tmp_path / "socket")
        server = await loop.create_unix_server(
            lambda: Client(clients), path, start_serving=False
        )
        assert not server.is_serving()
        await server.start_serving()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"hello")
        assert await reader.read(1) == b"x"
        knowing(server).close_clients()
        assert await reader.read(1) == b""
        writer.close()
        server.close()
        await server.wait_closed()

    run(runner, main())


def test_clients_with_tls(runner: asyncio.Runner, certificates: Certificates) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients: list[Client] = []
        server = await loop.create_server(
            lambda: Client(clients), "127.0.0.1", 0, ssl=certificates.server_context()
        )
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(),
            ssl=certificates.client_context(),
            server_hostname="localhost",
        )
        writer.write(b"hello")
        assert await reader.read(1) == b"x"
        knowing(server).abort_clients()
        assert await clients[0].lost is None
        writer.transport.abort()
        server.close()
        await server.wait_closed()

    run(runner, main())


def test_server_keeps_no_transport_alive(
    runner: asyncio.Runner,
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients: list[Client] = []
        server = await loop.create_server(lambda: Client(clients), "127.0.0.1", 0)
        with await meet(server.sockets[0].getsockname()[1]):
            kept = weakref.ref(clients[0].transport)
        await clients[0].lost
        clients.clear()
        await asyncio.sleep(0)
        gc.collect()
        assert kept() is None
        assert type(server).__name__ == "Server"
        assert isinstance(server, asyncio.Server)
        server.close()
        await server.wait_closed()

    run(runner, main())
