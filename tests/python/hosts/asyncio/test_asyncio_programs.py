"""Libraries that run unchanged on our loop: aiohttp, uvicorn, gunicorn and others."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from tests.tree import ROOT

from fdmux.hosts.asyncio import EventLoop, run
from fdmux.hosts.asyncio.transport import StreamTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

DOCUMENT = ROOT / "docs" / "asyncio.md"
BODIES = [b"x" * 10, b"y" * 300_000]


@pytest.mark.slow
def test_aiohttp_serves_and_requests() -> None:
    web = pytest.importorskip("aiohttp.web", reason="needs aiohttp")
    aiohttp = pytest.importorskip("aiohttp")
    kinds: set[type] = set()

    async def echo(request: object) -> object:
        kinds.add(type(request.transport))  # type: ignore[attr-defined] # aiohttp is optional
        body = await request.read()  # type: ignore[attr-defined] # the same
        return web.Response(body=body)

    async def main() -> list[bytes]:
        application = web.Application(client_max_size=1 << 20)
        application.router.add_post("/", echo)
        runner = web.AppRunner(application)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        answers = []
        async with aiohttp.ClientSession() as session:
            for body in BODIES:
                async with session.post(url, data=body) as answer:
                    answers.append(await answer.read())
        await runner.cleanup()
        return answers

    assert run(main()) == BODIES
    assert kinds == {StreamTransport}


async def application(
    scope: dict[str, str],
    receive: Callable[[], Awaitable[dict[str, object]]],
    send: Callable[[dict[str, object]], Awaitable[None]],
) -> None:
    """Echo the body of a request, as an ASGI application."""
    assert scope["type"] == "http"
    body = b""
    has_more: object = True
    while has_more:
        message = await receive()
        part = message.get("body", b"")
        assert isinstance(part, bytes)
        body += part
        has_more = message.get("more_body", False)
    size = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": size})
    await send({"type": "http.response.body", "body": body})


async def post(address: tuple[str, int], body: bytes) -> bytes:
    """Make one request of HTTP/1.0, whose answer ends with the connection."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.slow
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_uvicorn_serves(http: str) -> None:
    pytest.importorskip(http, reason=f"needs {http}")
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn")
    settings = uvicorn.Config(
        application, http=http, ws="none", lifespan="off", log_level="warning"
    )

    async def main() -> list[bytes]:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(settings)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        answers = [await post(listener.getsockname(), body) for body in BODIES]
        server.should_exit = True
        await serving
        return answers

    assert run(main()) == BODIES


NAME = "fdmux.hosts.asyncio:new_event_loop"


@pytest.mark.slow
def test_uvicorn_takes_the_name_of_a_loop_factory() -> None:
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn")
    if not hasattr(uvicorn.Config, "get_loop_factory"):
        pytest.skip("needs uvicorn 0.36")
    kinds: list[type] = []

    async def note_loop(scope: dict[str, str], receive: object, send: object) -> None:
        kinds.append(type(asyncio.get_running_loop()))
        await application(scope, receive, send)  # type: ignore[arg-type] # as uvicorn gives them

    settings = uvicorn.Config(
        note_loop, loop=NAME, ws="none", lifespan="off", log_level="warning"
    )
    server = uvicorn.Server(settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert asyncio.run(post(listener.getsockname(), b"body")) == b"body"
        finally:
            server.should_exit = True
            thread.join()
    assert kinds == [EventLoop]


@pytest.mark.slow
def test_gunicorn_s_worker_takes_the_name_of_a_loop_factory(tmp_path: Path) -> None:
    pytest.importorskip("gunicorn", reason="needs gunicorn")
    pytest.importorskip("uvicorn_worker", reason="needs uvicorn-worker")
    (tmp_path / "program.py").write_text(
        "import asyncio\n"
        "from uvicorn_worker import UvicornWorker\n"
        "class Worker(UvicornWorker):\n"
        f"    CONFIG_KWARGS = {{'loop': '{NAME}'}}\n"
        "async def app(scope, receive, send):\n"
        "    kind = type(asyncio.get_running_loop()).__name__.encode()\n"
        "    if scope['type'] == 'http':\n"
        "        size = [(b'content-length', b'%d' % len(kind))]\n"
        "        head = {'type': 'http.response.start', 'status': 200}\n"
        "        await send({**head, 'headers': size})\n"
        "        await send({'type': 'http.response.body', 'body': kind})\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        options = ["-b", f"fd://{number}", "-k", "program.Worker", "program:app"]
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *options],
            cwd=tmp_path,
            pass_fds=[number],
            stderr=subprocess.DEVNULL,
        )
        try:
            answer = asyncio.run(post(listener.getsockname(), b""))
        finally:
            server.terminate()
            server.wait()
    assert answer == EventLoop.__name__.encode()


@pytest.mark.slow
def test_pytest_plugin_of_anyio_takes_the_loop_as_factory(tmp_path: Path) -> None:
    pytest.importorskip("anyio", reason="needs anyio")
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        "from fdmux.hosts.asyncio import EventLoop\n"
        "@pytest.fixture\n"
        "def anyio_backend():\n"
        '    return ("asyncio", {"loop_factory": EventLoop})\n'
    )
    check_loop_of_tests(tmp_path, "-o", "anyio_mode=auto", "-p", "no:asyncio")


@pytest.mark.slow
def test_pytest_asyncio_runs_the_conftest_of_the_documentation(tmp_path: Path) -> None:
    pytest.importorskip("pytest_asyncio", reason="needs pytest-asyncio")
    found = re.search(
        r"<!-- test: hosts/pytest-asyncio -->\n```python\n(.*?)^```$",
        DOCUMENT.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    assert found is not None
    (tmp_path / "conftest.py").write_text(found[1])
    check_loop_of_tests(tmp_path, "-o", "asyncio_mode=auto")


def check_loop_of_tests(folder: Path, *options: str) -> None:
    """Run a test that checks which loop runs it, with the folder's conftest.py."""
    (folder / "test_it.py").write_text(
        "import asyncio\n"
        "async def test_it():\n"
        "    kind = type(asyncio.get_running_loop())\n"
        f"    assert kind.__name__ == '{EventLoop.__name__}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, str(folder)],
        capture_output=True,
        check=False,
        text=True,
        cwd=folder,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
