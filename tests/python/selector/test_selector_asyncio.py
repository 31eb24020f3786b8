"""asyncio on a fdmux.Selector, and current(): the native loop of whatever runs here."""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
from typing import TYPE_CHECKING, TypeVar

import pytest

from fdmux import (
    EVENT_READ,
    LoopClosed,
    NativeLoop,
    Selector,
    SelectorEventLoop,
    current,
)
from fdmux._native import backend_names

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Iterator

    from tests.compiled import HasLoop
    from tests.python.conftest import NativeUser

    Pair = tuple[socket.socket, socket.socket]

Result = TypeVar("Result")
SOON = 20.0


@pytest.fixture(params=backend_names())
def selector(request: pytest.FixtureRequest) -> Iterator[Selector]:
    with Selector(str(request.param)) as selector:
        yield selector


def run_on(
    selector: selectors.BaseSelector, main: Coroutine[object, object, Result]
) -> Result:
    loop = asyncio.SelectorEventLoop(selector)
    try:
        return loop.run_until_complete(asyncio.wait_for(main, SOON))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def exchange(address: tuple[str, int], message: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(message)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.slow
def test_asyncio_serves_a_tcp_echo(selector: Selector) -> None:
    messages = [bytes([i]) * 100_000 for i in range(20)]

    async def main() -> list[bytes]:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        answers = await asyncio.gather(*(exchange(address, m) for m in messages))
        server.close()
        await server.wait_closed()
        return answers

    assert run_on(selector, main()) == messages


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform == "win32", reason="selector loops of asyncio run no programs there"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:asyncio")
def test_asyncio_runs_a_subprocess(selector: Selector) -> None:
    async def main() -> tuple[bytes, int | None]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-Ic",
            "import sys; sys.stdout.write(sys.stdin.read().upper())",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate(b"text")
        return output, process.returncode

    assert run_on(selector, main()) == (b"TEXT", 0)


def test_asyncio_is_called_from_other_threads(selector: Selector) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()
        thread = threading.Thread(
            target=loop.call_soon_threadsafe, args=(done.set_result, 7)
        )
        loop.call_later(0, thread.start)
        result = await done
        thread.join()
        return result

    assert run_on(selector, main()) == 7


def test_asyncio_sleeps_in_time(selector: Selector) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.sleep(0.01)
        return loop.time() - started

    assert run_on(selector, main()) >= 0.01


def test_native_code_runs_beside_asyncio(
    selector: Selector, pair: Pair, native_user: Callable[[HasLoop], NativeUser]
) -> None:
    async def main() -> int:
        native = native_user(current())
        pair[1].send(b"x")
        token = native.watch(pair[0].fileno())
        assert native.timer(0.001) > 0
        while native.counts.called < 3:  # noqa: ASYNC110 - C code sets no Event
            await asyncio.sleep(0.001)
        return native.unwatch(token)

    assert run_on(selector, main()) == 0


# ---- current() -----------------------------------------------------------------------


def test_current_inside_asyncio_is_the_loop_of_its_selector(selector: Selector) -> None:
    async def main() -> NativeLoop:
        return current()

    assert run_on(selector, main()) is selector.native


def test_current_on_a_stock_asyncio_loop_is_mounted_on_it() -> None:
    async def main() -> NativeLoop:
        return current()

    native = run_on(selectors.DefaultSelector(), main())
    with pytest.raises(LoopClosed):
        native.wake()  # ended with the loop


def test_current_without_a_loop_says_so() -> None:
    with pytest.raises(
        RuntimeError, match="no loop that can host a native loop is running"
    ):
        current()


def test_current_in_another_thread_knows_nothing_of_this_one(
    selector: Selector,
) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()

        def ask() -> str:
            with pytest.raises(RuntimeError) as caught:
                current()
            return str(caught.value)

        answer = await loop.run_in_executor(None, ask)
        await loop.shutdown_default_executor()
        return answer

    assert "no loop" in run_on(selector, main())


@pytest.mark.parametrize("other", [Selector, selectors.SelectSelector])
def test_current_inside_a_callback_is_the_loop_that_runs_it(
    other: Callable[[], selectors.BaseSelector], pair: Pair
) -> None:
    found: list[NativeLoop] = []
    with SelectorEventLoop() as loop, SelectorEventLoop(other()) as inner:
        inner.call_soon_threadsafe(lambda: found.append(current()))
        loop.register_write(pair[0], lambda _: found.append(current()))
        loop.call_soon_threadsafe(inner.run_once, 0)
        loop.call_soon_threadsafe(lambda: found.append(current()))
        loop.run(max_iterations=1)
        assert found == [loop.native, inner.native, loop.native]
        with pytest.raises(RuntimeError, match="no loop"):
            current()


def test_current_after_a_raising_callback_is_nothing(pair: Pair) -> None:
    def fail(_sock: object) -> None:
        raise ZeroDivisionError

    with SelectorEventLoop() as loop:
        loop.register_write(pair[0], fail)
        with pytest.raises(ZeroDivisionError):
            loop.run_once(0)
        with pytest.raises(RuntimeError, match="no loop"):
            current()


def test_selector_in_use_by_asyncio_takes_other_registrations(
    selector: Selector, pair: Pair
) -> None:
    """What is in the same selector, but not asyncio's, does not disturb it."""

    async def main() -> bool:
        loop = asyncio.get_running_loop()
        read: asyncio.Future[bytes] = loop.create_future()
        loop.add_reader(pair[0], lambda: read.set_result(pair[0].recv(10)))
        pair[1].send(b"x")
        assert await read == b"x"
        assert selector.get_key(pair[0]).events == EVENT_READ
        return loop.remove_reader(pair[0])

    assert run_on(selector, main()) is True
