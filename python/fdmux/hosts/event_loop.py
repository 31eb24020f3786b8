"""SelectorEventLoop as a host: it has a native loop of its own, on every selector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fdmux.hosts.watched import Attachment, log_error, same_loop
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.loop.running import running as ours

if TYPE_CHECKING:
    from fdmux._native import NativeLoop
    from fdmux.hosts.watched import Watched

loop_of = same_loop


def running() -> object | None:
    """Return the loop that runs a callback in this thread, if there is one."""
    return ours.loop


def accepts(host: object) -> bool:
    """Whether ``host`` is a SelectorEventLoop."""
    return isinstance(host, SelectorEventLoop)


def native_of(host: object) -> NativeLoop:
    """Return the native loop of the SelectorEventLoop."""
    return host.native  # type: ignore[attr-defined, no-any-return] # a SelectorEventLoop


def attach(_host: object, _watched: Watched) -> Attachment:
    """Do nothing: a SelectorEventLoop dispatches its native loop itself."""
    return Attachment(lambda: None, log_error)
