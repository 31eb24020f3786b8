"""``fdmux ping`` against good, bad and absent servers."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from fdmux import EchoServer
from fdmux.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG = 60.0
HOST = "127.0.0.1"


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve one connection with ``answer``; gives the port."""
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(LONG)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(LONG)
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield str(listener.getsockname()[1])
        finally:
            thread.join()


def test_ping_reports_round_trips() -> None:
    with EchoServer(port=0) as server:
        server.run_in_thread()
        port = str(server.address[1])
        done = subprocess.run(
            [sys.executable, "-m", "fdmux", "ping", HOST, port, "--count", "3"],
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
        assert server.stats.bytes_in == 3 * 64
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"connected to {HOST} port {port} in [\d.]+ ms\n"
        r"3 x 64 bytes and back: min [\d.]+ ms, median [\d.]+ ms, max [\d.]+ ms\n",
        done.stdout,
    )


def test_ping_figures_are_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    with EchoServer(port=0) as server:
        server.run_in_thread()
        arguments = ["ping", HOST, str(server.address[1]), "--size", "65536"]
        assert main([*arguments, "--count", "20"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    figures = [float(figure) for figure in re.findall(r"([\d.]+) ms", line)]
    assert len(figures) == 3
    assert 0 < figures[0] <= figures[1] <= figures[2]


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port = taken.getsockname()[1]
        assert main(["ping", HOST, str(port)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(
        rf"fdmux: connect to \('{HOST}', {port}\) .*Connection refused\n", captured.err
    )


@pytest.mark.parametrize("host", ["a" * 300, "a..b"])
def test_host_that_no_name_can_have(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ping", host, "80"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fdmux: connect to ('{host}', 80): ")
    assert error.count("\n") == 1


def test_reply_that_does_not_come(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(drain) as port:
        assert main(["ping", HOST, port, "--timeout", "0.05"]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"fdmux: message 1 of 5: read of 64 bytes from fd \d+ timed out .*\n", error
    )


def test_server_that_hangs_up(capsys: pytest.CaptureFixture[str]) -> None:
    def answer_once(connection: socket.socket) -> None:
        connection.sendall(connection.recv(64))

    with serving(answer_once) as port:
        assert main(["ping", HOST, port, "--count", "2"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("fdmux: message 2 of 2: ")
    assert error.count("\n") == 1


def test_server_that_is_no_echo_server(capsys: pytest.CaptureFixture[str]) -> None:
    def answer_wrong(connection: socket.socket) -> None:
        connection.sendall(bytes(byte ^ 1 for byte in connection.recv(64)))
        drain(connection)

    with serving(answer_wrong) as port:
        assert main(["ping", HOST, port]) == 1
    assert capsys.readouterr().err == (
        "fdmux: message 1 of 5: the reply is not what was sent; no echo server?\n"
    )


def drain(connection: socket.socket) -> None:
    """Read until the client has gone."""
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(65536):
            pass


@pytest.mark.parametrize(
    "arguments",
    [
        ("", "80"),
        (HOST, "0"),
        (HOST, "65536"),
        (HOST, "http"),
        (HOST, "80", "--count", "0"),
        (HOST, "80", "--size", "65537"),
        (HOST, "80", "--timeout", "0"),
        (HOST, "80", "--timeout", "-1"),
        (HOST, "80", "--timeout", "nan"),
        (HOST, "80", "--timeout", "soon"),
        (HOST,),
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_usage_errors(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["ping", *arguments])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: fdmux ping ")
