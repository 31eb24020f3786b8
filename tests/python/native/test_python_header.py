"""fdmux_python.h: an extension finds the loop, hears of its end, and raises errors."""

from __future__ import annotations

import asyncio
import errno
import gc
import importlib.machinery
import importlib.util
import selectors
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import pytest
from tests.compiled import compile_extension

import fdmux
from fdmux.aio import Completion
from fdmux.hosts import asyncio as fdmux_asyncio

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    Run = Callable[[Callable[[], object]], object]

pytestmark = pytest.mark.slow  # an extension is compiled


class Extension(Protocol):
    """The module compiled from extension.c."""

    def find(self, owner: object, /) -> int: ...
    def current(self) -> int: ...
    def at_close(self, owner: object, fn: Callable[[int], object], /) -> None: ...
    def keep(self, owner: object, /) -> int: ...
    def let_go(self, address: int, /) -> int: ...
    def raise_error(self, result: int, what: str, /) -> None: ...
    def raise_over(self, result: int, /) -> None: ...
    def fail(self, owner: object, mistake: str, /) -> None: ...
    def deliver_soon(
        self, owner: object, completion: object, value: object = ..., /
    ) -> None: ...
    def delivered(self) -> int: ...


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Extension:
    folder = tmp_path_factory.mktemp("extension")
    built = compile_extension(Path(__file__).with_name("extension.c"), folder)
    loader = importlib.machinery.ExtensionFileLoader("extension", str(built))
    spec = importlib.util.spec_from_loader("extension", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return cast("Extension", module)


# ---- finding the loop ----------------------------------------------------------------


@pytest.mark.parametrize("owner", [fdmux.Selector, fdmux.SelectorEventLoop])
def test_object_with_a_loop_gives_its_own(
    owner: Callable[[], fdmux.Selector], extension: Extension
) -> None:
    with owner() as object_with_loop:
        assert extension.find(object_with_loop) == object_with_loop.native.address


def test_running_loop_is_mounted_and_found(run: Run, extension: Extension) -> None:
    async def main() -> None:
        address = extension.current()
        assert fdmux.current().address == address
        assert extension.current() == extension.find(None) == address
        assert extension.find(fdmux.mount()) == address

    run(main)


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_stock_loop_is_mounted(name: str, extension: Extension) -> None:
    library = pytest.importorskip(name, reason=f"needs {name}")
    loop = library.new_event_loop()
    address = extension.find(loop)  # it does not run yet

    async def main() -> None:
        assert extension.find(asyncio.get_running_loop()) == address
        assert extension.current() == address

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    with pytest.raises(RuntimeError, match="it is closed"):
        extension.find(loop)


def test_tornado_loop_is_mounted(extension: Extension) -> None:
    tornado = pytest.importorskip("tornado.ioloop", reason="needs tornado")

    async def main() -> None:
        assert extension.find(tornado.IOLoop.current()) == extension.current()

    asyncio.run(main())


def test_token_and_nursery_of_trio_are_mounted(
    trio: ModuleType, extension: Extension
) -> None:
    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        address = extension.find(token)
        assert extension.current() == address
        async with trio.open_nursery() as nursery:
            assert extension.find(nursery) == address  # one mount for each run
        tokens.append(token)

    tokens: list[object] = []
    trio.run(main)
    with pytest.raises(RuntimeError, match="does not run in this thread"):
        extension.find(tokens[0])

    async def other() -> None:
        with pytest.raises(RuntimeError, match="another run of trio"):
            extension.find(tokens[0])

    trio.run(other)


def test_hub_of_gevent_is_mounted(gevent: ModuleType, extension: Extension) -> None:
    address = extension.find(gevent.get_hub())
    assert fdmux.mount(gevent.get_hub()).native.address == address
    assert gevent.spawn(extension.current).get(timeout=10) == address


def test_selector_is_mounted(extension: Extension) -> None:
    with selectors.DefaultSelector() as selector:
        assert extension.find(selector) == extension.find(selector)
        assert fdmux.mount(selector).native.address == extension.find(selector)


def test_other_objects_and_threads_without_a_loop_are_refused(
    extension: Extension,
) -> None:
    with pytest.raises(TypeError, match="host must be"):
        extension.find("a string")
    with pytest.raises(RuntimeError, match="no loop"):
        extension.current()
    with pytest.raises(RuntimeError, match="no loop"):
        extension.find(None)


# ---- the end of a loop ---------------------------------------------------------------


def test_end_of_a_host_is_announced_to_python_while_the_loop_works(
    run: Run, extension: Extension
) -> None:
    woken: list[int] = []

    async def main() -> None:
        extension.at_close(None, woken.append)
        assert woken == []

    run(main)
    gc.collect()
    assert woken == [0]


@pytest.mark.parametrize("backend", ["epoll", "poll"])
def test_loop_closed_by_another_thread_calls_python_there(
    backend: str, extension: Extension
) -> None:
    loop = fdmux.NativeLoop(backend)
    threads: list[threading.Thread] = []
    extension.at_close(loop, lambda _result: threads.append(threading.current_thread()))
    thread = threading.Thread(target=loop.close)
    thread.start()
    thread.join()
    assert threads == [thread]
    with pytest.raises(fdmux.LoopClosed, match="hear of the end"):
        extension.at_close(loop, print)


def test_loop_that_is_garbage_calls_python(extension: Extension) -> None:
    woken: list[int] = []
    extension.at_close(fdmux.NativeLoop(), woken.append)
    gc.collect()
    assert woken == [0]


def test_reference_of_an_extension_keeps_the_memory(extension: Extension) -> None:
    loop = fdmux.NativeLoop()
    address = extension.keep(loop)
    loop.close()
    del loop
    gc.collect()
    assert extension.let_go(address) == -errno.ESTALE


def test_last_reference_is_the_extensions(extension: Extension) -> None:
    woken: list[int] = []
    loop = fdmux.NativeLoop()
    extension.at_close(loop, woken.append)
    address = extension.keep(loop)
    del loop  # closes it: an object of Python owns its loop
    gc.collect()
    assert woken == [0]
    assert extension.let_go(address) == -errno.ESTALE


# ---- errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("ESTALE", fdmux.LoopClosed, "the loop is closed"),
        ("ECHILD", fdmux.ForkedLoop, "made before fork"),
        ("EIDRM", fdmux.NotRegistered, "it has ended, or belongs to another loop"),
        ("EBUSY", RuntimeError, "dispatched already"),
        ("ENOMEM", MemoryError, "out of memory"),
        ("ENOENT", FileNotFoundError, "No such file"),
        ("EPERM", PermissionError, "not permitted"),
        ("EBADF", OSError, "Bad file descriptor"),
        ("EFAULT", OSError, "a pointer that must not be NULL is"),
        ("E2BIG", OSError, "struct_size is not the size"),
        ("EINVAL", OSError, "Invalid argument"),
    ],
)
def test_error_is_raised_as_what_it_is(
    name: str, kind: type[Exception], text: str, extension: Extension
) -> None:
    code = getattr(errno, name)
    with pytest.raises(kind, match=f"watch the server: .*{text}") as caught:
        extension.raise_error(-code, "watch the server")
    assert type(caught.value) is kind
    if isinstance(caught.value, OSError):
        assert caught.value.errno == code


