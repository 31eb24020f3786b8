"""tornado as a host: an IOLoop, which runs on a loop of asyncio."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fdmux.hosts import asyncio_mount

if TYPE_CHECKING:
    from fdmux._native import NativeLoop
    from fdmux.hosts.watched import Attachment, Watched


def running() -> object | None:
    """Return nothing: asyncio_mount.py finds the loop below."""
    return None


def accepts(host: object) -> bool:
    """Whether ``host`` is an IOLoop of tornado."""
    return isinstance(host, sys.modules["tornado.ioloop"].IOLoop)


def loop_of(host: object) -> object:
    """Return the asyncio loop that the IOLoop runs on.

    Raises:
        RuntimeError: It is closed, or it runs in another thread.
    """
    loop: object = host.asyncio_loop  # type: ignore[attr-defined] # an IOLoop
    return asyncio_mount.loop_of(loop)


def native_of(host: object) -> NativeLoop | None:
    """Return the native loop of the asyncio loop, if it has one."""
    return asyncio_mount.native_of(loop_of(host))


def attach(host: object, watched: Watched) -> Attachment:
    """Add a reader to the asyncio loop."""
    return asyncio_mount.attach(loop_of(host), watched)
