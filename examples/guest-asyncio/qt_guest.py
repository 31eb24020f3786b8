"""asyncio streams inside Qt's loop, without a window.

    QT_QPA_PLATFORM=offscreen python qt_guest.py

The guest is one QSocketNotifier. A Qt timer checks that neither loop keeps the other
waiting. Needs PySide6 (or PySide6-Essentials).
"""

from __future__ import annotations

import sys

from PySide6.QtCore import QCoreApplication, QSocketNotifier, QTimer
from service import Service

TICK_MS = 5
LIMIT_MS = 10_000  # a service that hangs fails


def main() -> int:
    """Run the service in a Qt program."""
    application = QCoreApplication(sys.argv)
    service = Service()
    notifier = QSocketNotifier(service.fileno(), QSocketNotifier.Type.Read)
    ticks: list[int] = []

    def on_readable() -> None:
        service.dispatch()
        if service.is_done():
            application.quit()

    notifier.activated.connect(on_readable)
    timer = QTimer(interval=TICK_MS)
    timer.timeout.connect(lambda: ticks.append(1))
    timer.start()
    QTimer.singleShot(LIMIT_MS, application.quit)
    application.exec()
    notifier.setEnabled(False)
    is_right = service.report() and bool(ticks)
    service.close()
    print("Qt:", "ok" if is_right else "wrong")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
