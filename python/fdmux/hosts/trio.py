"""trio as a host: a task that waits for the descriptor, and dispatches itself.

Its one rule: a system task never raises the error of a native function, which trio
would turn into a TrioInternalError. A task in the caller's nursery does raise it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fdmux.hosts.watched import Attachment, log_error, no_native

if TYPE_CHECKING:
    from fdmux.hosts.watched import Watched

native_of = no_native


def running() -> object | None:
    """Return the token of the trio run in this thread, if there is one."""
    lowlevel = sys.modules["trio"].lowlevel
    return lowlevel.current_trio_token() if lowlevel.in_trio_run() else None


def accepts(host: object) -> bool:
    """Whether ``host`` is a nursery of trio, or the token of a run."""
    return is_nursery(host) or isinstance(host, sys.modules["trio"].lowlevel.TrioToken)


def is_nursery(host: object) -> bool:
    """Whether ``host`` is a nursery of trio."""
    return isinstance(host, sys.modules["trio"].Nursery)


def loop_of(host: object) -> object:
    """Return the token of the trio run in this thread.

    Raises:
        RuntimeError: trio does not run in this thread, or ``host`` is another run.
    """
    token = running()
    if token is None:
        raise RuntimeError(f"mount on {host!r}: trio does not run in this thread")
    if host is not token and not is_nursery(host):
        raise RuntimeError(
            f"mount on {host!r}: it belongs to another run of trio; mount there"
        )
    return token


def attach(host: object, watched: Watched) -> Attachment:
    """Start the task: in the nursery that was passed, or as a system task."""
    if is_nursery(host):
        return attach_to_group(host, watched)
    trio = sys.modules["trio"]
    fd = watched.fileno()
    trio.lowlevel.spawn_system_task(keep_dispatching, watched, fd, None, name="fdmux")
    return Attachment(lambda: let_go(fd), log_error)


def attach_to_group(group: object, watched: Watched) -> Attachment:
    """Start the task in a nursery or task group, in which it raises errors."""
    errors: list[Exception] = []
    fd = watched.fileno()
    group.start_soon(keep_dispatching, watched, fd, errors, name="fdmux")  # type: ignore[attr-defined] # both have it
    return Attachment(lambda: let_go(fd), lambda error, _: errors.append(error))


async def keep_dispatching(
    watched: Watched, fd: int, errors: list[Exception] | None
) -> None:
    """Dispatch when the descriptor is readable, until unmounted or cancelled.

    Raises:
        Exception: The first of ``errors``, to which others append.
    """
    trio = sys.modules["trio"]
    try:
        while watched.is_mounted:
            await trio.lowlevel.wait_readable(fd)
            watched.dispatch()
            if errors:
                raise errors[0]
    except trio.ClosedResourceError:
        if watched.is_mounted:
            raise
    finally:
        watched.unmount()


def new_event() -> object:
    """Return an event that a task can wait for."""
    event: object = sys.modules["trio"].Event()
    return event


def let_go(fd: int) -> None:
    """Wake the task that waits for ``fd``, if trio still runs."""
    lowlevel = sys.modules["trio"].lowlevel
    if lowlevel.in_trio_run():
        lowlevel.notify_closing(fd)
