"""asyncio streams inside GLib's main loop.

    python glib_guest.py

The guest is one source. A GLib timeout checks that neither loop keeps the other
waiting. Needs PyGObject.
"""

from __future__ import annotations

import sys

import gi

gi.require_version("GLib", "2.0")
from gi.repository import GLib  # noqa: E402 - after the version
from service import Service  # noqa: E402 - after the above

TICK_MS = 5
LIMIT_MS = 10_000  # a service that hangs fails


def main() -> int:
    """Run the service in a GLib program."""
    loop = GLib.MainLoop()
    service = Service()
    ticks: list[int] = []

    def on_readable(_fd: int, _condition: object) -> bool:
        service.dispatch()
        if service.is_done():
            loop.quit()
        return GLib.SOURCE_CONTINUE

    def on_tick() -> bool:
        ticks.append(1)
        return GLib.SOURCE_CONTINUE

    priority = GLib.PRIORITY_DEFAULT
    source = GLib.unix_fd_add_full(
        priority, service.fileno(), GLib.IOCondition.IN, on_readable
    )
    ticking = GLib.timeout_add(TICK_MS, on_tick)
    limit = GLib.timeout_add(LIMIT_MS, loop.quit)
    loop.run()
    for one in (source, ticking, limit):
        GLib.source_remove(one)
    is_right = service.report() and bool(ticks)
    service.close()
    print("GLib:", "ok" if is_right else "wrong")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
