"""SelectorEventLoop as a host: it has a native loop on every selector."""

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
    """Return the loop whose callback runs."""
    return ours.loop


def accepts(host: object) -> bool:
    """Whether it is a loop of ours."""
    return isinstance(host, SelectorEventLoop)


def native_of(host: object) -> NativeLoop:
    """Return the loop's own."""
    return host.native  # type: ignore[attr-defined, no-any-return] # a SelectorEventLoop


def attach(_host: object, _mounted: Watched) -> Attachment:
    """Do nothing: it serves its own loop."""
    return Attachment(lambda: None, log_error)
