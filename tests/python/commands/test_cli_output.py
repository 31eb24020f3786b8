"""What commands print for programs, for terminals, and for shells."""

from __future__ import annotations

import errno
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fdmux import EchoServer
from fdmux.__main__ import main
from fdmux.commands import tour
from fdmux.commands.tour.expect import UnexpectedError

if TYPE_CHECKING:
    import io

LONG = 60.0
HOST = "127.0.0.1"
COLOUR = "\x1b["


# JSON -----------------------------------------------------------------------------


def test_ping_prints_every_time_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with EchoServer(port=0) as server:
        server.run_in_thread()
        port = server.address[1]
        assert main(["ping", HOST, str(port), "--count", "3", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    facts = json.loads(line)
    times = facts.pop("round_trip_seconds")
    assert len(times) == 3
    assert all(0 < time < LONG for time in [*times, facts.pop("connect_seconds")])
    assert facts == {"host": HOST, "port": port, "size": 64}


def test_demo_prints_its_steps_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> str:
        raise UnexpectedError("no")

    steps = (("good", lambda: "seen"), ("bad", fail))
    monkeypatch.setattr(tour, "STEPS", steps)
    assert main(["demo", "--json"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    facts = json.loads(line)
    assert facts.pop("seconds") >= 0
    assert facts == {
        "steps": [
            {"title": "good", "passed": True, "seen": "seen", "skipped": False},
            {
                "title": "bad",
                "passed": False,
                "seen": "UnexpectedError: no",
                "skipped": False,
            },
        ],
        "failed": 1,
    }


def test_echo_prints_its_address_and_counters_as_json() -> None:
    command = [sys.executable, "-m", "fdmux", "echo", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            place = json.loads(process.stdout.readline())["listening"]
            address = (place["host"], place["port"])
            with socket.create_connection(address, timeout=LONG) as sock:
                sock.sendall(b"hello")
                assert sock.recv(5, socket.MSG_WAITALL) == b"hello"
            process.send_signal(signal.SIGTERM)
            (last,) = process.stdout.read().splitlines()
            assert process.wait(timeout=LONG) == 0
        finally:
            process.kill()
    counters = json.loads(last)
    assert (counters["accepted"], counters["bytes_in"]) == (1, 5)


# Colours --------------------------------------------------------------------------


def demo_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a demo of two steps, one of which fails, and return what is shown."""

    def fail() -> str:
        raise UnexpectedError("no")

    monkeypatch.setattr(tour, "STEPS", (("good", lambda: "seen"), ("bad", fail)))
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        with os.fdopen(theirs, "w", encoding="utf-8") as shown:
            monkeypatch.setattr(sys, "stdout", shown)
            assert main(["demo"]) == 1
        return read_to_the_end(terminal).decode()


def read_to_the_end(terminal: io.RawIOBase) -> bytes:
    """Return all that was shown; each read has a part of it only."""
    parts: list[bytes] = []
    while True:
        try:
            parts.append(terminal.read(65536))
        except OSError as error:  # Linux: nobody has the other side any more
            if error.errno != errno.EIO:
                raise
            break
        if not parts[-1]:
            break
    return b"".join(parts)


def test_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    good, bad, summary = demo_on_a_terminal(monkeypatch).splitlines()
    assert good.startswith("\x1b[32mok\x1b[0m      good ")
    assert bad.startswith("\x1b[31mFAILED\x1b[0m  bad  ")
    assert "\x1b[31m1 FAILED\x1b[0m" in summary


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_terminal_gets_no_colours_that_are_not_wanted(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    shown = demo_on_a_terminal(monkeypatch)
    assert shown.startswith("ok      good ")
    assert COLOUR not in shown


def test_file_gets_no_colours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(tour, "STEPS", (("good", lambda: "seen"),))
    assert main(["demo"]) == 0
    assert COLOUR not in capsys.readouterr().out


# Completion -----------------------------------------------------------------------


def test_completion_without_its_package_is_a_failure_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("argcomplete", "argcomplete.shell_integration"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["completion", "bash"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("fdmux: complete in bash: ")
    assert error.endswith("; pip install argcomplete\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_code_for_the_shell(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("argcomplete")
    assert main(["completion", shell]) == 0
    assert "fdmux" in capsys.readouterr().out


COMPLETE = """
eval "$(fdmux completion bash)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9
_python_argcomplete fdmux
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fdmux ", {"demo", "echo", "ping", "info", "completion"}),
        ("fdmux ec", {"echo"}),
        ("fdmux echo --tls", {"--tls-cert", "--tls-key"}),
        ("fdmux completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_bash_completes_commands_options_and_values(
    line: str, offered: set[str]
) -> None:
    pytest.importorskip("argcomplete")
    scripts = sysconfig.get_path("scripts")
    if not (Path(scripts) / "fdmux").exists():
        pytest.skip("fdmux is not installed as a command")
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", line],
        env={**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    found = {word.strip() for word in done.stdout.splitlines()}
    is_option = line.endswith("--tls")
    assert {word for word in found if word.startswith("--") == is_option} >= offered
    assert {word for word in found if is_option or word[0] != "-"} == offered
