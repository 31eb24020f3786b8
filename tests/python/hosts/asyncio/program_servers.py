"""What programs of others talk to in tests: PostgreSQL, Redis, and a certificate.

Each server is started on loopback, with a folder of its own, and ended by the one who
started it. What is not installed skips the test.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.peers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

READY_SECONDS = 30.0
POLL_SECONDS = 0.02
END_SECONDS = 20.0
USERS = ("postgres", "nobody")
# What is asked first, and how the answer of a server begins that is ready. PostgreSQL
# says E (ErrorResponse) to a StartupMessage while it starts, and then R.
POSTGRESQL_HELLO = (b"\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00", b"R")
REDIS_HELLO = (b"PING\r\n", b"+PONG")


def program(name: str) -> str:
    """Find a program of PostgreSQL, which Debian has in no PATH, or of another."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"needs the program {name}")
    return found


@dataclass(frozen=True)
class Certificate:
    """Files of a certificate for ``localhost``, its own authority."""

    path: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.path))


def make_certificate(folder: Path) -> Certificate:
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    command = [program("openssl"), "req", "-x509", "-nodes", "-days", "2"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(made.key), "-out", str(made.path)]
    subprocess.run(command, check=True, capture_output=True)
    return made


def answers(port: int, hello: tuple[bytes, bytes]) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), READY_SECONDS) as sock:
            sock.sendall(hello[0])
            return sock.recv(64).startswith(hello[1])
    except OSError:
        return False


@contextlib.contextmanager
def running(
    command: Sequence[str],
    port: int,
    hello: tuple[bytes, bytes],
    user: str | None,
    folder: Path,
) -> Iterator[None]:
    """Run a server until the end of the block, once it answers on its port."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            user=user,
            cwd=folder,
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not answers(port, hello):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{command[0]}: {(folder / 'log').read_text()}")
            time.sleep(POLL_SECONDS)
        yield
    finally:
        process.send_signal(signal.SIGINT)  # PostgreSQL: without waiting for clients
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def redis() -> Iterator[int]:
    """Run Redis without a disk; yield its port."""
    port = free_port()
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--appendonly", "no"]
    with (
        tempfile.TemporaryDirectory() as folder,
        running(command, port, REDIS_HELLO, None, Path(folder)),
    ):
        yield port


@dataclass(frozen=True)
class PostgreSQL:
    """How to reach it: over TCP, or by the Unix socket in its folder."""

    port: int
    folder: Path
    certificate: Certificate


def user_without_rights() -> str | None:
    """Name whom PostgreSQL is to run as, since it refuses root."""
    if os.geteuid() != 0:
        return None
    known = {user.pw_name for user in pwd.getpwall()}
    return next(name for name in USERS if name in known)


def own(folder: Path, user: str | None) -> None:
    if user is not None:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user)


@contextlib.contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Run PostgreSQL with a new database, TLS, and no password."""
    postgres, initdb = program("postgres"), program("initdb")
    user = user_without_rights()
    # Not pytest's folder, which only its owner may enter; and a short path, since that
    # of a Unix socket has 107 bytes.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate = make_certificate(folder)
        certificate.key.chmod(0o600)  # else PostgreSQL refuses it
        own(folder, user)
        data, port = str(folder / "data"), free_port()
        command = [initdb, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
        command += ["-E", "UTF8", "--no-locale"]
        subprocess.run(command, user=user, cwd=folder, check=True, capture_output=True)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": name,
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": str(certificate.path),
            "ssl_key_file": str(certificate.key),
        }
        command = [postgres, "-D", data]
        command += [f"--{key}={value}" for key, value in settings.items()]
        with running(command, port, POSTGRESQL_HELLO, user, folder):
            yield PostgreSQL(port, folder, certificate)
