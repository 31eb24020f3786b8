"""anyio as a host: a task group, on either backend; its end unmounts.

Without a task group, `fdmux.mount` finds the loop that anyio runs on.
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
    """Return nothing: the backend's own module finds the loop."""
    return None


def accepts(host: object) -> bool:
    """Whether ``host`` is a task group of anyio."""
    return isinstance(host, sys.modules["anyio"].abc.TaskGroup)


def loop_of(host: object) -> object:
    """Return the loop of the backend: asyncio's, or trio's token.

    Raises:
        RuntimeError: anyio does not run in this thread.
    """
    loop = asyncio_mount.running() or trio_token()
    if loop is None:
        raise RuntimeError(f"mount on {host!r}: anyio does not run in this thread")
    return loop


def native_of(_host: object) -> NativeLoop | None:
    """Return the native loop of asyncio's loop, if that runs on a fdmux.Selector."""
    return asyncio_mount.native_of(asyncio_mount.running())


def attach(host: object, watched: Watched) -> Attachment:
    """Watch the descriptor as the backend's module does, until the group ends."""
    loop = asyncio_mount.running()
    if loop is None:
        from fdmux.hosts import trio  # noqa: PLC0415 - trio runs, so it is imported

        return trio.attach_to_group(host, watched)
    errors: list[Exception] = []
    is_over = sys.modules["anyio"].Event()
    attachment = asyncio_mount.attach(loop, watched)
    host.start_soon(hold, watched, is_over, errors, name="fdmux")  # type: ignore[attr-defined] # a task group

    def detach() -> None:
        is_over.set()
        attachment.detach()

    def report(error: Exception, _source: object) -> None:
        errors.append(error)
        is_over.set()

    return Attachment(detach, report, attachment.has_ended)


async def hold(watched: Watched, is_over: object, errors: list[Exception]) -> None:
    """Unmount when the group ends; raise the error of a native function in it."""
    try:
        await is_over.wait()  # type: ignore[attr-defined] # an anyio.Event
        if errors:
            raise errors[0]
    finally:
        watched.unmount()


def trio_token() -> object | None:
    """Return the token of the trio run in this thread, if there is one."""
    if "trio" not in sys.modules:
        return None
    from fdmux.hosts import trio  # noqa: PLC0415 - only if trio is imported

    return trio.running()
