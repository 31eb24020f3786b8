"""A program: brings itself into a hostile state, and lets the interpreter end.

    python exit_states.py in_a_reference_cycle [native_exit.so]

Each state is a function here, with the exit code that is expected of it. Its one rule:
no state cleans up. Without a name it prints the states. Needs fdmux, and nothing of the
tests.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import signal
import socket
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

# Functions that run at exit after all of fdmux's own: registered before its import.
LAST: list[Callable[[], object]] = []
atexit.register(lambda: [function() for function in LAST])

import fdmux  # noqa: E402 - after atexit.register
from fdmux import (  # noqa: E402 - the same
    EVENT_READ,
    EchoServer,
    Selector,
    SelectorEventLoop,
    Stream,
    StreamHandler,
    add_stream,
)
from fdmux.hosts import asyncio as fdmux_asyncio  # noqa: E402 - the same
from fdmux.hosts import mount  # noqa: E402 - the same

STATES: dict[str, tuple[Callable[[], object], int]] = {}
# Objects that live until the interpreter ends, as globals of a program do.
KEPT: dict[str, object] = {}
LONG = 60.0


def ends_with(code: int) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Enter a state."""

    def enter(state: Callable[[], object]) -> Callable[[], object]:
        STATES[state.__name__] = (state, code)
        return state

    return enter


def keep_pair() -> tuple[socket.socket, socket.socket]:
    """Sockets that stay open."""
    pair = socket.socketpair()
    KEPT.setdefault("sockets", []).extend(pair)  # type: ignore[attr-defined] # a list
    return pair


def busy_loop() -> SelectorEventLoop:
    """A running loop with descriptors, timers, streams and posted calls."""
    loop = SelectorEventLoop()
    for _ in range(10):
        here, there = keep_pair()
        loop.register_read(here, lambda _sock: None)
        there.send(b"x")
    loop.call_later(0.001, lambda: None)
    loop.call_later(LONG, lambda: None)
    loop.run_once(1)
    loop.call_soon_threadsafe(lambda: None)
    return loop


class Does(StreamHandler):
    """A handler that does something with what it gets."""

    def __init__(self, action: Callable[[bytes], bytes | None]) -> None:
        self._action = action

    def on_data(self, _stream: Stream, data: bytes) -> bytes | None:
        return self._action(data)


def loop_with_streams(action: Callable[[bytes], bytes | None]) -> SelectorEventLoop:
    """A loop with both ends of a connection; one has something to read."""
    loop = SelectorEventLoop()
    handler = Does(action)
    streams = [add_stream(loop, sock, handler) for sock in socket.socketpair()]
    streams[0].write(b"x")
    KEPT.setdefault("streams", []).extend(streams)  # type: ignore[attr-defined] # a list
    return loop


def start_daemon(target: Callable[[], object]) -> None:
    threading.Thread(target=target, daemon=True).start()


class Native:
    """The C code of native_exit.c on one loop, whose memory is kept for ever."""

    def __init__(self, selector: Selector) -> None:
        self._library = ctypes.CDLL(sys.argv[2])
        capsule = selector.__fdmux_loop__()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(capsule))
        open_capsule = ctypes.pythonapi.PyCapsule_GetPointer
        open_capsule.restype = ctypes.c_void_p
        open_capsule.argtypes = [ctypes.py_object, ctypes.c_char_p]
        address = open_capsule(capsule, b"fdmux.loop")
        self._ends = (ctypes.c_void_p * 2).from_address(address)

    def call(self, name: str) -> int:
        function = self._library[name]
        function.restype = ctypes.c_int64
        return int(function(*map(ctypes.c_void_p, self._ends)))


# ---- the states ----------------------------------------------------------------------


@ends_with(0)
def with_a_live_selector() -> None:
    selector = Selector()
    selector.register(keep_pair()[0], EVENT_READ)
    KEPT["selector"] = selector


@ends_with(7)
def in_select_as_a_signal_ends_it() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    KEPT["selector"] = selector = Selector()

    def send() -> None:
        time.sleep(0.02)  # for the wait to begin; before it would do as well
        os.kill(os.getpid(), signal.SIGTERM)

    start_daemon(send)
    selector.select()


@ends_with(-signal.SIGTERM)
def in_select_as_a_signal_kills_it() -> None:
    KEPT["loop"] = loop = busy_loop()
    loop.call_later(0.01, os.kill, os.getpid(), signal.SIGTERM)
    loop.run(None)


@ends_with(0)
def with_a_daemon_thread_in_select() -> None:
    selector = Selector()
    start_daemon(selector.select)
    KEPT["selector"] = selector


@ends_with(0)
def with_a_daemon_thread_that_runs_a_busy_loop() -> None:
    loop = busy_loop()
    start_daemon(lambda: loop.run(None))


