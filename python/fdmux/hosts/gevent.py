"""gevent as a host: an io watcher of the hub's loop, whose callback runs in the hub.

gevent does not report that a hub is destroyed. So a program should unmount before it
destroys its hub; otherwise the mount ends when the hub is garbage, or at the next call
of `fdmux.mount`.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import weakref
from typing import TYPE_CHECKING

from fdmux.hosts.watched import Attachment, no_native

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux.hosts.watched import Watched

READ = 1  # libev's EV_READ

native_of = no_native


def running() -> object | None:
    """Return the hub if this is a greenlet of gevent, or the socket module is patched.

    In the main greenlet of a program that only imports gevent this returns ``None``:
    asking for the hub would create one, which the program may never run.
    """
    gevent = sys.modules["gevent"]
    monkey = sys.modules.get("gevent.monkey")
    current = gevent.getcurrent()
    is_patched = monkey is not None and monkey.is_module_patched("socket")
    is_greenlet = isinstance(current, gevent.Greenlet) or accepts(current)
    return gevent.get_hub() if is_patched or is_greenlet else None


def accepts(host: object) -> bool:
    """Whether ``host`` is a hub of gevent."""
    hub = sys.modules.get("gevent.hub")
    return hub is not None and isinstance(host, hub.Hub)


def loop_of(host: object) -> object:
    """Return the hub itself.

    Raises:
        RuntimeError: It was destroyed, or it belongs to another thread.
    """
    if host.loop is None:  # type: ignore[attr-defined] # a hub
        raise RuntimeError(f"mount on {host!r}: it was destroyed; mount on a new hub")
    if host.thread_ident != threading.get_ident():  # type: ignore[attr-defined] # the same
        raise RuntimeError(
            f"mount on {host!r}: it belongs to another thread; mount there, or on "
            "gevent.get_hub()"
        )
    return host


def attach(host: object, watched: Watched) -> Attachment:
    """Start an io watcher for the descriptor in the loop of the hub."""
    watcher = host.loop.io(watched.fileno(), READ)  # type: ignore[attr-defined] # a hub
    at_end = weakref.finalize(host, watched.unmount)
    at_end.atexit = False

    def detach() -> None:
        at_end.detach()
        with contextlib.suppress(ValueError):  # the hub's loop was destroyed
            watcher.stop()
            watcher.close()

    def on_ready(dispatch: Callable[[], None]) -> None:
        dispatch()
        if not watched.is_mounted:
            detach()  # in a forked child, whose hub has its own kernel set

    watcher.start(on_ready, watched.watcher())

    def report(error: Exception, source: object) -> None:
        hub = watched.host
        if hub is not None:
            hub.handle_error(source, type(error), error, error.__traceback__)  # type: ignore[attr-defined] # a hub

    def has_ended() -> bool:
        hub = watched.host
        return hub is None or hub.loop is None  # type: ignore[attr-defined] # a hub

    return Attachment(detach, report, has_ended)


def new_event() -> object:
    """Return an event that a greenlet can wait for."""
    event: object = importlib.import_module("gevent.event").Event()
    return event
