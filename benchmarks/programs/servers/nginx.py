"""nginx itself: becomes ``nginx`` on a port that is free; it answers /n/N with N.

    python -m benchmarks.programs.servers.nginx FOLDER

FOLDER is the runner's, who removes it.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from benchmarks.availability import Unavailable
from benchmarks.programs.servers.announce import BACKLOG, announce, listen

CONFIGURATION = """\
daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 1024; }}
http {{
    access_log off; client_body_temp_path {folder}/1; proxy_temp_path {folder}/2;
    fastcgi_temp_path {folder}/3; uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    keepalive_requests 1000000000; keepalive_timeout 1d;
    server {{
        listen 127.0.0.1:{port} backlog={backlog};
        location ~ ^/n/([0-9]+)$ {{ return 200 $1; }}
    }}
}}
"""


def nginx_program() -> str:
    """Find nginx; Debian has it in no user's PATH."""
    path = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
    found = shutil.which("nginx", path=path)
    if found is None:
        raise Unavailable("no nginx (Debian: nginx-light)")
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    with listen() as listener:
        port: int = listener.getsockname()[1]
    text = CONFIGURATION.format(folder=folder, port=port, backlog=BACKLOG)
    (folder / "nginx.conf").write_text(text)
    announce(port)
    sys.stdout.flush()
    command = [nginx_program(), "-p", str(folder), "-c", "nginx.conf"]
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
