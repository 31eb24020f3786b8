"""PostgreSQL itself: becomes ``postgres`` on a port that is free, with a new database.

    python -m benchmarks.programs.servers.postgresql FOLDER

FOLDER is the runner's, who removes it. PostgreSQL refuses to run as root, so root
becomes a user without rights first, and FOLDER that user's.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

from benchmarks.availability import Unavailable
from benchmarks.programs.servers.announce import announce, listen

USERS = ("postgres", "nobody")


def programs_folder() -> Path:
    """Return where ``initdb`` and ``postgres`` are; Debian has them in no PATH."""
    folders = [Path(name) for name in os.get_exec_path()]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise Unavailable("no PostgreSQL (Debian: postgresql)")


def give_up_root(folder: Path) -> None:
    """Become a user without rights, if this is root."""
    if os.geteuid() != 0:
        return
    known = {user.pw_name: user for user in pwd.getpwall()}
    user = next(known[name] for name in USERS if name in known)
    os.chown(folder, user.pw_uid, user.pw_gid)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def free_port() -> int:
    """Choose a port: PostgreSQL cannot be told to let the kernel choose."""
    with listen() as listener:
        port: int = listener.getsockname()[1]
        return port


def main() -> None:
    folder = Path(sys.argv[1])
    programs = programs_folder()
    give_up_root(folder)
    os.chdir(folder)
    data = str(folder / "data")
    subprocess.run(
        [
            *(str(programs / "initdb"), "-D", data, "-U", "postgres", "-A", "trust"),
            *("--no-sync", "-E", "UTF8", "--no-locale"),
        ],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    port = free_port()
    announce(port)  # after setuid(2), which would forget PR_SET_PDEATHSIG
    sys.stdout.flush()
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "off",
        "max_connections": "50",
        "shared_buffers": "16MB",
    }
    arguments = [
        part for name in settings for part in ("-c", f"{name}={settings[name]}")
    ]
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    postgres = str(programs / "postgres")
    os.execv(postgres, [postgres, "-D", data, *arguments])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
