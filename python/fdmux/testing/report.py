"""Report: the cases on one host, in a process of its own.

Its one rule: a host that crashes, hangs or leaves something behind spoils no other. The
child says a line of JSON for each case; what it did not say has failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

from fdmux.testing.cases import CASES, run_case
from fdmux.testing.host import Host
from fdmux.testing.known import HOSTS

TIMEOUT = 60.0


@dataclasses.dataclass(frozen=True)
class Result:
    """How one case ended.

    Attributes:
        error: The traceback; empty when the case has passed.
        remark: What the case had to say, or nothing.
    """

    case: str
    seconds: float = 0.0
    remark: str = ""
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """What the kit found out about a host.

    Attributes:
        missing: Why it was not examined; then there are no results.
    """

    host: str
    version: str = ""
    missing: str = ""
    results: tuple[Result, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether no case has failed."""
        return not any(result.error for result in self.results)


def find_host(name: str) -> type[Host]:
    """Find a known host by its name, or any by ``module:Class``.

    Raises:
        LookupError: There is none.
    """
    if name in HOSTS:
        return HOSTS[name]
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute) if attribute else None
    if not (isinstance(found, type) and issubclass(found, Host)):
        known = ", ".join(HOSTS)
        raise LookupError(  # noqa: TRY004 - of no name, whatever it is
            f"no host {name!r}: name a module:Class, or one of {known}"
        )
    return found


def examine(name: str, cases: tuple[str, ...] = ()) -> Report:
    """Run cases on a host, all unless they are named, in a process of its own."""
    host = find_host(name)
    if host.missing():
        return Report(host.name, missing=host.missing())
    wanted = cases or tuple(CASES)
    output, errors = run_child([name, *wanted])
    said = {}
    for line in output.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            result = Result(**json.loads(line))
            said[result.case] = result
    why = f"the process said nothing of it; its last words:\n{errors[-2000:]}"
    return Report(
        host.name,
        host.version(),
        results=tuple(said.get(case, Result(case, error=why)) for case in wanted),
    )


def run_child(arguments: list[str]) -> tuple[str, str]:
    """Return what the child wrote to its output, and to its error output."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    child = subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", "fdmux.testing.report", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            return child.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            child.kill()
            output, errors = child.communicate()
            return output, f"{errors}\nended after {TIMEOUT} s"


def run_here(name: str, cases: list[str]) -> None:
    """Be the child: run the cases, and say how each ended."""
    faulthandler.enable()
    host = find_host(name)
    for case in cases:
        started = time.monotonic()
        try:
            result = Result(case, remark=run_case(host, case) or "")
        except BaseException:  # noqa: BLE001 - whatever it is, it is the result
            result = Result(case, error=traceback.format_exc())
        took = round(time.monotonic() - started, 3)
        line = json.dumps(dataclasses.asdict(dataclasses.replace(result, seconds=took)))
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    run_here(sys.argv[1], sys.argv[2:])
