"""Qt, by PySide6 and by PyQt6."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from fdmux.testing.host import Host

if TYPE_CHECKING:
    from types import ModuleType

    from fdmux.testing.host import Callback


class Qt(Host):
    """Qt's event loop without a window."""

    name = "Qt (PySide6)"
    module = "PySide6.QtCore"
    package = "PySide6-Essentials"
    raises_interrupt = False  # PySide prints it, and the loop goes on
    ends_mount = False

    def __init__(self) -> None:
        self.core: ModuleType = import_module(self.module)
        # A process has one application, which must live until the process ends.
        self.app = self.core.QCoreApplication.instance()
        if self.app is None:
            type(self).the_app = self.app = self.core.QCoreApplication([])
        self.loop = self.core.QEventLoop()

    the_app: object = None

    def run(self, main: Callback) -> None:
        self.core.QTimer.singleShot(0, main)
        self.loop.exec()

    def stop(self) -> None:
        self.loop.quit()

    def call_later(self, delay: float, callback: Callback) -> None:
        self.core.QTimer.singleShot(int(delay * 1000), callback)

    def target(self) -> object:
        return self.loop


class PyQt(Qt):
    """Qt by PyQt6, which aborts on an exception in a slot unless there is a hook."""

    name = "Qt (PyQt6)"
    module = "PyQt6.QtCore"
    package = "PyQt6"

    def run(self, main: Callback) -> None:
        before, sys.excepthook = sys.excepthook, lambda *_error: None
        try:
            super().run(main)
        finally:
            sys.excepthook = before


HOSTS = (Qt, PyQt)
