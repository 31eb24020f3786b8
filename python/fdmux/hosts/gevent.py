"""gevent as a host: an io watcher of the hub's loop, whose callback runs in the hub.

gevent tells nobody when a hub is destroyed. So a program that does that unmounts
before; else the mount ends when the hub's memory does, or at the next `fdmux.mount`.
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
    """Return the hub if this is a greenlet of gevent's, or blocking calls are patched.

    The main greenlet of a program that only imports gevent is not enough: asking for
    its hub would make one that perhaps nobody runs.
    """
    gevent = sys.modules["gevent"]
    monkey = sys.modules.get("gevent.monkey")
    current = gevent.getcurrent()
    is_patched = monkey is not None and monkey.is_module_patched("socket")
    is_greenlet = isinstance(current, gevent.Greenlet) or accepts(current)
    return gevent.get_hub() if is_patched or is_greenlet else None


def accepts(host: object) -> bool:
    """Whether it is a hub."""
    hub = sys.modules.get("gevent.hub")
    return hub is not None and isinstance(host, hub.Hub)


def loop_of(host: object) -> object:
    """Return the hub, which must be this thread's.

    Raises:
        RuntimeError: It was destroyed, or is another thread's.
    """
    if host.loop is None:  # type: ignore[attr-defined] # a hub
        raise RuntimeError(f"mount on {host!r}: it was destroyed; mount on a new hub")
    if host.thread_ident != threading.get_ident():  # type: ignore[attr-defined] # the same
        raise RuntimeError(
            f"mount on {host!r}: it is another thread's; mount there, or on "
            "gevent.get_hub()"
        )
    return host


def attach(host: object, served: Watched) -> Attachment:
    """Watch the descriptor in the loop of the hub."""
    watcher = host.loop.io(served.fileno(), READ)  # type: ignore[attr-defined] # a hub
    at_end = weakref.finalize(host, served.unmount)
    at_end.atexit = False

    def detach() -> None:
        at_end.detach()
        with contextlib.suppress(ValueError):  # the loop was destroyed
            watcher.stop()
            watcher.close()

    def serve(dispatch: Callable[[], None]) -> None:
        dispatch()
        if not served.is_mounted:
            detach()  # in a forked child, whose hub has a kernel set of its own by now

    watcher.start(serve, served.watcher())

    def report(error: Exception, source: object) -> None:
        hub = served.host
        if hub is not None:
            hub.handle_error(source, type(error), error, error.__traceback__)  # type: ignore[attr-defined] # a hub

    def has_ended() -> bool:
        hub = served.host
        return hub is None or hub.loop is None  # type: ignore[attr-defined] # a hub

    return Attachment(detach, report, has_ended)


def new_event() -> object:
    """Make what greenlets wait for."""
    event: object = importlib.import_module("gevent.event").Event()
    return event
