"""Objects that cannot host native code are refused, with advice."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

import fdmux
from fdmux import hosts
from fdmux.hosts import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    MakeLoop = Callable[[], asyncio.AbstractEventLoop]

SOON = 10.0


def stock() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop()


def on_our_selector() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(fdmux.Selector())


def of_uvloop() -> asyncio.AbstractEventLoop:
    uvloop = pytest.importorskip("uvloop", reason="needs uvloop")
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


LOOPS = [stock, on_our_selector, of_uvloop]


@contextlib.contextmanager
def running_elsewhere(
    loop: asyncio.AbstractEventLoop,
) -> Iterator[asyncio.AbstractEventLoop]:
    """Run a loop in another thread inside the block."""
    has_begun = threading.Event()
    loop.call_soon(has_begun.set)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        assert has_begun.wait(SOON)
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


# ---- loops that cannot watch descriptors ---------------------------------------------


class ProactorLike(asyncio.SelectorEventLoop):
    def add_reader(self, fd: object, callback: object, *args: object) -> None:
        raise NotImplementedError


def test_loop_without_readers_is_refused_with_advice() -> None:
    loop = ProactorLike()
    with pytest.raises(RuntimeError, match=r"SelectorEventLoop\(fdmux\.Selector\(\)\)"):
        fdmux.mount(loop)
    loop.close()


def test_backend_without_a_descriptor_is_refused_with_advice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "NativeLoop", lambda: fdmux.NativeLoop("poll"))
    with (
        selectors.DefaultSelector() as selector,
        pytest.raises(RuntimeError, match=r"poll backend .* use a loop on fdmux"),
    ):
        fdmux.mount(selector)


@pytest.mark.parametrize("host", [5, "x", object()])
def test_object_that_is_no_host_is_refused_with_the_list_of_hosts(host: object) -> None:
    with pytest.raises(TypeError, match="mount: host must be ") as refused:
        fdmux.mount(host)
    message = str(refused.value)
    assert f"not {host!r}" in message
    assert all(known.what in message for known in registry.HOSTS)


def test_mount_without_a_loop_is_refused_with_advice() -> None:
    assert hosts.running() is None
    with pytest.raises(RuntimeError, match=r"name the host: fdmux\.mount\(host\)"):
        fdmux.mount()


def test_nursery_of_a_trio_that_has_ended_is_refused(trio: ModuleType) -> None:
    async def main() -> object:
        async with trio.open_nursery() as nursery:
            return nursery

    nursery = trio.run(main)
    with pytest.raises(RuntimeError, match="trio does not run in this thread"):
        fdmux.mount(nursery)


def test_task_group_of_a_loop_that_has_ended_is_refused(anyio: ModuleType) -> None:
    async def main() -> object:
        async with anyio.create_task_group() as group:
            return group

    group = anyio.run(main)
    with pytest.raises(RuntimeError, match="anyio does not run in this thread"):
        fdmux.mount(group)


def test_running_loop_of_another_thread_is_not_found() -> None:
    errors: list[BaseException] = []

    def look() -> None:
        try:
            fdmux.current()
        except RuntimeError as error:
            errors.append(error)

    async def main() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    asyncio.run(main())
    assert "no loop that can host" in str(errors[0])


# ---- loops that are closed, or another thread's --------------------------------------


@pytest.mark.parametrize("make", LOOPS)
def test_closed_loop_is_refused(make: MakeLoop) -> None:
    loop = make()
    loop.close()
    with pytest.raises(RuntimeError, match="it is closed; mount on a new loop"):
        fdmux.mount(loop)


def test_closed_loop_of_ours_is_refused() -> None:
    loop = fdmux.SelectorEventLoop()
    loop.close()
    with pytest.raises(fdmux.LoopClosed):
        fdmux.mount(loop)


@pytest.mark.parametrize("make", [selectors.DefaultSelector, fdmux.Selector])
def test_closed_selector_is_refused(
    make: Callable[[], selectors.BaseSelector],
) -> None:
    selector = make()
    selector.close()
    with pytest.raises(RuntimeError, match="it is closed; mount on a new selector"):
        fdmux.mount(selector)


@pytest.mark.parametrize("make", LOOPS)
def test_loop_that_another_thread_runs_is_refused_and_the_advice_works(
    make: MakeLoop,
) -> None:
    mounted: list[fdmux.Mounted] = []
    has_mounted = threading.Event()

    def follow_the_advice() -> None:
        mounted.append(fdmux.mount())
        has_mounted.set()

    with running_elsewhere(make()) as loop:
        with pytest.raises(
            RuntimeError,
            match=r"another thread; .*call_soon_threadsafe\(fdmux\.mount\)",
        ):
            fdmux.mount(loop)
        loop.call_soon_threadsafe(follow_the_advice)
        assert has_mounted.wait(SOON)
        assert mounted[0].is_mounted


@pytest.mark.parametrize("make", LOOPS)
def test_loop_may_be_mounted_before_it_runs(make: MakeLoop) -> None:
    loop = make()
    mounted = fdmux.mount(loop)

    async def main() -> bool:
        return fdmux.mount() is mounted

    assert loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_closed_tornado_loop_is_refused() -> None:
    ioloop = pytest.importorskip("tornado.ioloop", reason="needs tornado")
    loop = ioloop.IOLoop(make_current=False)
    loop.close()
    with pytest.raises(RuntimeError, match="it is closed"):
        fdmux.mount(loop)


def test_hub_of_another_thread_is_refused(gevent: ModuleType) -> None:
    errors: list[BaseException] = []
    hub = gevent.get_hub()

    def look() -> None:
        try:
            fdmux.mount(hub)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert "belongs to another thread; mount there" in str(errors[0])


def test_destroyed_hub_is_refused(gevent: ModuleType) -> None:
    hub = gevent.get_hub()
    hub.destroy(destroy_loop=True)
    with pytest.raises(RuntimeError, match="it was destroyed; mount on a new hub"):
        fdmux.mount(hub)


# ---- interpreters with a GIL of their own --------------------------------------------

OWN_GIL = {
    (3, 12): """
