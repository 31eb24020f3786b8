"""EventLoop: all of asyncio on the C core, in each way a program starts it."""

from __future__ import annotations

import asyncio
import selectors
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

import fdmux
from fdmux.hosts import asyncio as host
from fdmux.hosts.asyncio.selector import StreamSelector
from fdmux.hosts.asyncio.transport import StreamTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SOON = 20.0


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data.upper())
        await writer.drain()
    writer.close()


async def talk(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes
) -> bytes:
    writer.write(message)
    if writer.can_write_eof():
        writer.write_eof()
        answer = await reader.read()
    else:
        answer = await reader.readexactly(len(message))
    writer.close()
    await writer.wait_closed()
    return answer


# ---- starting ------------------------------------------------------------------------


def test_run_returns_what_main_returns() -> None:
    async def main() -> str:
        await asyncio.sleep(0)
        assert isinstance(asyncio.get_running_loop(), host.EventLoop)
        return "result"

    assert host.run(main()) == "result"


def test_run_raises_what_main_raises() -> None:
    async def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        host.run(main())


def test_run_cancels_remaining_tasks_and_closes_generators() -> None:
    ended: list[str] = []

    async def linger() -> None:
        try:
            await asyncio.sleep(SOON)
        finally:
            ended.append("task")

    async def generate() -> AsyncIterator[None]:
        try:
            yield
        finally:
            ended.append("generator")

    async def main() -> None:
        tasks.append(asyncio.ensure_future(linger()))
        async for _ in generate():
            await asyncio.sleep(0)
            break

    tasks: list[asyncio.Future[None]] = []
    host.run(main())
    assert sorted(ended) == ["generator", "task"]


@pytest.mark.parametrize("debug", [True, False])
def test_run_sets_the_debug_mode(debug: bool) -> None:
    async def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert host.run(main(), debug=debug) == debug


def test_run_inside_a_running_loop_is_an_error() -> None:
    async def nothing() -> None:
        """Never runs."""

    async def main() -> None:
        inner = nothing()
        with pytest.raises(RuntimeError, match="is running already in this thread"):
            host.run(inner)
        inner.close()

    host.run(main())


async def do_nothing() -> None:
    """Nothing."""


async def generate_nothing() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    ("main", "hint"),
    [
        (5, "not 5$"),
        (do_nothing, "call the function"),
        (generate_nothing(), "iterate over it in a coroutine"),
    ],
)
def test_main_that_is_no_coroutine_is_refused(main: object, hint: str) -> None:
    with pytest.raises(TypeError, match=rf"run: main must be a coroutine, .*{hint}"):
        host.run(main)  # type: ignore[arg-type] # wrong on purpose
    message = rf"start in a guest: main must be a coroutine, .*{hint}"
    with host.Guest() as guest, pytest.raises(TypeError, match=message):
        guest.start(main)  # type: ignore[arg-type] # wrong on purpose


def test_selector_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="selector is 5; it must be a selectors"):
        host.EventLoop(selector=5)  # type: ignore[arg-type] # wrong on purpose


def test_guest_takes_no_argument() -> None:
    with pytest.raises(TypeError, match="1 positional argument"):
        host.Guest(5)  # type: ignore[call-arg] # wrong on purpose


