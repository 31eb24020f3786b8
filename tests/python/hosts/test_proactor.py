"""mount on a loop that waits for handles, as Windows' Proactor loop does.

Here a loop on epoll waits for the handle, so that this runs everywhere: the handle is a
descriptor that is readable while the event would be set. On Windows `fdmux demo` mounts
on a real one.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING

import pytest

import fdmux
from fdmux.commands.tour.c_source import CSource
from fdmux.commands.tour.native import asyncio_exchange
from fdmux.hosts.mounted import Mounted

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Proactor:
    """Waits for handles by the readers of a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self.waits = 0

    def wait_for_handle(self, handle: int) -> asyncio.Future[bool]:
        loop = self._loop()
        assert loop is not None
        wait = loop.create_future()
        self.waits += 1

        def tell() -> None:
            if not wait.done():
                wait.set_result(True)

        loop.add_reader(handle, tell)
        wait.add_done_callback(lambda _: loop.remove_reader(handle))
        return wait


class ProactorLike(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._proactor = Proactor(self)


@pytest.fixture(autouse=True)
def handle_is_the_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mounted, "handle", Mounted.fileno)


def run(main: Coroutine[object, object, None]) -> Proactor:
    with asyncio.Runner(loop_factory=ProactorLike) as runner:
        loop = runner.get_loop()
        runner.run(main)
        assert isinstance(loop, ProactorLike)
        return loop._proactor


def test_native_code_runs_beside_streams() -> None:
    with CSource() as source:

        async def main() -> None:
            with fdmux.mount() as mounted:
                assert fdmux.current() is mounted.native
                assert await asyncio_exchange(source) == b"hello\n"

        proactor = run(main())
        assert source.check_ended()
        assert proactor.waits > 1


def test_nothing_is_waited_for_after_the_end_of_the_mount() -> None:
    async def main() -> None:
        mounted = fdmux.mount()
        fd = mounted.fileno()
        mounted.unmount()
        await asyncio.sleep(0)
        assert not asyncio.get_running_loop().remove_reader(fd)

    assert run(main()).waits == 1


def test_end_of_the_loop_unmounts() -> None:
    mounts: list[Mounted] = []

    async def main() -> None:
        mounts.append(fdmux.mount())

    run(main())
    gc.collect()
    assert not mounts[0].is_mounted


def test_loop_without_a_proactor_has_no_handle() -> None:
    with fdmux.NativeLoop() as loop, pytest.raises(OSError, match="get a handle"):
        loop.handle()
