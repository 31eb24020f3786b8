"""GLib as a host, by PyGObject: a source in the main context."""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING

from fdmux.hosts.watched import Attachment, log_error, no_native

if TYPE_CHECKING:
    from fdmux.hosts.watched import Watched

native_of = no_native

# PyGObject returns a new object for the same context each time. This maps the address
# of a context to the object that stands for it while it is mounted.
contexts: weakref.WeakValueDictionary[object, object] = weakref.WeakValueDictionary()


def running() -> object | None:
    """Return nothing: a host of GLib must be passed."""
    return None


def accepts(host: object) -> bool:
    """Whether ``host`` is a main context or main loop of GLib."""
    glib = sys.modules.get("gi.repository.GLib")
    return glib is not None and isinstance(host, (glib.MainContext, glib.MainLoop))


def loop_of(host: object) -> object:
    """Return the main context: always the same object for the same context."""
    glib = sys.modules["gi.repository.GLib"]
    is_loop = isinstance(host, glib.MainLoop)
    context: object = host.get_context() if is_loop else host  # type: ignore[attr-defined] # a MainLoop
    return contexts.setdefault(hash(context), context)  # its address


def attach(host: object, watched: Watched) -> Attachment:
    """Add a source that watches the descriptor."""
    glib = sys.modules["gi.repository.GLib"]
    context = loop_of(host)
    watcher = watched.watcher()

    def on_ready(*_event: object) -> bool:
        watcher()
        return True  # GLib keeps the source

    source = glib.unix_fd_source_new(watched.fileno(), glib.IOCondition.IN)
    source.set_callback(on_ready)
    source.attach(context)

    def detach(_context: object = context) -> None:
        source.destroy()

    return Attachment(detach, log_error)
