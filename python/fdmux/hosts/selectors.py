"""Any `selectors.BaseSelector` as a host, whose user calls ``key.data()``."""

from __future__ import annotations

import contextlib
from selectors import EVENT_READ, BaseSelector
from typing import TYPE_CHECKING, cast

from fdmux.hosts.watched import Attachment
from fdmux.selector import Selector

if TYPE_CHECKING:
    from fdmux._native import NativeLoop
    from fdmux.hosts.watched import Watched


def running() -> object | None:
    """Return nothing: a selector must be passed."""
    return None


def accepts(host: object) -> bool:
    """Whether ``host`` is a selector."""
    return isinstance(host, BaseSelector)


def loop_of(host: object) -> object:
    """Return the selector itself.

    Raises:
        RuntimeError: It is closed.
    """
    if cast("BaseSelector", host).get_map() is None:
        raise RuntimeError(f"mount on {host!r}: it is closed; mount on a new selector")
    return host


def native_of(host: object) -> NativeLoop | None:
    """Return the native loop of a fdmux.Selector."""
    return host.native if isinstance(host, Selector) else None


def attach(host: object, watched: Watched) -> Attachment:
    """Register the descriptor; its key's data is the function to call."""
    selector = cast("BaseSelector", host)
    fd = watched.fileno()
    selector.register(fd, EVENT_READ, watched.watcher())

    def detach() -> None:
        # A closed selector has no map, and has forgotten the descriptor.
        if selector.get_map() is not None:
            with contextlib.suppress(KeyError):
                selector.unregister(fd)

    return Attachment(detach, raise_error)


def raise_error(error: Exception, _source: object) -> None:
    """Raise the error out of ``key.data()``."""
    raise error
