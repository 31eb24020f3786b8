"""tornado as a host: its IOLoop is an asyncio loop in other words."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fdmux.hosts import asyncio_mount

if TYPE_CHECKING:
    from fdmux._native import NativeLoop
    from fdmux.hosts.watched import Attachment, Watched


def running() -> object | None:
    """Leave that to asyncio."""
    return None


def accepts(host: object) -> bool:
    """Whether it is an IOLoop."""
    return isinstance(host, sys.modules["tornado.ioloop"].IOLoop)


def loop_of(host: object) -> object:
    """Return the asyncio loop behind it."""
    loop: object = host.asyncio_loop  # type: ignore[attr-defined] # an IOLoop
    return asyncio_mount.loop_of(loop)


def native_of(host: object) -> NativeLoop | None:
    """Return that of asyncio's loop."""
    return asyncio_mount.native_of(loop_of(host))


def attach(host: object, served: Watched) -> Attachment:
    """Watch the descriptor as asyncio does."""
    return asyncio_mount.attach(loop_of(host), served)