@ends_with(0)
def with_a_thread_in_select_that_is_woken_at_exit() -> None:
    selector = Selector()

    def wake_at_exit() -> None:
        threading.main_thread().join()
        selector.native.wake()

    threading.Thread(target=selector.select).start()
    threading.Thread(target=wake_at_exit).start()


@ends_with(0)
def with_native_threads_that_post() -> None:
    KEPT["selector"] = selector = Selector()
    native = Native(selector)
    assert native.call("exit_post") == 0
    assert native.call("exit_post") == 0
    for _ in range(10):
        selector.select(0.001)


@ends_with(0)
def with_native_threads_that_post_to_a_loop_that_runs() -> None:
    selector = Selector()
    assert Native(selector).call("exit_post") == 0

    def serve() -> None:
        while True:
            selector.select(1)

    start_daemon(serve)


@ends_with(0)
def with_native_threads_at_the_locks_as_it_is_closed() -> None:
    selector = Selector()
    native = Native(selector)
    assert native.call("exit_contend") == 0
    assert native.call("exit_contend") == 0
    atexit.register(selector.close)


@ends_with(0)
def with_a_thread_in_a_native_call_as_it_is_closed() -> None:
    selector = Selector()
    native = Native(selector)
    assert native.call("exit_stay") == 0
    start_daemon(selector.select)
    while not native.call("exit_is_inside"):
        time.sleep(0.001)
    atexit.register(selector.close)


@ends_with(0)
def with_a_busy_loop_in_a_global() -> None:
    KEPT["loop"] = busy_loop()


@ends_with(0)
def in_a_reference_cycle() -> None:
    gc.disable()
    loop = busy_loop()
    here, _ = keep_pair()
    loop.register_read(here, lambda _: loop.stop())


class Unregisters:
    """Its finalizer takes it out of a selector."""

    def __init__(self, selector: Selector) -> None:
        self._selector = selector
        self._sock, _ = keep_pair()
        selector.register(self._sock, EVENT_READ)

    def __del__(self) -> None:
        self._selector.unregister(self._sock)


@ends_with(0)
def with_a_finalizer_that_unregisters() -> None:
    KEPT["owner"] = Unregisters(Selector())
    cycle: list[object] = [Unregisters(Selector())]
    cycle.append(cycle)


class ClosesTwice:
    """Its finalizer closes everything twice."""

    def __init__(self) -> None:
        self._loop = busy_loop()
        self._selector = Selector()

    def __del__(self) -> None:
        for _ in range(2):
            self._loop.close()
            self._selector.close()


@ends_with(0)
def with_a_finalizer_that_closes_twice() -> None:
    KEPT["owner"] = ClosesTwice()
    KEPT["other"] = owner = ClosesTwice()
    owner.owner = owner  # type: ignore[attr-defined] # for the cycle


@ends_with(0)
def with_a_weak_reference_that_closes() -> None:
    class Owner:
        pass

    loop = busy_loop()
    KEPT["owner"] = owner = Owner()
    KEPT["reference"] = weakref.ref(owner, lambda _: loop.close())
    KEPT["finalizer"] = weakref.finalize(owner, loop.close)


def use(loop: SelectorEventLoop) -> None:
    loop.call_soon_threadsafe(lambda: None)
    assert loop.run_once(1) > 0


@ends_with(0)
def with_use_at_exit_registered_before_the_import() -> None:
    loop = busy_loop()
    LAST.append(lambda: use(loop))
    LAST.append(loop.close)


@ends_with(0)
def with_use_at_exit_registered_after_the_import() -> None:
    loop = busy_loop()
    atexit.register(use, loop)


@ends_with(3)
def after_an_exception_of_a_callback() -> None:
    KEPT["loop"] = loop = busy_loop()
    loop.call_later(0, lambda: 1 // 0)
    try:
        loop.run(None)
    except ZeroDivisionError as error:
        KEPT["error"] = error  # and with it each frame
        sys.exit(3)


@ends_with(5)
def at_once_from_a_callback() -> None:
    loop = busy_loop()
    loop.call_later(0, os._exit, 5)
    loop.run(None)


@ends_with(6)
def by_sys_exit_in_a_callback() -> None:
    KEPT["loop"] = loop = busy_loop()
    loop.call_later(0, sys.exit, 6)
    loop.run(None)


@ends_with(0)
def in_a_storm_of_keyboard_interrupts() -> None:
    KEPT["loop"] = loop = busy_loop()
    is_armed = False
    count = 0

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal is_armed
        if is_armed:
            is_armed = False  # the next only when this one has arrived
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    while count < 50:
        try:
            is_armed = True
            loop.run_once(0.001)
            is_armed = False
        except KeyboardInterrupt:
            count += 1
    # From here to the end the signals are ignored, since Python restores the kernel's
    # handlers when it exits. The timer stops first, so that the last signal is handled:
    # Python complains about one that has no handler any more.
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)


