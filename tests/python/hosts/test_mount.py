"""Mounting: once for each loop, until the loop ends; and where errors are raised."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import selectors
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import fdmux
from fdmux._native import backend_names
from fdmux.testing import NativeCode
from fdmux.testing.native import READ
from fdmux.testing.session import contains

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import ModuleType

    Pair = tuple[socket.socket, socket.socket]
    Run = Callable[[Callable[[], object]], object]

SOON = 10.0


async def mount() -> fdmux.Mounted:
    mounted = fdmux.mount()
    assert fdmux.mount() is mounted
    assert fdmux.current() is mounted.native
    assert mounted.is_mounted
    return mounted


def fail(_token: int, _events: int) -> int:
    return -errno.EPROTO


# ---- the life of a mount -------------------------------------------------------------


def test_loop_is_mounted_once_until_it_ends(run: Run) -> None:
    first, second = run(mount), run(mount)
    assert first is not second
    for mounted in (first, second):
        assert isinstance(mounted, fdmux.Mounted)
        assert not mounted.is_mounted
        assert "unmounted" in repr(mounted)
        with pytest.raises(fdmux.LoopClosed):
            mounted.native.dispatch()


def test_watchers_end_with_the_host_while_the_native_loop_is_referenced(
    run: Run, pair: Pair
) -> None:
    async def main() -> tuple[fdmux.Mounted, NativeCode]:
        mounted = fdmux.mount()
        code = NativeCode(mounted)
        code.watch(pair[0].fileno(), READ, fail)
        return mounted, code

    held = run(main)
    assert isinstance(held, tuple)
    assert held[1].destroyed == {"watcher": 1}


def test_loop_closed_without_shutdown_ends_the_mount() -> None:
    loop = asyncio.SelectorEventLoop()
    mounted = loop.run_until_complete(mount())
    loop.close()
    assert not mounted.is_mounted
    mounted.unmount()


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_shutdown_of_the_generators_ends_the_mount_before_the_loop(name: str) -> None:
    library = pytest.importorskip(name, reason=f"needs {name}")
    loop = library.new_event_loop()
    mounted = loop.run_until_complete(mount())
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert not mounted.is_mounted
    loop.close()


def test_closed_uvloop_is_unmounted_by_the_next_mount(
    uvloop: ModuleType,
) -> None:
    loop = uvloop.new_event_loop()
    mounted = loop.run_until_complete(mount())
    loop.close()
    asyncio.run(mount())
    assert not mounted.is_mounted


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_loop_that_is_dropped_with_its_mount_is_collected(name: str) -> None:
    library = pytest.importorskip(name, reason=f"needs {name}")
    loop = library.new_event_loop()
    native = loop.run_until_complete(mount()).native
    loop.close()
    del loop
    gc.collect()
    with pytest.raises(fdmux.LoopClosed):
        native.wake()


def test_unmount_is_idempotent_and_a_new_mount_works(run: Run, pair: Pair) -> None:
    async def main() -> list[bool]:
        with fdmux.mount() as mounted:
            code = NativeCode(mounted)
            code.watch(pair[0].fileno(), READ, fail)
        mounted.unmount()
        assert code.destroyed == {"watcher": 1}
        again = fdmux.mount()
        return [mounted.is_mounted, again is mounted, again.is_mounted]

    assert run(main) == [False, False, True]


def test_unmount_within_a_native_function_waits_for_its_end(pair: Pair) -> None:
    async def main() -> NativeCode:
        mounted = fdmux.mount()
        code = NativeCode(mounted)
        done = asyncio.Event()

        def on_ready(_token: int, _events: int) -> None:
            mounted.unmount()
            assert code.destroyed == {"watcher": 0}
            done.set()

        code.watch(pair[0].fileno(), READ, on_ready)
        pair[1].send(b"x")
        await done.wait()
        return code

    code = asyncio.run(main())
    assert code.destroyed == {"watcher": 1}
    assert code.errors == []


def test_loop_that_does_not_run_yet_is_mounted_by_name(pair: Pair) -> None:
    loop = asyncio.SelectorEventLoop()
    mounted = fdmux.mount(loop)
    assert mounted.host is loop
    code = NativeCode(mounted)

    def on_ready(token: int, _events: int) -> None:
        code.unwatch(token)
        loop.stop()

    code.watch(pair[0].fileno(), READ, on_ready)
    pair[1].send(b"x")
    loop.run_forever()
    assert loop.run_until_complete(mount()) is mounted
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert not mounted.is_mounted
    loop.close()


def test_timers_cost_one_callback_each(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    dispatch = fdmux.Mounted.dispatch

    def count(mounted: fdmux.Mounted, *event: object) -> None:
        calls.append(event)
        dispatch(mounted, *event)

    monkeypatch.setattr(fdmux.Mounted, "dispatch", count)

    async def main() -> int:
        code = NativeCode(fdmux.mount())
        done = asyncio.Event()
        fired: list[int] = []

        def on_timer(timer: int) -> None:
            fired.append(timer)
            if len(fired) == 20:
                done.set()
            else:
                code.arm(timer, 0.0005)

        code.arm(code.timer(on_timer), 0.0005)
        await done.wait()
        return len(fired)

    assert asyncio.run(main()) == 20
    assert 20 <= len(calls) <= 22


@pytest.mark.slow
def test_loop_that_is_never_closed_ends_before_python_does() -> None:
    program = """