@pytest.mark.slow
def test_forked_child_that_drops_the_loop_is_quiet_and_keeps_no_descriptor() -> None:
    program = """
import gc, os
from fdmux.hosts.asyncio import new_event_loop

before = len(os.listdir("/proc/self/fd"))
loop = new_event_loop()
loop.add_reader(0, print)
child = os.fork()
if not child:
    del loop
    gc.collect()
    os._exit(len(os.listdir("/proc/self/fd")) - before)
assert os.waitpid(child, 0)[1] == 0
loop.call_soon_threadsafe(loop.stop)  # by the self-pipe, which the child has closed
loop.run_forever()
loop.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        check=False,
        timeout=SOON,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_runner_takes_the_loop_as_factory() -> None:
    async def main() -> type:
        return type(asyncio.get_running_loop())

    for factory in (host.EventLoop, host.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            assert runner.run(main()) is host.EventLoop


def test_anyio_takes_the_loop_as_factory() -> None:
    anyio = pytest.importorskip("anyio", reason="needs anyio")

    async def main() -> type:
        await anyio.sleep(0)
        return type(asyncio.get_running_loop())

    options = {"loop_factory": host.EventLoop}
    assert anyio.run(main, backend_options=options) is host.EventLoop


# ---- what it serves ------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 100_000, 3_000_000])
def test_streams_of_asyncio_transfer_data(size: int) -> None:
    messages = [bytes([97 + index]) * size for index in range(5)]

    async def main() -> list[bytes]:
        server = await asyncio.start_server(shout, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        ends = [await asyncio.open_connection(*address) for _ in messages]
        assert isinstance(ends[0][1].transport, StreamTransport)
        answers = await asyncio.gather(
            *(talk(*end, message) for end, message in zip(ends, messages, strict=True))
        )
        server.close()
        await server.wait_closed()
        return answers

    assert host.run(main()) == [message.upper() for message in messages]


def test_streams_of_asyncio_work_on_unix_sockets(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def main() -> bytes:
        server = await asyncio.start_unix_server(shout, path)
        end = await asyncio.open_unix_connection(path)
        assert isinstance(end[1].transport, StreamTransport)
        answer = await talk(*end, b"text")
        server.close()
        await server.wait_closed()
        return answer

    assert host.run(main()) == b"TEXT"


def test_datagrams_are_asyncio_s_own() -> None:
    class Receiver(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, _address: object) -> None:
            received.put_nowait(data)

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            Receiver, local_addr=("127.0.0.1", 0)
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"hello", transport.get_extra_info("sockname"))
            data = await received.get()
        transport.close()
        return data

    received: asyncio.Queue[bytes] = asyncio.Queue()
    assert host.run(main()) == b"hello"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:asyncio")
def test_child_processes_are_asyncio_s_own() -> None:
    code = "import sys; sys.stdout.write(sys.stdin.read().upper())"

    async def main() -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-Ic",
            code,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate(b"text")
        return output

    assert host.run(main()) == b"TEXT"
    for thread in threading.enumerate():
        if thread.name.startswith("waitpid-"):  # a thread of asyncio that is ending
            thread.join(SOON)


def test_timers_threads_and_signals_end_a_wait_for_connections() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(shout, "127.0.0.1", 0)
        end = await asyncio.open_connection(*server.sockets[0].getsockname())
        seen: list[str] = []
        started = loop.time()
        await asyncio.sleep(0.01)
        assert loop.time() - started >= 0.01
        seen.append("time")
        called = asyncio.Event()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(called.set,))
        loop.call_soon(thread.start)
        await called.wait()
        thread.join()
        seen.append("thread")
        caught = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, caught.set)
        thread = threading.Thread(
            target=signal.pthread_kill,
            args=(threading.main_thread().ident, signal.SIGUSR1),
        )
        loop.call_soon(thread.start)
        await caught.wait()
        thread.join()
        loop.remove_signal_handler(signal.SIGUSR1)
        seen.append("signal")
        await talk(*end, b"x")
        server.close()
        return seen

    assert host.run(main()) == ["time", "thread", "signal"]


def test_signal_handlers_run_during_a_wait_for_connections() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(shout, "127.0.0.1", 0)
        end = await asyncio.open_connection(*server.sockets[0].getsockname())
        caught = asyncio.Event()
        before = signal.signal(
            signal.SIGALRM, lambda *_: loop.call_soon_threadsafe(caught.set)
        )
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        await caught.wait()
        signal.signal(signal.SIGALRM, before)
        await talk(*end, b"x")
        server.close()

    host.run(main())


def test_watched_descriptors_and_connections_do_not_starve_each_other() -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        one, other = socket.socketpair()
        server = await asyncio.start_server(shout, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        with one, other:
            other.send(b"x")
            calls: list[bytes] = []
            loop.add_reader(one, calls.append, b"readable")  # and stays so
            for _ in range(20):
                writer.write(b"x")
                await reader.readexactly(1)
            loop.remove_reader(one)
        await talk(reader, writer, b"")
        server.close()
        return len(calls) >= 20

    assert host.run(main())


# ---- native code, and other selectors ------------------------------------------------


def test_native_loop_is_that_of_the_selector() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, host.EventLoop)
        assert type(loop.__fdmux_loop__()).__name__ == "PyCapsule"
        assert isinstance(fdmux.current(), fdmux.NativeLoop)

    host.run(main())


def test_closed_loop_has_no_native_loop() -> None:
    loop = host.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="has no core loop"):
        loop.__fdmux_loop__()


def test_on_another_selector_the_transports_are_asyncio_s_own() -> None:
    async def main() -> str:
        server = await asyncio.start_server(shout, "127.0.0.1", 0)
        end = await asyncio.open_connection(*server.sockets[0].getsockname())
        name = type(end[1].transport).__name__
        assert await talk(*end, b"text") == b"TEXT"
        server.close()
        await server.wait_closed()
        return name

    loop = host.EventLoop(selectors.SelectSelector())
    try:
        assert loop.run_until_complete(main()) == "_SelectorSocketTransport"
    finally:
        loop.close()


def test_poll_backend_serves_transports_too() -> None:
    async def main() -> bytes:
        server = await asyncio.start_server(shout, "127.0.0.1", 0)
        end = await asyncio.open_connection(*server.sockets[0].getsockname())
        answer = await talk(*end, b"text")
        server.close()
        await server.wait_closed()
        return answer

    loop = host.EventLoop(StreamSelector("poll"))
    try:
        assert loop.run_until_complete(main()) == b"TEXT"
    finally:
        loop.close()