@pytest.mark.parametrize("result", [0, 1])
def test_success_is_no_error_to_raise(result: int, extension: Extension) -> None:
    with pytest.raises(SystemError, match=f"got {result}, which is no error"):
        extension.raise_error(result, "watch the server")


def test_exception_that_is_set_already_stays(extension: Extension) -> None:
    with pytest.raises(KeyError, match="the first"):
        extension.raise_over(-errno.EBADF)


@pytest.mark.parametrize(
    ("mistake", "kind", "code"),
    [
        ("loop is NULL", OSError, errno.EFAULT),
        ("options are NULL", OSError, errno.EFAULT),
        ("size is wrong", OSError, errno.E2BIG),
        ("function is forgotten", OSError, errno.EINVAL),
        ("events are unknown", OSError, errno.EINVAL),
        ("token is dead", fdmux.NotRegistered, None),
    ],
)
def test_mistakes_of_an_extension_can_be_told_apart(
    mistake: str, kind: type[Exception], code: int | None, extension: Extension
) -> None:
    with fdmux.NativeLoop() as loop, pytest.raises(kind, match=mistake) as caught:
        extension.fail(loop, mistake)
    assert type(caught.value) is kind
    assert getattr(caught.value, "errno", None) == code


# ---- results -------------------------------------------------------------------------


def test_functions_of_the_loop_complete_what_tasks_await(
    run: Run, extension: Extension
) -> None:
    async def main() -> None:
        before = extension.delivered()
        values: list[object] = [None, "text", (1, 2), {}]
        completions = [Completion() for _ in values]
        for completion, value in zip(completions, values, strict=True):
            extension.deliver_soon(None, completion, value)
        for completion, value in zip(completions, values, strict=True):
            assert await completion is value
        failed = Completion()
        extension.deliver_soon(None, failed)
        with pytest.raises(LookupError, match="no such row"):
            await failed
        assert extension.delivered() == before + len(values) + 1

    run(main)


def test_asyncio_on_our_selector_goes_on_after_a_completion(
    extension: Extension,
) -> None:
    """There a function of the loop runs inside of select, which must return."""

    async def main() -> None:
        for number in range(3):
            completion = Completion()
            extension.deliver_soon(None, completion, number)
            assert await completion == number

    loops = [
        asyncio.SelectorEventLoop(fdmux.Selector()),
        fdmux_asyncio.EventLoop(),
    ]
    for loop in loops:
        loop.run_until_complete(asyncio.wait_for(main(), 10))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def test_greenlet_gets_the_object(gevent: ModuleType, extension: Extension) -> None:
    def main() -> object:
        completion = Completion()
        extension.deliver_soon(None, completion, "a row")
        return completion.wait(10)

    assert gevent.spawn(main).get(timeout=10) == "a row"


def test_what_cannot_be_completed_is_reported(
    extension: Extension, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []
    monkeypatch.setattr(
        "sys.unraisablehook", lambda problem: reported.append(problem.exc_type)
    )
    before = extension.delivered()
    with fdmux.SelectorEventLoop() as loop:
        extension.deliver_soon(loop, "no completion", 1)
        loop.run_once(0)
    assert reported == [AttributeError]
    assert extension.delivered() == before
