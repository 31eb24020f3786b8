"""asyncio as a guest: one descriptor that polls readable, and one call.

The host is poll(2), on the real descriptor and in real time.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import gc
import select
import selectors
import signal
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING

import pytest

import fdmux
from fdmux._ffi import lib
from fdmux._native import LoopClosed
from fdmux.hosts.asyncio import EventLoop, Guest
from fdmux.testing import NativeCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

SOON = 0.005
LONG = 10.0


class Host:
    """A loop of poll(2) with one guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.dispatch_count = 0
        self._poll = select.poll()
        self._poll.register(guest.fileno(), select.POLLIN)

    def is_readable(self, timeout: float = 0.0) -> bool:
        return bool(self._poll.poll(timeout * 1000))

    def run_until(self, is_done: Callable[[], bool]) -> None:
        """Dispatch whenever the descriptor is readable, and never otherwise."""
        deadline = time.monotonic() + LONG
        while not is_done():
            assert time.monotonic() < deadline
            assert self.is_readable(LONG), "the descriptor does not become readable"
            self.dispatch_count += 1
            self.guest.dispatch()

    def settle(self) -> None:
        """Dispatch until the descriptor is not readable."""
        for _ in range(100):
            if not self.is_readable():
                return
            self.guest.dispatch()
        pytest.fail("the descriptor stays readable")


@pytest.fixture(params=["our transports", "asyncio's own"])
def guest(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Guest]:
    """A guest, with our transports and with asyncio's own."""
    if request.param == "asyncio's own":
        monkeypatch.setattr("fdmux.hosts.asyncio.loop.CAN_SERVE", False)
    with Guest() as guest:
        yield guest


@pytest.fixture
def host(guest: Guest) -> Host:
    return Host(guest)


def complete(host: Host, coroutine: object) -> object:
    """Run a coroutine in the guest until it has ended."""
    task = host.guest.start(coroutine)  # type: ignore[arg-type,var-annotated] # of any result
    host.run_until(task.done)
    return task.result()


# ---- asyncio -------------------------------------------------------------


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
    finally:
        writer.close()


async def converse(rounds: int) -> list[bytes]:
    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        answers = []
        for number in range(rounds):
            writer.write(b"line %d\n" % number)
            answers.append(await reader.readline())
        writer.close()
        await writer.wait_closed()
    return answers


def test_guest_runs_streams_of_asyncio(host: Host) -> None:
    answers = complete(host, converse(20))
    assert answers == [b"LINE %d\n" % number for number in range(20)]


