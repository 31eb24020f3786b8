"""``fdmux echo`` as a process: its output, its signals, its exit codes."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
from typing import IO, TYPE_CHECKING

import pytest

from fdmux.commands.echo import location

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = 60.0
HOST = "127.0.0.1"


@contextlib.contextmanager
def echo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the server; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fdmux", "echo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def read_port(stdout: IO[str] | None) -> int:
    """Read the first line; it comes when clients can connect."""
    assert stdout is not None
    line = stdout.readline()
    assert line.startswith(f"listening on {HOST}:")
    return int(line.rpartition(":")[2])


def echo_once(port: int, message: bytes) -> None:
    with socket.create_connection((HOST, port), timeout=LONG) as sock:
        sock.sendall(message)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(len(message), socket.MSG_WAITALL) == message
        assert sock.recv(1) == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_with_a_report(number: signal.Signals) -> None:
    with echo("--port", "0") as process:
        port = read_port(process.stdout)
        echo_once(port, b"hello")
        echo_once(port, b"x" * 1000)
        process.send_signal(number)
        out, err = process.communicate(timeout=LONG)
    assert (process.returncode, err) == (0, "")
    assert out == "served 2 connections, 1,005 bytes in, 1,005 bytes out, 0 errors\n"


def test_signal_right_after_the_address_is_not_lost() -> None:
    with echo("--port", "0") as process:
        read_port(process.stdout)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LONG)
    assert (process.returncode, err) == (0, "")
    assert out == "served 0 connections, 0 bytes in, 0 bytes out, 0 errors\n"


def test_signal_closes_clients_that_are_connected() -> None:
    with echo("--port", "0") as process:
        port = read_port(process.stdout)
        with socket.create_connection((HOST, port), timeout=LONG) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            process.send_signal(signal.SIGINT)
            assert sock.recv(1) == b""
        out, _ = process.communicate(timeout=LONG)
    assert process.returncode == 0
    assert out.startswith("served 1 connections, 1 bytes in")


def test_sigterm_lets_clients_finish() -> None:
    with echo("--port", "0", "--drain-timeout", "inf") as process:
        port = read_port(process.stdout)
        with socket.create_connection((HOST, port), timeout=LONG) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
                while True:  # until the server has closed its listener
                    socket.create_connection((HOST, port), timeout=LONG).close()
            sock.sendall(b"yz")
            assert sock.recv(2, socket.MSG_WAITALL) == b"yz"
        out, err = process.communicate(timeout=LONG)
    assert (process.returncode, err) == (0, "")
    assert out.endswith(" 3 bytes in, 3 bytes out, 0 errors\n")


def test_sigterm_cuts_off_clients_at_the_timeout() -> None:
    with echo("--port", "0", "--drain-timeout", "0.01") as process:
        port = read_port(process.stdout)
        with socket.create_connection((HOST, port), timeout=LONG) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            process.send_signal(signal.SIGTERM)
            assert sock.recv(1) == b""
        out, _ = process.communicate(timeout=LONG)
    assert process.returncode == 0
    assert out == (
        "served 1 connections, 1 bytes in, 1 bytes out, 0 errors, 1 unfinished\n"
    )


@pytest.mark.slow  # the line is redrawn four times a second
def test_terminal_sees_the_counters_live() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            [sys.executable, "-m", "fdmux", "echo", "--port", "0"], stdout=theirs
        )
        os.close(theirs)
        with process:
            try:
                shown = read_until(terminal, b"0 connected of 0, 0 bytes in")
                port = int(shown.split(b"\r\n")[0].rpartition(b":")[2])
                echo_once(port, b"hello")
                shown = read_until(terminal, b"of 1, 5 bytes in, 5 bytes out")
                assert b"\r" in shown
                assert b"\n" not in shown
                process.send_signal(signal.SIGINT)
                read_until(terminal, b"\r\x1b[Kserved 1 connections, 5 bytes in")
                assert process.wait(timeout=LONG) == 0
            finally:
                if process.poll() is None:
                    process.kill()


def read_until(terminal: IO[bytes], text: bytes) -> bytes:
    """Read what the terminal shows, up to ``text``."""
    shown = b""
    while text not in shown:
        piece = terminal.read(4096)
        assert piece, shown
        shown += piece
    return shown


def test_port_that_is_taken() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with echo("--port", str(port)) as process:
            out, err = process.communicate(timeout=LONG)
    assert (process.returncode, out) == (1, "")
    assert err == f"fdmux: listen on ('{HOST}', {port}): Address already in use\n"


def test_host_that_is_not_ours() -> None:
    # RFC 5737: an address that no machine has.
    with echo("--host", "192.0.2.1", "--port", "0") as process:
        out, err = process.communicate(timeout=LONG)
    assert (process.returncode, out) == (1, "")
    assert err == (
        "fdmux: listen on ('192.0.2.1', 0): Cannot assign requested address\n"
    )


@pytest.mark.parametrize(
    ("address", "written"),
    [((HOST, 80), f"{HOST}:80"), (("::1", 80), "[::1]:80")],
)
def test_address_is_written_as_in_urls(address: tuple[str, int], written: str) -> None:
    assert location(address) == written
