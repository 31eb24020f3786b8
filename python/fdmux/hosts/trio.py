"""trio as a host: a task that waits for the descriptor and dispatches right there.

Its one rule: an error of native code never reaches trio from a system task, where it
would be a TrioInternalError. In a nursery that was given, it goes up as any other.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fdmux.hosts.watched import Attachment, log_error, no_native

if TYPE_CHECKING:
    from fdmux.hosts.watched import Watched

native_of = no_native


def running() -> object | None:
    """Return the token of the trio that runs in this thread."""
    lowlevel = sys.modules["trio"].lowlevel
    return lowlevel.current_trio_token() if lowlevel.in_trio_run() else None


def accepts(host: object) -> bool:
    """Whether it is a nursery."""
    return isinstance(host, sys.modules["trio"].Nursery)


def loop_of(host: object) -> object:
    """Return the token of the run that the host belongs to.

    Raises:
        RuntimeError: A nursery was given outside of trio.
    """
    token = running()
    if token is None:
        raise RuntimeError(f"mount on {host!r}: trio does not run in this thread")
    return token


def attach(host: object, served: Watched) -> Attachment:
    """Start the task that serves the loop."""
    if accepts(host):
        return attach_to_group(host, served)
    trio = sys.modules["trio"]
    fd = served.fileno()
    trio.lowlevel.spawn_system_task(serve, served, fd, None, name="fdmux")
    return Attachment(lambda: let_go(fd), log_error)


def attach_to_group(group: object, served: Watched) -> Attachment:
    """Start it in a nursery or task group, which then takes the errors."""
    errors: list[Exception] = []
    fd = served.fileno()
    group.start_soon(serve, served, fd, errors, name="fdmux")  # type: ignore[attr-defined] # either has it
    return Attachment(lambda: let_go(fd), lambda error, _: errors.append(error))


async def serve(served: Watched, fd: int, errors: list[Exception] | None) -> None:
    """Dispatch until the loop is unmounted, or the run or nursery ends."""
    trio = sys.modules["trio"]
    try:
        while served.is_mounted:
            await trio.lowlevel.wait_readable(fd)
            served.dispatch()
            if errors:
                raise errors[0]
    except trio.ClosedResourceError:
        if served.is_mounted:
            raise
    finally:
        served.unmount()


def new_event() -> object:
    """Make what tasks wait for."""
    event: object = sys.modules["trio"].Event()
    return event


def let_go(fd: int) -> None:
    """Wake the task that waits, if trio still runs."""
    lowlevel = sys.modules["trio"].lowlevel
    if lowlevel.in_trio_run():
        lowlevel.notify_closing(fd)