import _xxsubinterpreters as interpreters
isolated = interpreters.create(isolated=True)
try:
    interpreters.run_string(isolated, "import fdmux")
except interpreters.RunFailedError as error:
    message = str(error)
interpreters.destroy(isolated)
""",
    (3, 13): """
import _interpreters as interpreters
isolated = interpreters.create("isolated")
failed = interpreters.exec(isolated, "import fdmux")
message = f"{failed.type.__name__}: {failed.msg}"
""",
}
SHARED_GIL = {
    (3, 12): """
import _xxsubinterpreters as interpreters
shared = interpreters.create(isolated=False)
interpreters.run_string(shared, "import fdmux; fdmux.NativeLoop().close()")
interpreters.destroy(shared)
""",
    (3, 13): """
import _interpreters as interpreters
shared = interpreters.create("legacy")
assert interpreters.exec(shared, "import fdmux; fdmux.NativeLoop().close()") is None
""",
}
has_interpreters = pytest.mark.skipif(
    sys.version_info[:2] not in OWN_GIL, reason="needs Python 3.12 or 3.13"
)


@pytest.mark.slow
@has_interpreters
def test_interpreter_with_a_gil_of_its_own_is_refused() -> None:
    program = OWN_GIL[sys.version_info[:2]] + (
        "assert 'ImportError' in message, message\n"
        "assert 'has a GIL of its own' in message, message\n"
        "assert 'shares the GIL' in message, message\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
@has_interpreters
def test_interpreter_that_shares_the_gil_is_supported() -> None:
    program = SHARED_GIL[sys.version_info[:2]]
    subprocess.run([sys.executable, "-c", program], check=True)


def test_other_import_errors_do_not_mention_the_gil() -> None:
    program = """
import sys
sys.modules["fdmux._ffi"] = None
try:
    import fdmux
except ImportError as error:
    assert "GIL" not in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True)