@ends_with(0)
def with_a_server_and_a_hundred_connections() -> None:
    server = EchoServer(port=0)
    server.run_in_thread()
    clients = [socket.create_connection(server.address) for _ in range(100)]
    for client in clients:
        client.sendall(b"x")
    assert all(client.recv(1) == b"x" for client in clients)
    KEPT["clients"] = clients
    KEPT["server"] = server


@ends_with(0)
def with_a_child_that_uses_nothing() -> None:
    """Fork inside a callback; the child ends as any program does."""
    KEPT["loop"] = busy_loop()
    KEPT["server"] = server = EchoServer(port=0)
    server.start()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        sys.exit(os.waitstatus_to_exitcode(status))


@ends_with(0)
def with_a_thread_in_callbacks_of_streams_all_the_time() -> None:
    """The thread may be in a callback, waiting for the GIL, or in the kernel."""
    loop = loop_with_streams(lambda data: data)  # each sends it back to the other
    start_daemon(lambda: loop.run(None))
    time.sleep(0.02)


@ends_with(6)
def by_sys_exit_in_a_callback_of_a_stream() -> None:
    KEPT["loop"] = loop = loop_with_streams(lambda _: sys.exit(6))
    loop.run(None)


@ends_with(5)
def at_once_from_a_callback_of_a_stream() -> None:
    loop_with_streams(lambda _: os._exit(5)).run(None)


@ends_with(9)
def with_a_child_that_a_callback_of_a_stream_has_forked() -> None:
    """The child exits inside the callback; the parent exits with the child's code."""

    def fork(_data: bytes) -> None:
        child = os.fork()
        if not child:
            sys.exit(9)
        _, status = os.waitpid(child, 0)
        sys.exit(os.waitstatus_to_exitcode(status))

    KEPT["loop"] = loop = loop_with_streams(fork)
    loop.run(None)


@ends_with(0)
def with_streams_that_nobody_closed_in_a_cycle() -> None:
    gc.disable()
    loop = loop_with_streams(lambda _: loop.stop())
    loop.run(None)
    KEPT.clear()


@ends_with(0)
def after_the_module_was_deleted() -> None:
    loop = busy_loop()
    KEPT["loop"] = loop
    for name in [name for name in sys.modules if name.split(".")[0] == "fdmux"]:
        del sys.modules[name]
    globals().update(fdmux=None, Selector=None, SelectorEventLoop=None)
    gc.collect()
    loop.run_once(0)


@ends_with(0)
def mounted_on_a_loop_of_asyncio() -> None:
    import asyncio  # noqa: PLC0415 - for this state alone

    async def main() -> None:
        KEPT["mounted"] = mount()
        await asyncio.sleep(0)

    KEPT["loop"] = loop = asyncio.new_event_loop()
    loop.run_until_complete(main())


async def transports_at_work() -> None:
    """A server of asyncio and a client, which stay open."""
    import asyncio  # noqa: PLC0415 - for these states alone

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.Transport", transport)

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"x")
    assert await reader.read(1) == b"x"
    KEPT["asyncio"] = server, reader, writer


@ends_with(0)
def with_transports_of_asyncio() -> None:
    KEPT["loop"] = loop = fdmux_asyncio.EventLoop()
    loop.run_until_complete(transports_at_work())


@ends_with(0)
def with_a_child_that_has_inherited_transports_of_asyncio() -> None:
    """The child drops them, as the parent does later."""
    with_transports_of_asyncio()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        sys.exit(os.waitstatus_to_exitcode(status))
    sys.unraisablehook = lambda _: None  # asyncio: the loop is the parent's
    KEPT.clear()
    gc.collect()


@ends_with(6)
def by_sys_exit_in_a_protocol_of_asyncio() -> None:
    import asyncio  # noqa: PLC0415 - for this state alone

    class Exits(asyncio.Protocol):
        def data_received(self, _data: bytes) -> None:
            sys.exit(6)

    async def main() -> None:
        here, there = keep_pair()
        await loop.create_connection(Exits, sock=here)
        there.send(b"x")
        await loop.create_future()

    KEPT["loop"] = loop = fdmux_asyncio.EventLoop()
    loop.run_until_complete(main())


@ends_with(0)
def with_a_pool_and_a_queue_in_use() -> None:
    server = EchoServer(port=0)
    server.run_in_thread()
    KEPT["pool"] = pool = fdmux.ClientPool(*server.address, size=3)
    assert pool.exchange([b"x"] * 10, reply=1) == [b"x"] * 10
    KEPT["queue"] = fdmux.NativeQueue()


def main() -> None:
    if len(sys.argv) == 1:
        print(json.dumps({name: code for name, (_, code) in STATES.items()}))  # noqa: T201 - the answer
        return
    STATES[sys.argv[1]][0]()


main()
