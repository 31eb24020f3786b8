"""anyio as a host: a task group whose end unmounts, on either backend.

Without a group `fdmux.mount` finds the loop that anyio runs on.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fdmux.hosts import asyncio_mount
from fdmux.hosts.watched import Attachment

if TYPE_CHECKING:
    from fdmux._native import NativeLoop
    from fdmux.hosts.watched import Watched


def running() -> object | None:
    """Leave that to the backends."""
    return None


def accepts(host: object) -> bool:
    """Whether it is a task group."""
    return isinstance(host, sys.modules["anyio"].abc.TaskGroup)


def loop_of(host: object) -> object:
    """Return the loop that runs the group.

    Raises:
        RuntimeError: None runs in this thread.
    """
    loop = asyncio_mount.running() or trio_token()
    if loop is None:
        raise RuntimeError(f"mount on {host!r}: anyio does not run in this thread")
    return loop


def native_of(_host: object) -> NativeLoop | None:
    """Return that of asyncio's loop, if it runs on a selector of ours."""
    return asyncio_mount.native_of(asyncio_mount.running())


def attach(host: object, served: Watched) -> Attachment:
    """Serve it as the backend does, for as long as the group lives."""
    loop = asyncio_mount.running()
    if loop is None:
        from fdmux.hosts import trio  # noqa: PLC0415 - trio is what runs

        return trio.attach_to_group(host, served)
    errors: list[Exception] = []
    is_over = sys.modules["anyio"].Event()
    attachment = asyncio_mount.attach(loop, served)
    host.start_soon(hold, served, is_over, errors, name="fdmux")  # type: ignore[attr-defined] # a group

    def detach() -> None:
        is_over.set()
        attachment.detach()

    def report(error: Exception, _source: object) -> None:
        errors.append(error)
        is_over.set()

    return Attachment(detach, report, attachment.has_ended)


async def hold(served: Watched, is_over: object, errors: list[Exception]) -> None:
    """Unmount when the group is cancelled; hand it the error of a native function."""
    try:
        await is_over.wait()  # type: ignore[attr-defined] # an anyio.Event
        if errors:
            raise errors[0]
    finally:
        served.unmount()


def trio_token() -> object | None:
    """Return that of the trio that runs here."""
    if "trio" not in sys.modules:
        return None
    from fdmux.hosts import trio  # noqa: PLC0415 - only where trio is

    return trio.running()
