"""Redis, nginx, a DNS server and PostgreSQL on loopback, as long as they are needed.

    python servers.py PROGRAM...    runs it with the four addresses, and ends them

Each has a free port and a folder of its own. They die with the process that started
them, however it ends (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

READY_SECONDS = 30.0
END_SECONDS = 10.0
POLL_SECONDS = 0.01  # between two looks at a server that starts
HERE = Path(__file__).parent
NGINX = """\
daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 256; }}
http {{
    access_log off; client_body_temp_path {folder}/1; proxy_temp_path {folder}/2;
    fastcgi_temp_path {folder}/3; uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    server {{
        listen 127.0.0.1:{port};
        location ~ ^/n/([0-9]+)$ {{ return 200 $1; }}
    }}
}}
"""
# A StartupMessage of PostgreSQL; the answer is R once it serves, and E before.
POSTGRESQL_HELLO = b"\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00"
# A query of DNS for n1.test.
DNS_HELLO = bytes(5) + b"\x01" + bytes(6) + b"\x02n1\x04test\x00\x00\x01\x00\x01"


class Servers(contextlib.ExitStack):
    """All four, started; leaving the context ends them."""

    def __init__(self) -> None:
        super().__init__()
        try:
            self._start_all()
        except BaseException:
            self.close()
            raise

    def _start_all(self) -> None:
        self._folder = Path(self.enter_context(tempfile.TemporaryDirectory()))
        self._folder.chmod(0o755)  # PostgreSQL is another user
        ports = [free_port() for _ in range(4)]
        redis, http, dns, postgresql = (str(port) for port in ports)
        self.addresses = {
            "redis": f"127.0.0.1:{redis}",
            "http": f"http://127.0.0.1:{http}",
            "dns": f"127.0.0.1:{dns}",
            "postgresql": f"host=127.0.0.1 port={postgresql} user=postgres",
        }
        self._start_redis(redis)
        self._start_nginx(http)
        self._start([sys.executable, str(HERE / "dns_server.py"), dns], "dns")
        self._start_postgresql(postgresql)
        wait_for(lambda: answers(ports[0], b"PING\r\n", b"+"))
        wait_for(lambda: answers(ports[1], b"GET /n/1 HTTP/1.0\r\n\r\n", b"H"))
        wait_for(lambda: resolves(ports[2]))
        wait_for(lambda: answers(ports[3], POSTGRESQL_HELLO, b"R"))

    def _start(
        self,
        command: list[str],
        name: str,
        user: str | None = None,
        death: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Start a server; it gets ``death`` when this process ends."""
        prefix = [program("setpriv", "util-linux"), f"--pdeathsig={death.name[3:]}"]
        if user is not None:
            entry = pwd.getpwnam(user)
            prefix += [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}"]
            prefix += ["--clear-groups"]
        log = self.enter_context((self._folder / f"{name}.log").open("wb"))
        process = subprocess.Popen(  # noqa: S603 - what is written here
            [*prefix, *command],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the program
        )
        self.callback(end, process, death)

    def _start_redis(self, port: str) -> None:
        command = [program("redis-server", "redis-server"), "--port", port]
        self._start([*command, "--bind", "127.0.0.1", "--save", ""], "redis")

    def _start_nginx(self, port: str) -> None:
        text = NGINX.format(folder=self._folder, port=port)
        (self._folder / "nginx.conf").write_text(text)
        command = [program("nginx", "nginx-light"), "-p", str(self._folder)]
        self._start([*command, "-c", "nginx.conf"], "nginx")

    def _start_postgresql(self, port: str) -> None:
        """PostgreSQL refuses to run as root; its children need a gentler signal."""
        user = "postgres" if os.geteuid() == 0 else None
        data = self._folder / "postgresql"
        data.mkdir(mode=0o700)
        if user is not None:
            shutil.chown(data, user)
        initdb = [program("initdb", "postgresql"), "-D", str(data), "-U", "postgres"]
        subprocess.run(  # noqa: S603 - what is written here
            [*initdb, "-A", "trust", "--no-sync", "-E", "UTF8", "--no-locale"],
            user=user,
            cwd=data,
            check=True,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        command = [program("postgres", "postgresql"), "-D", str(data), "-p", port]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        command += ["-c", "unix_socket_directories=", "-c", "shared_buffers=1MB"]
        self._start(command, "postgresql", user, signal.SIGQUIT)


def program(name: str, package: str) -> str:
    """Find a program; Debian has some of them in no user's PATH."""
    folders = [os.environ.get("PATH", ""), "/usr/sbin"]
    folders += map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        sys.exit(f"there is no {name} (Debian: {package})")
    return found


def free_port() -> int:
    """Choose a port: these servers cannot let the kernel choose."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def answers(port: int, hello: bytes, beginning: bytes) -> bool:
    """Return whether the server answers, and as it should."""
    try:
        with socket.create_connection(("127.0.0.1", port), READY_SECONDS) as sock:
            sock.sendall(hello)
            return sock.recv(1) == beginning
    except OSError:
        return False


def resolves(port: int) -> bool:
    """Return whether the DNS server answers; one that does not yet refuses at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(READY_SECONDS)
        sock.connect(("127.0.0.1", port))
        try:
            sock.send(DNS_HELLO)
            return bool(sock.recv(4096))
        except ConnectionRefusedError:
            return False


def wait_for(is_ready: Callable[[], bool]) -> None:
    """Look again and again; servers of others do not say when they are ready."""
    deadline = time.monotonic() + READY_SECONDS
    while not is_ready():
        if time.monotonic() > deadline:
            sys.exit(f"a server did not start within {READY_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def end(process: subprocess.Popen[bytes], death: signal.Signals) -> None:
    """End a server at once."""
    process.send_signal(death)
    process.wait(END_SECONDS)


if __name__ == "__main__":
    with Servers() as servers:
        command = [*sys.argv[1:], *servers.addresses.values()]
        done = subprocess.run(command, check=False)  # noqa: S603 - the user's program
    sys.exit(done.returncode)
