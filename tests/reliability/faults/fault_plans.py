"""Plans of what fails, and how one attempt under a plan is judged.

A plan: the n-th call of one kind fails with one errno, once or from then on. A
scenario is a context manager that prepares everything, yields the function to attempt
while the plan is on, and afterwards uses what the attempt has left. The rule: an
exception says exactly what failed, and has no other effect.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from fdmux._ffi import lib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import FrameType

    Attempt = Callable[[], object]
    Scenario = Callable[[str], AbstractContextManager[Attempt]]

HANGS_AFTER = 10.0  # ends the run; the bar is lower
SCENARIOS: dict[str, Scenario] = {}

# The errors that each kind of call can fail with; see its manual page.
ERRORS: dict[str, tuple[int, ...]] = {
    "MEMORY": (errno.ENOMEM,),
    "CLOSE": (errno.EIO, errno.EINTR),
    "READ": (errno.EAGAIN, errno.EINTR),
    "WRITE": (errno.EAGAIN, errno.EINTR, errno.EPERM),
    "PIPE": (errno.EMFILE,),
    "WAIT": (errno.EINTR, errno.EBADF, errno.ENOMEM),
    "PWAIT2": (errno.EINTR, errno.ENOSYS, errno.EPERM, errno.EBADF),
    "EVENTFD": (errno.EMFILE, errno.ENOSYS),
    "EPOLL_CREATE": (errno.EMFILE, errno.ENOMEM),
    "EPOLL_CTL": (errno.ENOSPC, errno.ENOMEM),
    "TIMERFD": (errno.EMFILE, errno.EPERM),
    "RECV": (errno.EAGAIN, errno.EINTR, errno.ECONNRESET, errno.ENOMEM),
    "SEND": (errno.EAGAIN, errno.EINTR, errno.EPIPE, errno.ENOBUFS),
    "ACCEPT": (errno.EAGAIN, errno.EINTR, errno.ECONNABORTED, errno.EMFILE),
    "SOCKET": (errno.EMFILE, errno.EACCES, errno.ECONNREFUSED),
    "ANY": (errno.EMFILE,),
}
# The library retries these. EINTR too, unless it persists, as it never does.
UNNOTICED = {
    ("CLOSE", errno.EIO),
    ("READ", errno.EAGAIN),
    ("WRITE", errno.EAGAIN),
    ("PWAIT2", errno.ENOSYS),
    ("PWAIT2", errno.EPERM),
    ("EVENTFD", errno.ENOSYS),
    ("RECV", errno.EAGAIN),
    ("SEND", errno.EAGAIN),
    ("SEND", errno.ENOBUFS),
    ("ACCEPT", errno.EAGAIN),
    ("ACCEPT", errno.ECONNABORTED),
    ("ACCEPT", errno.EMFILE),
}


class Hang(BaseException):
    """An attempt did not end; a BaseException, so that no code catches it."""


class Plan(NamedTuple):
    """The ``nth`` call of ``kind`` fails with ``error``, and all later ones, or not."""

    kind: str
    error: int
    persistent: bool
    nth: int

    def __str__(self) -> str:
        how = "and all later ones" if self.persistent else "alone"
        return f"{self.kind} call {self.nth} {how}: {errno.errorcode[self.error]}"

    @property
    def is_unnoticed(self) -> bool:
        return self.error == errno.EINTR or (self.kind, self.error) in UNNOTICED

    def start(self) -> None:
        kinds = getattr(lib, f"FDMUX_CALL_{self.kind}")
        lib.fdmux_testing_fail(kinds, self.nth, self.error, self.persistent)


CURRENT: list[Plan] = []


class Tally:
    """The counts of all plans together."""

    def __init__(self) -> None:
        self.injections = 0
        self.raised = 0
        self.longest = 0.0


def scenario(prepare: Callable[[str], Iterator[Attempt]]) -> Scenario:
    """Enter a generator of (backend) among the scenarios."""
    SCENARIOS[prepare.__name__] = contextlib.contextmanager(prepare)
    return SCENARIOS[prepare.__name__]


def balance() -> tuple[int, int]:
    """Count the open descriptors and the blocks of memory."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), lib.fdmux_testing_allocations()


def on_hang(_number: int, _frame: FrameType | None) -> None:
    raise Hang


@contextlib.contextmanager
def watched(tally: Tally) -> Iterator[None]:
    """Measure the time a block takes; raise if it hangs."""
    previous = signal.signal(signal.SIGALRM, on_hang)
    signal.setitimer(signal.ITIMER_REAL, HANGS_AFTER)
    began = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        tally.longest = max(tally.longest, time.monotonic() - began)


def judge(error: Exception, plan: Plan) -> None:
    """Check that the exception is the one for this failure."""
    assert not plan.is_unnoticed, f"{plan} was noticed: {error!r}"
    if plan.error == errno.ENOMEM or isinstance(error, MemoryError):
        assert isinstance(error, MemoryError), repr(error)
        assert plan.kind in {"MEMORY", "ANY"} or plan.error == errno.ENOMEM
    else:
        assert isinstance(error, OSError), repr(error)
        assert error.errno == plan.error, repr(error)


def explain(error: Exception | None) -> None:
    """Check that a stream ended with the plan's error, or normally."""
    if error is None:
        return
    (plan,) = CURRENT
    assert not plan.is_unnoticed, f"{plan} ended a stream: {error!r}"
    assert isinstance(error, OSError), repr(error)
    assert error.errno in {plan.error, errno.ENOMEM}, f"{plan}: {error!r}"


def attempt_under(plan: Plan, attempt: Attempt, tally: Tally) -> int:
    """Run the attempt with the plan on; return how many calls it made."""
    with watched(tally):
        plan.start()
        try:
            attempt()
        except (OSError, MemoryError) as error:
            tally.raised += 1
            judge(error, plan)
        finally:
            calls: int = lib.fdmux_testing_calls()
            lib.fdmux_testing_fail(0, 0, 0, 0)
    return calls


def run_plan(prepare: Scenario, backend: str, plan: Plan, tally: Tally) -> int:
    """Run a scenario under a plan; return how many calls of that kind it made."""
    try:
        CURRENT[:] = [plan]
        with prepare(backend) as attempt:
            calls = attempt_under(plan, attempt, tally)
    except BaseException:
        print(plan)  # noqa: T201 - shown when the test fails
        raise
    tally.injections += calls >= plan.nth > 0
    return calls


def run_kind(prepare: Scenario, backend: str, kind: str, tally: Tally) -> None:
    """Fail each call of a kind in turn, with each errno, once and for ever."""
    before = balance()
    if run_plan(prepare, backend, Plan(kind, errno.ENOMEM, False, 0), tally) == 0:
        return  # the scenario makes no such calls
    for error in ERRORS[kind]:
        for persistent in (False, True):
            if (kind, persistent) == ("ANY", False) or (persistent, error) == (
                True,
                errno.EINTR,
            ):
                continue  # covered by the single kinds; EINTR for ever does not happen
            nth = 1
            while (
                run_plan(prepare, backend, Plan(kind, error, persistent, nth), tally)
                >= nth
            ):
                assert balance() == before, Plan(kind, error, persistent, nth)
                nth += 1
