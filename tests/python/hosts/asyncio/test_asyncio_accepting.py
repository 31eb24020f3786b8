"""Accepting connections: as asyncio does, on its own loop and on ours."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import fcntl
import gc
import os
import resource
import socket
import ssl
import warnings
from typing import TYPE_CHECKING, cast

import pytest
from tests.python.hosts.asyncio import asyncio_ends

from fdmux.hosts.asyncio import EventLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from tests.certificates import Certificates
    from tests.python.hosts.asyncio.asyncio_ends import Loop

KINDS = {"stock": asyncio.SelectorEventLoop, "ours": EventLoop}
LONG = 20.0
number: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[Loop]:
    return KINDS[str(request.param)]


class Client(asyncio.Protocol):
    """The end in the server; notes what the context variable is."""

    def __init__(self, clients: list[Client]) -> None:
        clients.append(self)
        self.seen: list[int] = []
        self.made = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.seen.append(number.get())
        self.made.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.seen.append(number.get())
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


def run(loop: Loop, main: Coroutine[object, object, None]) -> None:
    with contextlib.closing(loop):
        asyncio_ends.run(loop, main)


async def serve(
    make: Callable[[], asyncio.BaseProtocol], **options: object
) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    return await loop.create_server(make, "127.0.0.1", 0, **options)  # type: ignore[call-overload, no-any-return] # whatever it takes


def port_of(server: asyncio.Server) -> int:
    return cast("int", server.sockets[0].getsockname()[1])


async def connect(server: asyncio.Server) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    address = server.sockets[0].getsockname()
    await asyncio.get_running_loop().sock_connect(sock, address)
    return sock


async def echo(sock: socket.socket, data: bytes = b"x") -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, data)
    return await loop.sock_recv(sock, 100)


async def end(server: asyncio.Server, clients: list[Client]) -> None:
    for client in clients:
        client.transport.abort()
        await client.lost
    server.close()
    await server.wait_closed()


# ---- what a protocol sees ------------------------------------------------------------


def test_each_connection_has_the_context_of_its_factory(kind: type[Loop]) -> None:
    async def main() -> None:
        clients: list[Client] = []

        def make() -> Client:
            number.set(number.get() + 1)  # of this connection alone
            return Client(clients)

        server = await serve(make)
        with await connect(server) as one, await connect(server) as two:
            assert await echo(one) == await echo(two) == b"x"
        assert [client.seen for client in clients] == [[1, 1], [1, 1]]
        await end(server, clients)
        assert number.get() == 0

    run(kind(), main())


@pytest.mark.parametrize("family", ["inet", "inet6", "unix"])
def test_names_are_those_of_the_socket(
    kind: type[Loop], family: str, tmp_path: Path
) -> None:
    async def main() -> None:
        clients: list[Client] = []
        loop = asyncio.get_running_loop()

        def make() -> Client:
            return Client(clients)

        if family == "unix":
            server = await loop.create_unix_server(make, str(tmp_path / "s"))
            sock = socket.socket(socket.AF_UNIX)
        else:
            host = "127.0.0.1" if family == "inet" else "::1"
            server = await loop.create_server(make, host, 0)
            is_inet = family == "inet"
            sock = socket.socket(socket.AF_INET if is_inet else socket.AF_INET6)
        with sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, server.sockets[0].getsockname())
            assert await echo(sock) == b"x"
            transport = clients[0].transport
            found = transport.get_extra_info("socket")
            assert transport.get_extra_info("peername") == sock.getsockname()
            assert transport.get_extra_info("sockname") == sock.getpeername()
            assert (found.family, found.type) == (sock.family, sock.type)
            assert found.getpeername() == sock.getsockname()
            assert found.gettimeout() == 0
            assert not os.get_inheritable(found.fileno())
            assert fcntl.fcntl(found.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
            if family != "unix":
                assert found.proto == socket.IPPROTO_TCP
                assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await end(server, clients)

    run(kind(), main())


def test_one_event_accepts_all_that_have_come(kind: type[Loop]) -> None:
    async def main() -> None:
        clients: list[Client] = []
        server = await serve(lambda: Client(clients))
        address = server.sockets[0].getsockname()
        # The loop does not run meanwhile.
        socks = [socket.create_connection(address) for _ in range(20)]
        await clients_of(clients)
        assert len(clients) == 20
        for sock in socks:
            sock.setblocking(False)
        answers = await asyncio.gather(*(echo(sock, b"hello") for sock in socks))
        assert answers == [b"hello"] * 20
        for sock in socks:
            sock.close()
        await end(server, clients)

    run(kind(), main())


# ---- what goes wrong -----------------------------------------------------------------


@pytest.mark.parametrize("is_debug", [False, True], ids=["", "debug"])
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_factory_that_raises_ends_its_connection_alone(
    kind: type[Loop], is_debug: bool
) -> None:
    async def main() -> None:
        clients: list[Client] = []
        reports: list[dict[str, object]] = []
        loop = asyncio.get_running_loop()
        told = asyncio.Event()

        def report(_loop: object, context: dict[str, object]) -> None:
            reports.append(context)
            told.set()

        loop.set_exception_handler(report)
        loop.set_debug(is_debug)
        is_first = iter([True])

        def make() -> Client:
            if next(is_first, False):
                raise ValueError("no")
            return Client(clients)

        server = await serve(make)
        with await connect(server) as one:
            if is_debug:  # the report has the connection
                await told.wait()
            else:
                assert await loop.sock_recv(one, 1) == b""
        with await connect(server) as two:
            assert await echo(two) == b"x"
        found = [(report["message"], type(report["exception"])) for report in reports]
        text = "Error on transport creation for incoming connection"
        assert found == ([(text, ValueError)] if is_debug else [])
        await end(server, clients)

    run(kind(), main())


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_factory_that_closes_its_server_takes_no_client_of_another() -> None:
    """The number of the closed listener is that of the next one at once."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        firsts: list[Client] = []
        other = socket.socket()
        stolen: list[int] = []

        def make() -> Client:
            if not firsts:
                number = server.sockets[0].fileno()
                server.close()
                os.dup2(other.fileno(), number)
                stolen.append(number)
            return Client(firsts)

        server = await serve(make)
        address = server.sockets[0].getsockname()
        other.bind(("127.0.0.1", 0))
        other.listen()
        with (
            other,
            socket.create_connection(address),
            socket.create_connection(address),
            socket.create_connection(other.getsockname()),
        ):
            while not firsts:  # noqa: ASYNC110 - an event would need another factory
                await asyncio.sleep(0)
            other.setblocking(False)
            peer, _ = await asyncio.wait_for(loop.sock_accept(other), LONG)
            peer.close()
            assert len(firsts) == 1
            os.close(stolen[0])

    run(EventLoop(), main())
    gc.collect()  # of the client of a server that was closed meanwhile


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_an_interrupt_in_a_factory_leaves_the_loop(
    kind: type[Loop], error: type[BaseException]
) -> None:
    def make() -> Client:
        raise error

    loop = kind()
    server = loop.run_until_complete(serve(make))
    with socket.create_connection(server.sockets[0].getsockname()):
        with pytest.raises(error):
            loop.run_forever()
        server.close()
        loop.run_until_complete(server.wait_closed())
        loop.close()
    gc.collect()