async def ask_around() -> tuple[object, ...]:
    loop = asyncio.get_running_loop()
    process = await asyncio.create_subprocess_exec(
        "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    echoed, _ = await process.communicate(b"through a process")
    return (
        loop,
        asyncio.current_task() is not None,
        await asyncio.to_thread(threading.current_thread) is threading.main_thread(),
        echoed,
        await asyncio.wait_for(asyncio.sleep(0, "value"), LONG),
    )


def test_loop_is_asyncio_s_own(host: Host) -> None:
    found = complete(host, ask_around())
    assert found == (host.guest.loop, True, False, b"through a process", "value")
    assert isinstance(host.guest.loop, EventLoop)
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_timer_is_neither_early_nor_forgotten(host: Host) -> None:
    async def sleep() -> float:
        start = time.monotonic()
        await asyncio.sleep(SOON)
        return time.monotonic() - start

    slept = complete(host, sleep())
    assert isinstance(slept, float)
    assert slept >= SOON


def test_native_function_in_select_delays_no_timer(host: Host) -> None:
    """The time that asyncio would wait counts from the call of `select`."""
    loop = host.guest.loop
    began: list[float] = []

    def work(token: int, _events: int) -> None:
        began.append(time.monotonic())
        code.unwatch(token)
        time.sleep(0.02)  # what a native function may take

    ours, theirs = socket.socketpair()
    with ours, theirs, fdmux.mount(loop) as mounted:
        code = NativeCode(mounted)
        code.watch(ours.fileno(), selectors.EVENT_READ, work)
        timer = loop.call_later(LONG, pytest.fail)
        host.settle()
        theirs.send(b"x")
        start = time.monotonic()
        host.guest.dispatch()
        deadline = host.guest.deadline()
    assert deadline is not None
    assert deadline <= began[0] + (timer.when() - start) + 1e-6  # of rounding


def test_task_runs_in_the_context_of_its_start(host: Host) -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")

    async def ask() -> str:
        await asyncio.sleep(0)
        return who.get()

    reset = who.set("the host")
    task = host.guest.start(ask())
    who.reset(reset)
    host.run_until(task.done)
    assert task.result() == "the host"


def test_debug_mode_gives_no_warning(
    host: Host, recwarn: pytest.WarningsRecorder
) -> None:
    host.guest.loop.set_debug(True)
    assert complete(host, converse(2)) == [b"LINE 0\n", b"LINE 1\n"]
    assert not recwarn.list


def test_cancelled_task_ends(host: Host) -> None:
    task = host.guest.start(asyncio.sleep(1000))
    host.settle()
    task.cancel()  # by a callback of the host
    host.run_until(task.done)
    assert task.cancelled()
    host.settle()
    assert not host.is_readable(SOON)


def test_task_without_a_reference_goes_on(host: Host) -> None:
    """C code drops the task that `start` returns."""
    ended: list[str] = []
    futures: list[weakref.ref[asyncio.Future[None]]] = []

    async def wait() -> None:
        future: asyncio.Future[None] = asyncio.Future()
        futures.append(weakref.ref(future))
        await future
        ended.append("by itself")

    host.guest.start(wait())
    host.settle()
    gc.collect()
    future = futures[0]()
    assert future is not None
    future.set_result(None)
    host.run_until(lambda: bool(ended))
    del future
    host.settle()
    gc.collect()
    assert futures[0]() is None


def test_endless_callbacks_do_not_block_the_host(host: Host) -> None:
    counts = [0]

    def again() -> None:
        counts[0] += 1
        host.guest.loop.call_soon(again)

    host.guest.loop.call_soon(again)
    for turn in range(1, 6):
        assert host.is_readable()
        host.guest.dispatch()
        assert turn <= counts[0] <= turn * 20


@pytest.mark.parametrize("count", [1, 100])
def test_thread_wakes_the_host(host: Host, count: int) -> None:
    host.settle()
    seen: list[int] = []
    loop = host.guest.loop
    thread = threading.Thread(
        target=lambda: [
            loop.call_soon_threadsafe(seen.append, number) for number in range(count)
        ]
    )
    thread.start()
    host.run_until(lambda: len(seen) == count)
    thread.join()
    assert seen == list(range(count))


def test_signal_handler_runs_in_the_next_dispatch(host: Host) -> None:
    host.settle()
    seen: list[str] = []
    loop = host.guest.loop
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "signal")
    signal.raise_signal(signal.SIGUSR1)
    host.run_until(lambda: bool(seen))
    assert loop.remove_signal_handler(signal.SIGUSR1)


def test_native_code_finds_the_loop(host: Host) -> None:
    async def find() -> bool:
        return fdmux.current().fileno() == host.guest.fileno()

    assert complete(host, find()) is True


# ---- the descriptor ---------------------------------------------------------


def test_descriptor_of_an_idle_guest_is_not_readable(host: Host) -> None:
    host.settle()
    assert not host.is_readable(SOON)
    assert host.guest.deadline() is None


def test_far_timer_costs_no_dispatch(host: Host) -> None:
    host.settle()
    host.guest.loop.call_later(1000, pytest.fail)
    host.settle()
    assert not host.is_readable(SOON)
    deadline = host.guest.deadline()
    assert deadline is not None
    assert 990 < deadline - time.monotonic() < 1001


def test_sleeps_cost_few_dispatches(host: Host) -> None:
    async def sleep() -> None:
        for _ in range(10):
            await asyncio.sleep(0.001)

    complete(host, sleep())
    assert host.dispatch_count <= 40


