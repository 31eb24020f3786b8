"""Any `selectors.BaseSelector` as a host, run by whoever calls ``key.data()``."""

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
    """Return nothing: a selector does not run by itself."""
    return None


def accepts(host: object) -> bool:
    """Whether it is a selector."""
    return isinstance(host, BaseSelector)


def loop_of(host: object) -> object:
    """Return the selector.

    Raises:
        RuntimeError: It is closed.
    """
    if cast("BaseSelector", host).get_map() is None:
        raise RuntimeError(f"mount on {host!r}: it is closed; mount on a new selector")
    return host


def native_of(host: object) -> NativeLoop | None:
    """Return that of a selector of ours."""
    return host.native if isinstance(host, Selector) else None


def attach(host: object, served: Watched) -> Attachment:
    """Register the descriptor, with what to call as its data."""
    selector = cast("BaseSelector", host)
    fd = served.fileno()
    selector.register(fd, EVENT_READ, served.watcher())

    def detach() -> None:
        # A closed selector has no map; it has forgotten the descriptor by itself.
        if selector.get_map() is not None:
            with contextlib.suppress(KeyError):
                selector.unregister(fd)

    return Attachment(detach, raise_error)


def raise_error(error: Exception, _source: object) -> None:
    """Let it come out of ``key.data()``."""
    raise error
