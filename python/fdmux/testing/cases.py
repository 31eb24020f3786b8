"""CASES: what native code may rely on under every host, one function each.

Its one rule: a case uses only what every host has (host.py) and what native code has
(native.py). A case gets the class of a host, makes one or more of them, and closes
them. It returns a remark to print, or nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fdmux.testing import cases_io, cases_life, cases_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from fdmux.testing.host import Host

    Case = Callable[[type[Host]], str | None]

CASES: dict[str, Case] = {
    case.__name__: case
    for case in (
        cases_io.fd_ready,
        cases_io.several_watchers,
        cases_io.fd_reuse,
        cases_io.half_close,
        cases_io.hangup_error_priority,
        cases_io.removal_in_callbacks,
        cases_io.fairness,
        cases_time.timer_of_200_us,
        cases_time.timers_of_0_ms,
        cases_time.posts_from_threads,
        cases_time.hooks_before_waits,
        cases_life.python_exception,
        cases_life.native_error,
        cases_life.closed_with_watchers,
        cases_life.close_announced,
        cases_life.run_twice,
        cases_life.two_threads,
        cases_life.fork,
        cases_life.keyboard_interrupt,
    )
}


def run_case(host: type[Host], name: str) -> str | None:
    """Run one case on a host.

    Raises:
        AssertionError: The host does not do what the case requires.
        Exception: The host failed in another way.
        KeyError: There is no such case.
        RuntimeError: Python runs with -O, without asserts.
    """
    if not __debug__:
        raise RuntimeError(
            "run a case: Python runs with -O, which removes the asserts of the case"
        )
    return CASES[name](host)