import atexit, os

@atexit.register  # first, so it runs last
def check():
    print(code.destroyed)
    os._exit(code.destroyed != {"watcher": 1})

import asyncio, fdmux
from fdmux.testing import NativeCode

async def main():
    global code, mounted
    mounted = fdmux.mount()
    code = NativeCode(mounted)
    code.watch(0, 0, lambda token, events: 0)

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, stdin=subprocess.PIPE)


# ---- hosts that have a native loop ---------------------------------------------------


@pytest.mark.parametrize("backend", backend_names())
def test_asyncio_on_our_selector_uses_its_native_loop(backend: str) -> None:
    selector = fdmux.Selector(backend)
    loop = asyncio.SelectorEventLoop(selector)
    mounted = loop.run_until_complete(mount())
    assert mounted.native is selector.native
    mounted.unmount()
    mounted.native.wake()  # only the loop closes it
    loop.close()


def test_our_loop_is_its_own_host() -> None:
    with fdmux.SelectorEventLoop() as loop, fdmux.mount(loop) as mounted:
        assert mounted.native is loop.native
        assert fdmux.mount(loop) is mounted


def test_selector_of_ours_is_its_own_host() -> None:
    with fdmux.Selector("poll") as selector:
        assert fdmux.mount(selector).native is selector.native


def test_selector_that_is_closed_ends_the_mount() -> None:
    with selectors.DefaultSelector() as selector:
        mounted = fdmux.mount(selector)
        assert len(selector.get_map()) == 1
        (key,) = selector.get_map().values()
        key.data()
    del key
    assert not mounted.is_mounted


def test_unmounted_selector_forgets_the_descriptor() -> None:
    with selectors.DefaultSelector() as selector:
        fdmux.mount(selector).unmount()
        assert len(selector.get_map()) == 0


def test_tornado_shares_the_mount_of_its_asyncio_loop() -> None:
    ioloop = pytest.importorskip("tornado.ioloop", reason="needs tornado")
    loop = ioloop.IOLoop(make_current=False)
    mounted = fdmux.mount(loop)
    assert fdmux.mount(loop.asyncio_loop) is mounted
    loop.close()
    assert not mounted.is_mounted


# ---- errors of native functions ------------------------------------------------------


def watch_failing(mounted: fdmux.Mounted, pair: Pair) -> NativeCode:
    """Watch with a native function that fails once."""
    code = NativeCode(mounted)

    def fail_once(token: int, _events: int) -> int:
        code.unwatch(token)
        return -errno.EPROTO

    code.watch(pair[0].fileno(), READ, fail_once)
    pair[1].send(b"x")
    return code


def test_asyncio_gets_errors_in_its_exception_handler(pair: Pair) -> None:
    async def main() -> dict[str, object]:
        loop = asyncio.get_running_loop()
        handled: asyncio.Future[dict[str, object]] = loop.create_future()
        loop.set_exception_handler(lambda _loop, context: handled.set_result(context))
        watch_failing(fdmux.mount(), pair)
        return await handled

    context = asyncio.run(main())
    assert isinstance(context["exception"], OSError)
    assert context["exception"].errno == errno.EPROTO
    assert "fdmux.Mounted" in str(context["message"])


def test_errors_under_trio_are_logged(
    trio: ModuleType, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        code = watch_failing(fdmux.mount(), pair)
        done = trio.Event()
        code.arm(code.timer(lambda _timer: done.set()), 0.001)
        await done.wait()

    trio.run(main)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("fdmux.hosts", logging.ERROR)
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], OSError)


def test_nursery_raises_errors_as_those_of_any_task(
    trio: ModuleType, pair: Pair
) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            watch_failing(fdmux.mount(nursery), pair)

    with pytest.raises(BaseException, match=r"Trio nursery|TaskGroup") as caught:
        trio.run(main)
    assert contains(caught.value, OSError)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_task_group_raises_errors_as_those_of_any_task(
    anyio: ModuleType, backend: str, pair: Pair
) -> None:
    pytest.importorskip(backend, reason=f"needs {backend}")
    mounts: list[fdmux.Mounted] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            mounts.append(fdmux.mount(group))
            watch_failing(mounts[0], pair)

    with pytest.raises(BaseException, match=r"Trio nursery|TaskGroup") as caught:
        anyio.run(main, backend=backend)
    assert contains(caught.value, OSError)
    assert not mounts[0].is_mounted


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_task_group_ends_when_unmounted(anyio: ModuleType, backend: str) -> None:
    pytest.importorskip(backend, reason=f"needs {backend}")

    async def main() -> str:
        async with anyio.create_task_group() as group:
            mounted = fdmux.mount(group)
            assert fdmux.mount() is mounted
            await anyio.lowlevel.checkpoint()
            mounted.unmount()
        return "left"

    assert anyio.run(main, backend=backend) == "left"


