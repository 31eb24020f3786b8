"""Redis itself: becomes ``redis-server`` on a port that is free, without a disk.

Redis cannot be told to let the kernel choose, so the port is chosen first; should
somebody take it in between, Redis ends, and the runner says so.
"""

from __future__ import annotations

import os
import sys

from benchmarks.programs.servers.announce import BACKLOG, announce, listen


def main() -> None:
    listener = listen()
    port: int = listener.getsockname()[1]
    listener.close()
    announce(port)
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())  # its log
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "tcp-backlog": str(BACKLOG),
        "save": "",
        "appendonly": "no",
    }
    arguments = [part for name in settings for part in (f"--{name}", settings[name])]
    os.execvp("redis-server", ["redis-server", *arguments])  # noqa: S606 - no shell


if __name__ == "__main__":
    main()
