"""Programs of others, unchanged on our loop: aiohttp, uvicorn, pytest-asyncio."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fdmux.hosts.asyncio import EventLoop, run
from fdmux.hosts.asyncio.transport import StreamTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "asyncio.md"
BODIES = [b"x" * 10, b"y" * 300_000]


@pytest.mark.slow
def test_aiohttp_serves_and_asks() -> None:
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


@pytest.mark.slow
def test_pytest_asyncio_takes_what_the_documents_show(tmp_path: Path) -> None:
    pytest.importorskip("pytest_asyncio", reason="needs pytest-asyncio")
    found = re.search(
        r"<!-- test: hosts/pytest-asyncio -->\n```python\n(.*?)^```$",
        DOCUMENT.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    assert found is not None
    (tmp_path / "conftest.py").write_text(found[1])
    (tmp_path / "test_it.py").write_text(
        "import asyncio\n"
        "async def test_it():\n"
        "    kind = type(asyncio.get_running_loop())\n"
        f"    assert kind.__name__ == '{EventLoop.__name__}'\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-o",
            "asyncio_mode=auto",
            str(tmp_path),
        ],
        capture_output=True,
        check=False,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