def test_gevent_gets_errors_in_its_hub(gevent: ModuleType, pair: Pair) -> None:
    handled: list[tuple[object, object]] = []
    hub = gevent.get_hub()
    hub.handle_error = lambda source, _kind, error, _tb: handled.append((source, error))
    mounted = fdmux.mount(hub)
    code = watch_failing(mounted, pair)
    done = gevent.event.Event()
    code.arm(code.timer(lambda _timer: done.set()), 0.001)
    assert done.wait(SOON)
    del hub.handle_error
    ((source, error),) = handled
    assert source is mounted
    assert isinstance(error, OSError)


def test_selector_raises_errors_out_of_the_call(pair: Pair) -> None:
    with selectors.DefaultSelector() as selector:
        watch_failing(fdmux.mount(selector), pair)
        ((key, _events),) = selector.select(SOON)
        with pytest.raises(OSError, match="EPROTO"):
            key.data()
        key.data()


def test_error_hook_gets_errors_before_the_host(pair: Pair) -> None:
    async def main() -> tuple[Exception, object]:
        mounted = fdmux.mount()
        loop = asyncio.get_running_loop()
        hooked: asyncio.Future[tuple[Exception, object]] = loop.create_future()
        mounted.error_hook = lambda *error: hooked.set_result(error)
        watch_failing(mounted, pair)
        error, source = await hooked
        assert source is mounted
        return error, source

    assert isinstance(asyncio.run(main())[0], OSError)


def test_closing_the_native_loop_ends_the_mount(run: Run) -> None:
    async def main() -> fdmux.Mounted:
        mounted = fdmux.mount()
        mounted.native.close()
        mounted.dispatch()
        return mounted

    mounted = run(main)
    assert isinstance(mounted, fdmux.Mounted)
    assert not mounted.is_mounted


# ---- gevent --------------------------------------------------------------------------


def test_greenlet_finds_its_hub(gevent: ModuleType) -> None:
    native = gevent.spawn(fdmux.current).get(timeout=SOON)
    assert fdmux.mount(gevent.get_hub()).native is native


def test_destroyed_hub_is_unmounted_by_the_next_mount(
    gevent: ModuleType,
) -> None:
    hub = gevent.get_hub()
    mounted = fdmux.mount(hub)
    hub.destroy(destroy_loop=True)
    assert mounted.is_mounted  # gevent does not report it
    asyncio.run(mount())
    assert not mounted.is_mounted


def test_main_greenlet_that_patched_nothing_must_name_the_hub(
    gevent: ModuleType,
) -> None:
    assert gevent.get_hub() is not None
    with pytest.raises(RuntimeError, match=r"fdmux\.mount\(gevent\.get_hub\(\)\)"):
        fdmux.current()


@pytest.mark.slow
@pytest.mark.usefixtures("gevent")
def test_forked_child_mounts_on_its_hub_again() -> None:
    program = """
import os, socket, fdmux, gevent, gevent.os
from fdmux.testing import NativeCode

def serves(mounted):
    before = mounted.native.stats().io_called_count
    gevent.sleep(0.01)
    return mounted.native.stats().io_called_count > before

left, right = socket.socketpair()
right.send(b"x")
parents = fdmux.mount(gevent.get_hub())
reported = []
parents.error_hook = lambda error, source: reported.append(type(error))
NativeCode(parents).watch_busily(left.fileno())
assert serves(parents)
child = gevent.os.fork()
if not child:
    own = fdmux.mount(gevent.get_hub())
    NativeCode(own).watch_busily(left.fileno())
    assert serves(own) and own is not parents
    print(reported)
    os._exit(reported != [fdmux.ForkedLoop])
assert os.waitpid(child, 0)[1] == 0
assert serves(parents)
parents.unmount()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# ---- finding the host ----------------------------------------------------------------


def test_looking_for_the_host_imports_no_library() -> None:
    program = """
import asyncio, sys, fdmux

async def main():
    fdmux.current()

asyncio.run(main())
hosts = {"trio", "anyio", "gevent", "tornado", "uvloop", "PySide6", "gi"}
assert not hosts & {*sys.modules}, hosts & {*sys.modules}
"""
    subprocess.run([sys.executable, "-c", program], check=True)
