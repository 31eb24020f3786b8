"""Counts user-space instructions per message or event, with valgrind's callgrind.

Nearly the same on every run and every machine load, but blind to the kernel, where an
echo server spends most of its time: read it beside CPU time, not instead. Two runs of
different length are subtracted, so that starting and connecting drop out.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.availability import Unavailable
from benchmarks.build import ROOT
from benchmarks.contenders import ROUND_SECONDS, Program
from benchmarks.processes import Failed, Load, Server

if TYPE_CHECKING:
    from collections.abc import Sequence

MESSAGES_PER_CONNECTION = 10
MESSAGES_MIN = 500
COLLECTED = re.compile(r"Collected : (\d+)")


def instructions_per_message(name: str, command: Sequence[str], load: Load) -> float:
    """Return the user-space instructions that one message costs the server."""
    if shutil.which("valgrind") is None:
        raise Unavailable("--instructions needs valgrind")
    messages = max(MESSAGES_MIN, load.connections * MESSAGES_PER_CONNECTION)
    few = dataclasses.replace(load, warmup=load.connections, messages=messages)
    many = dataclasses.replace(few, messages=3 * messages)
    few_messages, few_instructions = _count(name, command, few)
    many_messages, many_instructions = _count(name, command, many)
    return (many_instructions - few_instructions) / (many_messages - few_messages)


def instructions_of_program(command: Sequence[str]) -> int:
    """Return all instructions of a program that runs by itself."""
    if shutil.which("valgrind") is None:
        raise Unavailable("counting instructions needs valgrind")
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        try:
            done = subprocess.run(
                [*_valgrind(log), *command],
                cwd=ROOT,
                env=environment,
                timeout=ROUND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(str(error)) from None
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)} ended with status {done.returncode}")
        return _collected(log, command[0])


def instructions_of(command: Sequence[str]) -> int:
    """Return all instructions of a program that runs one round (contenders.py)."""
    if shutil.which("valgrind") is None:
        raise Unavailable("--instructions needs valgrind")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        program = Program(command[0], [*_valgrind(log), *command], None)
        try:
            program.run_round()
            program.close_input()
            program.process.wait(ROUND_SECONDS)
        finally:
            program.end()
        return _collected(log, command[0])


def _count(name: str, command: Sequence[str], load: Load) -> tuple[int, int]:
    """Return how many messages were echoed, and all instructions of the server."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        server = Server(name, [*_valgrind(log), *command], None)
        try:
            with load.started(name, server.port) as generator:
                messages = generator.run_messages()
        finally:
            server.end()
        return messages, _collected(log, name)


def _valgrind(log: Path) -> tuple[str, ...]:
    return (
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        f"--log-file={log}",
    )


def _collected(log: Path, name: str) -> int:
    found = COLLECTED.search(log.read_text())
    if found is None:
        raise Failed(f"callgrind reported no count for {name}")
    return int(found[1])
