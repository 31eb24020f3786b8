"""Qt as a host, by PySide6 or PyQt6: a notifier in the thread's event dispatcher."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fdmux.hosts.watched import Attachment, log_error, no_native

if TYPE_CHECKING:
    from types import ModuleType

    from fdmux.hosts.watched import Watched

BINDINGS = ("PySide6.QtCore", "PyQt6.QtCore")

native_of = no_native


def running() -> object | None:
    """Return nothing: a host of Qt must be passed."""
    return None


def binding_of(host: object) -> ModuleType | None:
    """Return the QtCore module whose QObject ``host`` is, if it is one."""
    for name in BINDINGS:
        module = sys.modules.get(name)
        if module is not None and isinstance(host, module.QObject):
            return module
    return None


def accepts(host: object) -> bool:
    """Whether ``host`` is a QObject: an application, an event loop, a window."""
    return binding_of(host) is not None


def loop_of(host: object) -> object:
    """Return the event dispatcher of this thread.

    Raises:
        RuntimeError: The object belongs to another thread, or this thread has no event
            dispatcher yet.
    """
    core = binding_of(host)
    if core is None or host.thread() != core.QThread.currentThread():  # type: ignore[attr-defined] # a QObject
        raise RuntimeError(
            f"mount on {host!r}: it belongs to another thread; mount there, "
            "or on an object of this one"
        )
    dispatcher: object = core.QAbstractEventDispatcher.instance()
    if dispatcher is None:
        raise RuntimeError(
            f"mount on {host!r}: this thread has no event dispatcher; make a "
            "QCoreApplication or QEventLoop first"
        )
    return dispatcher


def attach(host: object, watched: Watched) -> Attachment:
    """Watch the descriptor with a notifier that lives as long as the dispatcher."""
    core = binding_of(host)
    assert core is not None  # noqa: S101 - for mypy; find() has called accepts()
    dispatcher = loop_of(host)
    notifier = core.QSocketNotifier(
        watched.fileno(), core.QSocketNotifier.Type.Read, dispatcher
    )

    def detach(_dispatcher: object = dispatcher) -> None:
        try:
            notifier.setEnabled(False)
            notifier.deleteLater()
        except RuntimeError:
            pass  # Qt has deleted the notifier, with the dispatcher

    notifier.activated.connect(watched.watcher())
    return Attachment(detach, log_error)
