"""Run trials of the drivers in one host: a program, so that a crash is one cell.

    python -m tests.adapters.hosted SCENARIO,... SILENT HOST MODULES NAME@ADDRESS@FD...

For each scenario it prints a line of JSON per library, and one of what was left behind.
The host is one of ``fdmux.testing.HOSTS``.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Protocol, cast

from tests.adapters.trials import Report

import fdmux
from fdmux.testing import HOSTS

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS_END_WITHIN = 5.0
ASK_SECONDS = 0.002


class Driver(Protocol):
    """A module that was built from drivers/module.c."""

    def begin(
        self,
        loop: object,
        scenario: str,
        address: str,
        silent: str,
        control: int,
        ended: Callable[[], None],
    ) -> None: ...

    def ask(self) -> bool: ...

    def finish(self) -> tuple[int, int, int, str]: ...

    def version(self) -> str: ...


def descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            continue  # the descriptor of listdir itself
    return found


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))


def threads_left(before: int) -> int:
    """Count the threads beyond ``before``; one that ends may take a moment."""
    deadline = time.monotonic() + THREADS_END_WITHIN
    while thread_count() > before and time.monotonic() < deadline:
        time.sleep(0.001)
    return thread_count() - before


def run(host_name: str, scenario: str, silent: str, given: list[list[str]]) -> None:
    """Run the trials of all given libraries at once in one loop; print the reports."""
    drivers = {
        name: cast("Driver", importlib.import_module(f"driver_{name}"))
        for name, *_rest in given
    }
    host = HOSTS[host_name]()
    left = len(given)
    mounts: list[fdmux.Mounted] = []

    def ended() -> None:
        nonlocal left
        left -= 1
        if not left:
            host.stop()

    def ask() -> None:
        """Use the libraries outside of the loop's functions, as Python code does."""
        asked = [driver.ask() for driver in drivers.values()]
        if any(asked):
            host.call_later(ASK_SECONDS, ask)

    def main() -> None:
        mounts.append(fdmux.mount(host.target()))
        for name, address, control in given:
            drivers[name].begin(
                mounts[0], scenario, address, silent, int(control), ended
            )
        ask()

    host.run(main)
    mounts[0].unmount()
    host.close()
    for name, driver in drivers.items():
        verified, failed, lost, error = driver.finish()
        report = Report(scenario, name, driver.version(), verified, failed, lost, error)
        sys.stdout.write(json.dumps(dataclasses.asdict(report)) + "\n")


def warm_up(host_name: str) -> None:
    """Let libraries make what they keep for the whole process."""
    host = HOSTS[host_name]()
    host.run(host.stop)
    host.close()
    with fdmux.NativeLoop():
        pass


def main() -> None:
    scenarios, silent, host, modules, *arguments = sys.argv[1:]
    given = [argument.split("@") for argument in arguments]
    sys.path.insert(0, modules)
    warm_up(host)
    for scenario in scenarios.split(","):
        before, threads = descriptors(), thread_count()
        run(host, scenario, silent, given)
        left = sorted(descriptors() - before)
        left += ["thread"] * threads_left(threads)
        sys.stdout.write(json.dumps({"left": left}) + "\n")


if __name__ == "__main__":
    main()
