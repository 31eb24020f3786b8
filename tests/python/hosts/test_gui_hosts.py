"""Qt and GLib: errors are logged, and objects of another thread are refused.

Each runs in a process of its own, as neither library can be unloaded.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

COMMON = """
import errno, logging, socket, threading, fdmux
from fdmux.testing import NativeCode

logged = []
handler = logging.Handler()
handler.emit = logged.append
logging.getLogger("fdmux.hosts").addHandler(handler)
left, right = socket.socketpair()
right.send(b"x")

def fail_once(mounted, then):
    code = NativeCode(mounted)
    timer = code.timer(lambda token: then())

    def fail(token, events):
        code.unwatch(token)
        code.arm(timer, 0.001)
        return -errno.EPROTO

    code.watch(left.fileno(), 1, fail)

def check_log():
    (record,) = logged
    assert record.exc_info[1].errno == errno.EPROTO, record
"""

QT = """
from BINDING.QtCore import QCoreApplication, QObject

alone = QObject()
try:
    fdmux.mount(alone)
except RuntimeError as error:
    assert "make a QCoreApplication" in str(error), error
else:
    raise AssertionError

app = QCoreApplication([])
mounted = fdmux.mount(app)
assert fdmux.mount(alone) is mounted
fail_once(mounted, app.quit)
app.exec()
check_log()
refused = []

def mount_elsewhere():
    try:
        fdmux.mount(app)
    except RuntimeError as error:
        refused.append(str(error))

thread = threading.Thread(target=mount_elsewhere)
thread.start()
thread.join()
assert "belongs to another thread" in refused[0], refused
mounted.unmount()
assert fdmux.mount(app) is not mounted
"""

GLIB = """
from gi.repository import GLib

loop = GLib.MainLoop()
mounted = fdmux.mount(loop)
assert fdmux.mount(GLib.MainContext.default()) is mounted
other = GLib.MainContext.new()
assert fdmux.mount(other) is not mounted
fail_once(mounted, loop.quit)
loop.run()
check_log()
mounted.unmount()
with fdmux.mount(loop) as again:
    assert again is not mounted
"""

PROGRAMS = {
    "PySide6": ("PySide6.QtCore", QT.replace("BINDING", "PySide6")),
    "PyQt6": ("PyQt6.QtCore", QT.replace("BINDING", "PyQt6")),
    "PyGObject": ("gi.repository.GLib", GLIB),
}


@pytest.mark.parametrize("package", PROGRAMS)
def test_desktop_host_logs_errors_and_refuses_other_threads(package: str) -> None:
    module, program = PROGRAMS[package]
    found = subprocess.run(
        [sys.executable, "-c", f"import {module}"], capture_output=True, check=False
    )
    if found.returncode:
        pytest.skip(f"needs {package}")
    subprocess.run([sys.executable, "-c", COMMON + program], check=True)
