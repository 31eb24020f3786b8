"""The servers that the adapters are tested against: real ones, on loopback.

Each is started in a folder of its own, can be killed and started again at the same
address, and dies with the process that started it (prctl(2), PR_SET_PDEATHSIG). Start
one in the main thread: the kernel sends that signal when the starting thread ends.
"""

from __future__ import annotations

import abc
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
from typing import ClassVar

READY_SECONDS = 30.0
END_SECONDS = 10.0
POLL_SECONDS = 0.01  # between two looks at a server that starts
USERS = ("postgres", "nobody")
HERE = Path(__file__).parent


class MissingError(Exception):
    """A program that a server needs is not installed."""


def program(name: str, package: str) -> str:
    """Find a program; Debian has those of PostgreSQL in no PATH."""
    folders = [os.environ.get("PATH", ""), "/usr/sbin"]
    folders += map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise MissingError(f"needs {name} (Debian: {package})")
    return found


def free_port() -> int:
    """Choose a port for a program that cannot be told to let the kernel choose."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def user_without_rights() -> str | None:
    """Name whom PostgreSQL is to run as, since it refuses root."""
    if os.geteuid() != 0:
        return None
    known = {user.pw_name for user in pwd.getpwall()}
    return next(name for name in USERS if name in known)


class Server(abc.ABC):
    """One server. `address` is what its driver takes."""

    death = signal.SIGKILL

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fdmux-"))
        self.process: subprocess.Popen[bytes] | None = None
        self.user: str | None = None
        try:
            self.port = free_port()
            self.prepare()
            self.start()
        except BaseException:
            self.stop()
            raise

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def prepare(self) -> None:  # noqa: B027 - few need it
        """Write files; called once."""

    @abc.abstractmethod
    def command(self) -> list[str]:
        """Return the command, which must not fork into the background."""

    def is_ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), READY_SECONDS).close()
        except OSError:
            return False
        return True

    def start(self) -> None:
        """Start, and return when it answers."""
        death = f"--pdeathsig={self.death.name.removeprefix('SIG')}"
        command = [program("setpriv", "util-linux"), death]
        if self.user is not None:
            user = pwd.getpwnam(self.user)
            command += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}"]
            command += ["--clear-groups"]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, "HOME": str(self.folder)},
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.command()[0]} did not start: {self.log()}")
            time.sleep(POLL_SECONDS)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def kill(self) -> None:
        """End it at once, and wait until it has ended."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(self.death)
            process.wait(END_SECONDS)

    def stop(self) -> None:
        """End it, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Redis(Server):
    def command(self) -> list[str]:
        name = program("redis-server", "redis-server")
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": ""}
        return [name, *(word for key in options for word in (f"--{key}", options[key]))]


class Nginx(Server):
    """Answers /n/NUMBER with NUMBER."""

    CONFIGURATION = """\
daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 256; }}
http {{
    access_log off; client_body_temp_path {folder}/1; proxy_temp_path {folder}/2;
    fastcgi_temp_path {folder}/3; uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    keepalive_requests 100;
    server {{
        listen 127.0.0.1:{port};
        location ~ ^/n/([0-9]+)$ {{ return 200 $1; }}
    }}
}}
"""

    def prepare(self) -> None:
        text = self.CONFIGURATION.format(folder=self.folder, port=self.port)
        (self.folder / "nginx.conf").write_text(text)

    def command(self) -> list[str]:
        folder = str(self.folder)
        return [program("nginx", "nginx-light"), "-p", folder, "-c", "nginx.conf"]


class PostgreSQL(Server):
    """PostgreSQL with a new database. It refuses root."""

    death = signal.SIGQUIT  # ends the children too, which a SIGKILL leaves behind

    @property
    def address(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    def prepare(self) -> None:
        self.user = user_without_rights()
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        initdb = program("initdb", "postgresql")
        command = [initdb, "-D", str(self.folder / "data"), "-U", "postgres"]
        command += ["-A", "trust", "--no-sync", "-E", "UTF8", "--no-locale"]
        subprocess.run(
            command, user=self.user, cwd=self.folder, check=True, capture_output=True
        )

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "1MB",
        }
        command = [program("postgres", "postgresql"), "-D", str(self.folder / "data")]
        return command + [f"--{name}={settings[name]}" for name in settings]

    def is_ready(self) -> bool:
        """A port is open before the database is: ask for a login, as libpq does."""
        hello = b"\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00"
        address = ("127.0.0.1", self.port)
        try:
            with socket.create_connection(address, READY_SECONDS) as sock:
                sock.sendall(hello)
                return sock.recv(1) == b"R"  # E, an error, while it starts
        except OSError:
            return False


class Mosquitto(Server):
    def prepare(self) -> None:
        # As another user it would outlive us: setuid(2) forgets the death signal.
        text = f"user root\nlistener {self.port} 127.0.0.1\nallow_anonymous true\n"
        (self.folder / "mosquitto.conf").write_text(text)

    def command(self) -> list[str]:
        name = program("mosquitto", "mosquitto")
        return [name, "-c", str(self.folder / "mosquitto.conf")]


class Announced(Server):
    """A server of ours, which prints a line when it is ready."""

    def is_ready(self) -> bool:
        return "ready\n" in self.log()


class Dns(Announced):
    def command(self) -> list[str]:
        return [sys.executable, str(HERE / "dns_peer.py"), str(self.port)]


class ZeroMQ(Announced):
    """A ROUTER that echoes, compiled by the test (`binary`)."""

    binary: ClassVar[Path]

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [str(self.binary), self.address]


class UnixServer(Server):
    """A server on a Unix socket in its folder."""

    @property
    def path(self) -> Path:
        return self.folder / "socket"

    @property
    def address(self) -> str:
        return f"unix:path={self.path}"

    def is_ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(self.path)) == 0

    def kill(self) -> None:
        super().kill()
        self.path.unlink(missing_ok=True)


class Dbus(UnixServer):
    CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>{address}</listen>
  <policy context="default">
    <allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/>
    <allow user="*"/>
  </policy>
</busconfig>
"""

    def prepare(self) -> None:
        text = self.CONFIGURATION.format(address=self.address)
        (self.folder / "bus.conf").write_text(text)

    def command(self) -> list[str]:
        configuration = f"--config-file={self.folder / 'bus.conf'}"
        return [program("dbus-daemon", "dbus"), "--nofork", configuration]


class PulseAudio(UnixServer):
    """PulseAudio with ten sinks that play to nowhere, named fdmux0 to fdmux9."""

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    def command(self) -> list[str]:
        (self.folder / "state").mkdir(exist_ok=True)
        modules = [f"module-native-protocol-unix auth-anonymous=1 socket={self.path}"]
        modules += [f"module-null-sink sink_name=fdmux{number}" for number in range(10)]
        command = [
            "env",
            f"XDG_RUNTIME_DIR={self.folder}",
            f"PULSE_STATE_PATH={self.folder / 'state'}",
            program("pulseaudio", "pulseaudio"),
            *("-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1"),
            *("--disable-shm=yes", "--realtime=no", "--high-priority=no"),
        ]
        return command + [word for module in modules for word in ("-L", module)]


SERVERS: dict[str, type[Server]] = {
    "hiredis": Redis,
    "curl": Nginx,
    "cares": Dns,
    "libpq": PostgreSQL,
    "mosquitto": Mosquitto,
    "zmq": ZeroMQ,
    "dbus": Dbus,
    "sdbus": Dbus,
    "pulse": PulseAudio,
}
