"""EchoProcess: the handle of an echo service in a process of its own.

Its one rule: whatever happens, the process is ended and reaped, by its own id.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    Facts = dict[str, float]

PROGRAMS = Path(__file__).with_name("programs")
LONG = 60.0
POLL = 0.02


class LineProcess:
    """A program of the folder ``programs`` that answers each line with a line."""

    def __init__(self, program: str, *arguments: str) -> None:
        path = PROGRAMS / program
        self._process = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def hear(self, timeout: float = LONG) -> str:
        """Return its next line; fail if it ends, or says nothing in time."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            raise TimeoutError(f"process {self.pid} said nothing in {timeout} s")
        line = self._process.stdout.readline()
        assert line, f"process {self.pid} ended with {self._process.wait(LONG)}"
        return line.strip()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close its input and wait; kill it if it does not end."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            process.stdin.close()
            try:
                code = process.wait(LONG if error is None else 1.0)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait(LONG)
        if error is None:
            assert code == 0, f"process {self.pid} ended with {code}"


class EchoProcess(LineProcess):
    """The service; ``native`` is a folder with the module of examples/native-echo."""

    def __init__(self, *, native: Path | None = None, **limits: float | None) -> None:
        wanted: dict[str, object] = {"limits": limits}
        if native is not None:
            wanted = {"native": str(native)}
        super().__init__("echo_service.py", json.dumps(wanted))
        self.address = ("127.0.0.1", int(self.hear()))

    def facts(self) -> Facts:
        """Ask for the current facts."""
        self.say("facts")
        facts: Facts = json.loads(self.hear())
        return facts

    def spare(self, count: int) -> None:
        """Allow it ``count`` more descriptors; -1 lifts the limit."""
        self.say(f"spare {count}")
        self.hear()

    def short(self, size: int) -> None:
        """Let its receives and sends move ``size`` bytes at most; 0 lifts the limit.

        Only a test build can do that; another ignores it.
        """
        self.say(f"short {size}")
        self.hear()

    def facts_when(
        self, is_so: Callable[[Facts], bool], timeout: float = LONG
    ) -> Facts:
        """Return the first facts for which ``is_so`` holds, or the last ones."""
        deadline = time.monotonic() + timeout
        facts = self.facts()
        while not is_so(facts) and time.monotonic() < deadline:
            time.sleep(POLL)  # another process's state: there is nothing to wait on
            facts = self.facts()
        return facts