def test_without_descriptors_asyncio_is_told_and_tries_again(
    kind: type[Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.01)

    async def main() -> None:
        clients: list[Client] = []
        reports: list[dict[str, object]] = []
        loop = asyncio.get_running_loop()
        told = asyncio.Event()

        def report(_loop: object, context: dict[str, object]) -> None:
            reports.append(context)
            told.set()

        loop.set_exception_handler(report)
        server = await serve(lambda: Client(clients))
        sock = socket.socket()
        sock.setblocking(False)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(sock.fileno())
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            await loop.sock_connect(sock, server.sockets[0].getsockname())
            await told.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert reports[0]["message"] == "socket.accept() out of system resource"
        assert cast("OSError", reports[0]["exception"]).errno == errno.EMFILE
        assert await echo(sock) == b"x"
        sock.close()
        await end(server, clients)

    run(kind(), main())


# ---- what a program replaces ---------------------------------------------------------


@pytest.mark.parametrize("where", ["class", "object"])
@pytest.mark.parametrize(
    "name", ["_accept_connection2", "_make_socket_transport", "create_task"]
)
def test_methods_that_are_replaced_are_called(
    kind: type[Loop], name: str, where: str
) -> None:
    calls: list[str] = []

    def replaced(self: Loop, *args: object, **more: object) -> object:
        calls.append(name)
        return getattr(kind, name)(self, *args, **more)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients: list[Client] = []
        if where == "object":
            setattr(loop, name, lambda *args, **more: replaced(loop, *args, **more))  # type: ignore[arg-type] # a Loop
        server = await serve(lambda: Client(clients))
        calls.clear()
        with await connect(server) as sock:
            await clients_of(clients)
            assert calls == [name]
            assert await echo(sock) == b"x"
        await end(server, clients)

    methods = {name: replaced} if where == "class" else {}
    run(cast("type[Loop]", type("Sub", (kind,), methods))(), main())


async def clients_of(clients: list[Client]) -> None:
    while not clients:  # noqa: ASYNC110 - an event would need another factory
        await asyncio.sleep(0)
    await clients[0].made


def test_a_task_factory_makes_the_task(kind: type[Loop]) -> None:
    async def main() -> None:
        names: list[str] = []
        clients: list[Client] = []
        loop = asyncio.get_running_loop()

        def make(loop: asyncio.AbstractEventLoop, coro: object) -> asyncio.Task[None]:
            names.append(coro.__qualname__)  # type: ignore[attr-defined] # a coroutine
            return asyncio.Task(coro, loop=loop)  # type: ignore[arg-type] # the same

        server = await serve(lambda: Client(clients))
        loop.set_task_factory(make)  # type: ignore[arg-type] # takes what it is given
        with await connect(server):
            await clients_of(clients)
        assert names == ["BaseSelectorEventLoop._accept_connection2"]
        await end(server, clients)

    run(kind(), main())


# ---- TLS -----------------------------------------------------------------------------


def test_a_handshake_that_is_under_way_ends_with_the_program(
    kind: type[Loop], certificates: Certificates
) -> None:
    context = certificates.server_context()

    async def main() -> socket.socket:
        server = await serve(asyncio.Protocol, ssl=context)
        sock = await connect(server)
        loop = asyncio.get_running_loop()
        hello = ssl.MemoryBIO()
        client = certificates.client_context().wrap_bio(
            ssl.MemoryBIO(), hello, server_hostname="localhost"
        )
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        await loop.sock_sendall(sock, hello.read())
        assert await loop.sock_recv(sock, 100)  # the server has answered
        server.close()
        return sock

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with asyncio.Runner(loop_factory=kind) as runner:
            sock = runner.run(main())
        gc.collect()
    with sock:
        sock.settimeout(LONG)
        while sock.recv(10_000):
            pass
