"""Trials: start the program that runs them, and kill servers as it asks.

Its one rule: servers are killed and started in this thread, as Server demands.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from tests.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from tests.adapters.servers import Server

SECONDS_MAX = 120.0  # for a program; trial.c has a limit for each scenario
PLAIN = "plain C"
HOSTS = (
    "SelectorEventLoop",
    "fdmux.hosts.asyncio",
    "asyncio",
    "uvloop",
    "trio",
    "gevent",
    PLAIN,
)
SCENARIOS = (
    "requests",
    "timeout",
    "reconnect",
    "destroy",
    "close of the loop",
    "announced close",
    "outside",
)
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


@dataclasses.dataclass
class Report:
    """How one library did in one scenario."""

    scenario: str
    library: str
    version: str
    verified: int
    failed: int
    lost: int
    error: str


@contextlib.contextmanager
def silent_address() -> Iterator[str]:
    """Listen, and never accept: the kernel connects, and nobody answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def command_of(
    host: str, program: Path, scenarios: Iterable[str], silent: str
) -> list[str]:
    if host == PLAIN:
        return [str(program), ",".join(scenarios), silent]
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.adapters.hosted"]
    return [*command, ",".join(scenarios), silent, host, str(program)]


def serve(
    process: subprocess.Popen[str], controls: Mapping[socket.socket, Server]
) -> None:
    """Do as the trials ask, until the process has ended."""
    deadline = time.monotonic() + SECONDS_MAX
    end = os.pidfd_open(process.pid)
    try:
        while time.monotonic() < deadline:
            watched: list[int | socket.socket] = [end, *controls]
            ready, _, _ = select.select(watched, [], [], 1.0)
            if end in ready:
                return
            for control in controls.keys() & set(ready):
                letter = control.recv(1)
                if letter == b"k":
                    controls[control].kill()
                else:
                    controls[control].start()
                control.send(letter)
        process.kill()
        raise AssertionError(f"{process.args!r} takes longer than {SECONDS_MAX} s")
    finally:
        os.close(end)


def run_trials(
    host: str, program: Path, scenarios: Iterable[str], servers: Mapping[str, Server]
) -> list[Report]:
    """Run each scenario with all libraries of ``servers`` in one new loop of ``host``.

    ``program`` is the plain C program, or the folder of the extension modules.
    """
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(silent_address())
        command = command_of(host, program, scenarios, silent)
        controls: dict[socket.socket, Server] = {}
        theirs = []
        for name, server in servers.items():
            ours, other = map(stack.enter_context, socket.socketpair())
            controls[ours] = server
            theirs.append(other.fileno())
            command.append(f"{name}@{server.address}@{other.fileno()}")
        errors = stack.enter_context(tempfile.TemporaryFile("w+"))
        process = stack.enter_context(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **SANITIZER_OPTIONS},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                pass_fds=theirs,
            )
        )
        serve(process, controls)
        output = process.stdout.read() if process.stdout is not None else ""
        process.wait()
        errors.seek(0)
        output_of_tools = errors.read()
    assert process.returncode == 0, (
        f"exit code {process.returncode}:\n{output}\n{output_of_tools}"
    )
    return parse(output)


def parse(output: str) -> list[Report]:
    """Read what hosted.py or plain.c has printed; fail if it left something behind."""
    reports: list[Report] = []
    for line in output.splitlines():
        said = json.loads(line)
        if "left" in said:
            assert said["left"] == [], f"left behind after {reports[-1]}: {said}"
        else:
            reports.append(Report(**said))
    return reports
