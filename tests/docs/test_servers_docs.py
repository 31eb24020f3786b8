"""The programs of docs/servers.md that a supervisor starts: activation and restarts."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Self

import pytest
from tests.docs.test_docs import named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

LONG = 60.0
CLIENTS = 4
RESTARTS = 3
ACTIVATE = "systemd-socket-activate"
# What a supervisor does between fork(2) and exec(2).
LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, sys.argv[2]])
"""


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def ask(address: object, family: int = socket.AF_INET, count: int = 3) -> None:
    """Make requests on one connection; anything but their answers raises."""
    with socket.socket(family) as sock:
        sock.settimeout(LONG)
        sock.connect(address)  # type: ignore[arg-type] # of either family
        for number in range(count):
            sock.sendall(b"request %d" % number)
            assert sock.recv(9, socket.MSG_WAITALL) == b"REQUEST %d" % number


class Load:
    """Clients that connect, ask and leave, until the end of the block."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.served = 0
        self.errors: list[Exception] = []
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def _ask(self) -> None:
        while not self._is_over.is_set():
            try:
                ask(self.address)
            except Exception as error:  # noqa: BLE001 - the test looks at them
                self.errors.append(error)
            self.served += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def test_restarts_of_workers_lose_no_request(tmp_path: Path) -> None:
    program = tmp_path / "workers.py"
    program.write_text(named("workers.py"))
    with running(sys.executable, str(program)) as process:
        host, port = read_line(process).split()
        with Load((host, int(port))) as load:
            for _ in range(RESTARTS):
                before = load.served
                process.send_signal(signal.SIGHUP)
                assert read_line(process) == "restarted"
                while load.served < before + CLIENTS and not load.errors:
                    ask(load.address)
        process.terminate()
        out, err = process.communicate(timeout=LONG)
    assert load.errors == []
    assert (process.returncode, out, err) == (0, "", "")


@contextlib.contextmanager
def activated(
    listener: socket.socket, program: Path
) -> Iterator[subprocess.Popen[str]]:
    """Start a program with a socket, as a supervisor does (sd_listen_fds(3))."""
    fd = str(listener.fileno())
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, fd, str(program)],
        env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "shout"},
        pass_fds=[listener.fileno()],
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    _, errors = process.communicate(timeout=LONG)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("is_overlapping", [True, False])
def test_restarts_on_an_inherited_socket_lose_no_request(
    tmp_path: Path, is_overlapping: bool
) -> None:
    """The next server starts before the last one drains, or after it has ended."""
    program = tmp_path / "activated.py"
    program.write_text(named("activated.py"))
    with (
        contextlib.ExitStack() as servers,
        socket.create_server(("127.0.0.1", 0), backlog=128) as listener,
    ):
        server = servers.enter_context(activated(listener, program))
        with Load(listener.getsockname()) as load:
            for _ in range(RESTARTS):
                ask(load.address)  # it serves, and has a handler for SIGTERM
                last = server
                if not is_overlapping:
                    end(last)
                server = servers.enter_context(activated(listener, program))
                if is_overlapping:
                    end(last)
            before = load.served
            while load.served < before + CLIENTS and not load.errors:
                ask(load.address)  # by the last of them
        end(server)
    assert load.errors == []
    assert load.served > CLIENTS


@pytest.mark.skipif(
    shutil.which(ACTIVATE) is None, reason=f"no {ACTIVATE} (Debian: systemd)"
)
def test_systemd_starts_the_server_for_its_first_client(tmp_path: Path) -> None:
    program = tmp_path / "activated.py"
    program.write_text(named("activated.py"))
    path = str(tmp_path / "socket")
    with running(
        ACTIVATE, f"--listen={path}", "--fdname=shout", sys.executable, str(program)
    ) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        assert re.match(rf"Listening on {re.escape(path)} ", told), told
        ask(path, socket.AF_UNIX)
        ask(path, socket.AF_UNIX)
        process.send_signal(signal.SIGTERM)  # systemd has become the server: exec(2)
        process.communicate(timeout=LONG)
    assert process.returncode == 0