@pytest.mark.parametrize("method", ["call_soon", "call_later", "create_task"])
def test_callback_of_the_host_may_use_the_loop(host: Host, method: str) -> None:
    """Outside of a dispatch, the loop has to wake the host."""
    host.settle()
    seen: list[str] = []

    async def note() -> None:
        seen.append("called")

    loop = host.guest.loop
    if method == "call_soon":
        loop.call_soon(seen.append, "called")
    elif method == "call_later":
        loop.call_later(SOON, seen.append, "called")
    else:
        kept = loop.create_task(note())
    host.run_until(lambda: bool(seen))
    assert method != "create_task" or kept.done()


@pytest.mark.parametrize("method", ["write", "writelines", "write_eof", "close"])
def test_callback_of_the_host_may_write(host: Host, method: str) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        _, writer = connect(host, ours)
        host.settle()
        if method == "writelines":
            writer.writelines([b"he", b"llo"])
        else:
            writer.write(b"hello")
        host.run_until(lambda: has_data(theirs))
        assert theirs.recv(100) == b"hello"
        if method in ("write_eof", "close"):
            host.settle()
            getattr(writer, method)()
            host.run_until(lambda: has_data(theirs))
            assert theirs.recv(100) == b""
        close(host, writer)
        if method != "write_eof":
            writer.write(b"too late")  # dropped silently, as in asyncio
            host.settle()


