"""Report: the results of the cases on one host or adapter, in a process of their own.

Its one rule: one that crashes, hangs or leaks does not affect the others. The child
prints a line of JSON for each case; a case without a line has failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import functools
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from fdmux.testing.adapter import Adapter
from fdmux.testing.cases import CASES, run_case
from fdmux.testing.cases_adapter import ADAPTER_CASES, run_adapter_case
from fdmux.testing.host import Host
from fdmux.testing.known import HOSTS

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = 60.0


@dataclasses.dataclass(frozen=True)
class Result:
    """How one case ended.

    Attributes:
        seconds: How long the case took.
        remark: The text that the case returned, or empty.
        error: The traceback; empty if the case passed.
    """

    case: str
    seconds: float = 0.0
    remark: str = ""
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """The results of the cases on one host or adapter.

    Attributes:
        missing: Why the host was not tested; then there are no results.
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
    """Return the host of that name, known to fdmux or written ``module:Class``.

    Raises:
        LookupError: There is no such host.
        ImportError: The module cannot be imported.
    """
    if name in HOSTS:
        return HOSTS[name]
    found = find_object(name)
    if not (isinstance(found, type) and issubclass(found, Host)):
        known = ", ".join(HOSTS)
        raise LookupError(  # noqa: TRY004 - the name is wrong, not a type
            f"no host {name!r}: name a module:Class, or one of {known}"
        )
    return found


def find_adapter(name: str) -> type[Adapter]:
    """Return the adapter that is written ``module:Class``.

    Raises:
        LookupError: It is not an `Adapter`.
        ImportError: The module cannot be imported.
    """
    found = find_object(name)
    if not (isinstance(found, type) and issubclass(found, Adapter)):
        raise LookupError(  # noqa: TRY004 - the name is wrong, not a type
            f"no adapter {name!r}: name a module:Class"
        )
    return found


def find_object(name: str) -> object:
    """Return the attribute ``module:attribute``; ``None`` without a colon."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute) if attribute else None


def examine(name: str, cases: tuple[str, ...] = ()) -> Report:
    """Run the named cases on a host, or all, in a process of its own."""
    host = find_host(name)
    if host.missing():
        return Report(host.name, missing=host.missing())
    results = run_apart("host", name, cases or tuple(CASES))
    return Report(host.name, host.version(), results=results)


def examine_adapter(name: str) -> Report:
    """Run all cases on an adapter, in a process of its own."""
    find_adapter(name)
    return Report(name, results=run_apart("adapter", name, tuple(ADAPTER_CASES)))


def run_apart(what: str, name: str, wanted: tuple[str, ...]) -> tuple[Result, ...]:
    """Run the cases in a child, and return their results."""
    output, errors = run_child([what, name, *wanted])
    results = {}
    for line in output.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            result = Result(**json.loads(line))
            results[result.case] = result
    why = f"the process ended without a result; its last output:\n{errors[-2000:]}"
    return tuple(results.get(case, Result(case, error=why)) for case in wanted)


def run_child(arguments: list[str]) -> tuple[str, str]:
    """Run the child; return its standard output and standard error."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    child = subprocess.Popen(  # noqa: S603 - this module itself
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
            return output, f"{errors}\nkilled after {TIMEOUT} s"


def runner(what: str, name: str) -> Callable[[str], str | None]:
    """Return the function that runs a case on that host or adapter."""
    if what == "adapter":
        return functools.partial(run_adapter_case, find_adapter(name))
    return functools.partial(run_case, find_host(name))


def run_here(what: str, name: str, cases: list[str]) -> None:
    """Run the cases in the child; print the result of each."""
    faulthandler.enable()
    run = runner(what, name)
    for case in cases:
        started = time.monotonic()
        try:
            result = Result(case, remark=run(case) or "")
        except BaseException:  # noqa: BLE001 - any error is the result
            result = Result(case, error=traceback.format_exc())
        took = round(time.monotonic() - started, 3)
        line = json.dumps(dataclasses.asdict(dataclasses.replace(result, seconds=took)))
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    run_here(sys.argv[1], sys.argv[2], sys.argv[3:])