def has_data(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def connect(
    host: Host, sock: socket.socket
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    task = host.guest.start(asyncio.open_connection(sock=sock))
    host.run_until(task.done)
    return task.result()


def close(host: Host, writer: asyncio.StreamWriter) -> None:
    writer.close()
    complete(host, writer.wait_closed())


def test_dispatch_returns_while_data_keeps_arriving(host: Host) -> None:
    """One dispatch does a bounded number of iterations."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        reader, writer = connect(host, ours)
        sizes: list[int] = []

        async def receive() -> None:
            while data := await reader.read(1 << 16):
                sizes.append(len(data))
                with contextlib.suppress(BlockingIOError):
                    theirs.send(b"x" * len(data))  # there is always more

        theirs.send(b"x" * 4096)
        task = host.guest.start(receive())
        ticks: list[int] = []
        host.guest.loop.call_later(SOON, ticks.append, 1)
        host_turns = 0
        while not ticks or host_turns < 10:
            host.guest.dispatch()  # returns, so the host can go on
            host_turns += 1
        assert sizes  # data was received, and the timer called
        task.cancel()
        host.run_until(task.done)
        close(host, writer)


def test_cancelled_timer_does_not_wake_the_host(host: Host) -> None:
    timer = host.guest.loop.call_later(SOON, pytest.fail)
    host.guest.dispatch()
    timer.cancel()
    host.guest.dispatch()  # sees it
    assert host.guest.deadline() is None
    host.is_readable(2 * SOON)  # the kernel's timer fires once, as it is not moved back
    host.settle()
    assert not host.is_readable(2 * SOON)


def test_data_in_a_burst_is_all_received(host: Host) -> None:
    """A protocol schedules callbacks while the selector is polling."""

    class Count(asyncio.Protocol):
        size = 0

        def data_received(self, data: bytes) -> None:
            self.size += len(data)
            asyncio.get_running_loop().call_soon(lambda: None)

    protocol = Count()
    ours, theirs = socket.socketpair()
    with theirs:
        loop = host.guest.loop
        complete(host, loop.connect_accepted_socket(lambda: protocol, ours))
        for size in range(1, 200):
            theirs.sendall(b"x" * size)
            host.run_until(lambda size=size: protocol.size == size * (size + 1) // 2)  # type: ignore[misc] # bound here
        host.settle()


def test_timer_that_a_protocol_sets_is_called(host: Host) -> None:
    """It is set while the selector polls, after asyncio has passed its timeout."""
    fired: list[bytes] = []

    class Delay(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            asyncio.get_running_loop().call_later(SOON, fired.append, data)

    ours, theirs = socket.socketpair()
    with theirs:
        complete(host, host.guest.loop.connect_accepted_socket(Delay, ours))
        host.settle()
        theirs.send(b"x")
        host.run_until(lambda: fired == [b"x"])
    host.settle()


def test_more_data_than_a_batch_is_all_received(host: Host) -> None:
    """More connections than one call of the core receives for, and more bytes."""
    count, size = 150, 4096
    got: list[int] = []

    class Collect(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            got.append(len(data))

    loop = host.guest.loop
    pairs = [socket.socketpair() for _ in range(count)]
    for ours, _ in pairs:
        complete(host, loop.connect_accepted_socket(Collect, ours))
    host.settle()
    for _, theirs in pairs:
        theirs.send(b"x" * size)
    host.run_until(lambda: sum(got) == count * size)
    for _, theirs in pairs:
        theirs.close()
    host.settle()


def test_dispatch_of_an_idle_guest_does_nothing(host: Host) -> None:
    for _ in range(5):
        host.guest.dispatch()
    assert not host.is_readable()


# ---- errors -----------------------------------------------------------------


def test_exception_of_a_coroutine_is_its_task_s(host: Host) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("of the coroutine")

    with pytest.raises(ValueError, match="of the coroutine"):
        complete(host, fail())
    assert complete(host, converse(1)) == [b"LINE 0\n"]


def test_exception_of_a_callback_goes_to_the_handler(host: Host) -> None:
    seen: list[dict[str, object]] = []
    loop = host.guest.loop
    loop.set_exception_handler(lambda _loop, context: seen.append(context))
    loop.call_soon(lambda: 1 / 0)
    host.settle()
    assert [type(context["exception"]) for context in seen] == [ZeroDivisionError]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupt_is_raised_by_dispatch_and_loses_nothing(
    host: Host, kind: type[BaseException]
) -> None:
    seen: list[str] = []

    def interrupt() -> None:
        raise kind

    host.settle()
    host.guest.loop.call_soon(interrupt)
    host.guest.loop.call_soon(seen.append, "after it")
    with pytest.raises(kind):
        host.run_until(lambda: False)
    host.run_until(lambda: seen == ["after it"])
    assert complete(host, converse(1)) == [b"LINE 0\n"]


def test_interrupt_of_a_protocol_loses_no_data_of_others(host: Host) -> None:
    """The guest alone has the data that was received for the others."""
    got: list[bytes] = []

    class Interrupted(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            got.append(data)
            raise KeyboardInterrupt

    loop = host.guest.loop
    pairs = [socket.socketpair() for _ in range(3)]
    for ours, _ in pairs:
        complete(host, loop.connect_accepted_socket(Interrupted, ours))
    host.settle()
    for number, (_, theirs) in enumerate(pairs):
        theirs.send(b"%d" % number)
    while len(got) < len(pairs):
        with pytest.raises(KeyboardInterrupt):
            host.run_until(lambda: False)
    for _, theirs in pairs:
        theirs.close()
    host.settle()
    assert sorted(got) == [b"0", b"1", b"2"]


def test_interrupt_of_a_timer_loses_no_other_timer(host: Host) -> None:
    seen: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    loop = host.guest.loop
    when = loop.time() + SOON
    loop.call_at(when, interrupt)
    loop.call_at(when, seen.append, "same time")
    loop.call_at(when + SOON, seen.append, "later")
    with pytest.raises(KeyboardInterrupt):
        host.run_until(lambda: False)
    host.run_until(lambda: len(seen) == 2)


def test_stop_ends_only_the_iteration(host: Host) -> None:
    async def stop() -> str:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(SOON)
        return "went on"

    assert complete(host, stop()) == "went on"


@pytest.mark.parametrize("method", ["run_forever", "run_until_complete"])
def test_running_the_loop_of_a_guest_is_refused(host: Host, method: str) -> None:
    loop = host.guest.loop
    arguments = [loop.create_future()] if method == "run_until_complete" else []
    with pytest.raises(RuntimeError, match=rf"{method} .*Guest\.start"):
        getattr(loop, method)(*arguments)


def test_dispatch_in_a_callback_is_refused(host: Host) -> None:
    async def nest() -> None:
        with pytest.raises(RuntimeError, match="dispatch a guest in a callback"):
            host.guest.dispatch()
        with pytest.raises(RuntimeError, match="close a guest in a callback"):
            host.guest.close()

    complete(host, nest())


def test_dispatch_inside_another_loop_is_refused(host: Host) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"dispatch .* another loop runs here"):
            host.guest.dispatch()
        with pytest.raises(RuntimeError, match=r"close .* another loop runs here"):
            host.guest.close()

    asyncio.run(main())
    assert complete(host, converse(1)) == [b"LINE 0\n"]


def test_object_that_is_no_coroutine_is_not_started(guest: Guest) -> None:
    with pytest.raises(TypeError):
        guest.start(lambda: None)  # type: ignore[arg-type] # on purpose


# ---- the end -------------------------------------------------------------------------


def test_close_reports_a_task_that_fails_when_it_is_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            raise ZeroDivisionError from None

    guest = Guest()
    guest.start(stubborn())
    guest.dispatch()
    guest.close()
    assert "unhandled exception during run() shutdown" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_close_ends_tasks_and_generators() -> None:
    ended: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            ended.append("generator")

    kept = numbers()

    async def wait() -> None:
        await kept.__anext__()
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(SOON)  # a cancelled task may go on for a while
            ended.append("task")

    with Guest() as guest:
        task = guest.start(wait())
        Host(guest).settle()
    assert task.cancelled()
    assert ended == ["task", "generator"]
    assert guest.loop.is_closed()


def test_closed_guest_refuses_every_call() -> None:
    guest = Guest()
    guest.close()
    guest.close()
    coroutine = asyncio.sleep(0)
    attempts: list[Callable[[], object]] = [
        guest.dispatch,
        guest.fileno,
        guest.deadline,
        guest.__enter__,
        lambda: guest.start(coroutine),
    ]
    for attempt in attempts:
        with pytest.raises(LoopClosed, match="it is closed"):
            attempt()
    coroutine.close()


def test_guest_whose_loop_is_closed_is_closed(guest: Guest) -> None:
    guest.loop.close()
    with pytest.raises(LoopClosed):
        guest.dispatch()


def test_closing_a_guest_closes_its_connections() -> None:
    """A fixture compares the open descriptors after every test."""
    ended: list[str] = []

    async def talk() -> None:
        server = await asyncio.start_server(shout, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            await reader.read()
        finally:
            writer.close()
            server.close()
            ended.append("client")

    with Guest() as guest:
        guest.start(talk())
        Host(guest).settle()
    assert ended == ["client"]
    gc.collect()


def test_closed_guests_free_their_memory() -> None:
    count = getattr(lib, "fdmux_testing_allocations", None)
    if count is None:
        pytest.skip("needs a build with FDMUX_TESTING=ON")
    gc.collect()
    before = count()
    references = []
    for _ in range(20):
        with Guest() as guest:
            host = Host(guest)
            complete(host, converse(1))
            host.settle()  # the server's side of it ends as well
        references.append(weakref.ref(guest.loop))
    del guest, host
    gc.collect()
    assert count() == before
    assert not any(reference() for reference in references)


def test_two_guests_in_one_thread() -> None:
    with Guest() as one, Guest() as other:
        first, second = Host(one), Host(other)
        task = one.start(converse(3))
        while not task.done():
            assert complete(second, converse(1)) == [b"LINE 0\n"]
            if first.is_readable():
                one.dispatch()
        assert len(task.result()) == 3


def test_failed_constructor_leaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fixture compares the open descriptors after every test."""

    def fail(_selector: object) -> None:
        raise OSError(errno.EMFILE, "no descriptor is left")

    monkeypatch.setattr("fdmux.hosts.asyncio.guest.GuestLoop", fail)
    with pytest.raises(OSError, match="no descriptor is left"):
        Guest()
