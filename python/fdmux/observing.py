"""Observing a loop: what it measures, and who is told.

Its one rule: an observer cannot break the loop. What it raises is logged, and the loop
goes on. Only ``KeyboardInterrupt`` and ``SystemExit`` are raised by ``run``.

C measures (csrc/python/probe.c, aio_observed.c), and loop/observed.py what is called
from Python; this file tells observers. A loop without observers measures nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import operator
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from fdmux._delivery import LAG_BOUNDS, Probe
from fdmux.checks import check_callable, checked_seconds, refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from fdmux.checks import Seconds

    class Measured(Protocol):
        """A loop, as this file needs it."""

        def attach(self, probe: Probe | None) -> None:
            """Measure with ``probe`` from now on; None: no longer."""

        def refused(self) -> int:
            """Return how many clients its servers have refused; from any thread."""


logger = logging.getLogger(__name__)

SLOW = 0.1  # as asyncio's slow_callback_duration
INTERVAL = 1.0
# Batches of at most so many calls; the last count of `Report.batch_sizes` is of larger
# ones.
SIZE_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclasses.dataclass(frozen=True)
class Report:
    """What a loop has done since `observe` was called. All numbers only grow.

    Attributes:
        elapsed: Seconds since then.
        calls: Callbacks that were called.
        batch_sizes: Batches by the number of their calls: of at most 1, 2, 4, 8, ...,
            1,024, and of more. A batch is a row of calls: of the streams and endpoints
            that one wait found, of descriptors, timers, posted calls, tasks.
        busy: Seconds that these batches took.
        lags: Callbacks by how late they were: at most 1, 2, 5, 10, 20, 50, 100, 200 or
            500 ms, 1 s, and later. A timer is late by the time since its deadline, any
            other callback by the time since its batch began.
        lag: By how many seconds all of them were late together.
        accepted: Clients that servers have accepted.
        refused: Clients that were closed at once, since ``connection_max`` were
            connected.
        shortages: How often servers had to stop accepting for a while, since there
            were no descriptors or memory left.
    """

    elapsed: float
    calls: int
    batch_sizes: tuple[int, ...]
    busy: float
    lags: tuple[int, ...]
    lag: float
    accepted: int
    refused: int
    shortages: int

    # The upper bounds of all counts but the last in `batch_sizes`, and in `lags`.
    SIZE_BOUNDS = SIZE_BOUNDS
    LAG_BOUNDS = LAG_BOUNDS

    def since(self, earlier: Report) -> Report:
        """Return what has happened between ``earlier``, of the same loop, and this."""
        return Report(
            elapsed=self.elapsed - earlier.elapsed,
            calls=self.calls - earlier.calls,
            batch_sizes=difference(self.batch_sizes, earlier.batch_sizes),
            busy=self.busy - earlier.busy,
            lags=difference(self.lags, earlier.lags),
            lag=self.lag - earlier.lag,
            accepted=self.accepted - earlier.accepted,
            refused=self.refused - earlier.refused,
            shortages=self.shortages - earlier.shortages,
        )


def difference(later: tuple[int, ...], earlier: tuple[int, ...]) -> tuple[int, ...]:
    """Subtract each number."""
    return tuple(map(operator.sub, later, earlier))


class Observer:
    """What `observe` of a loop takes: any object that has some of these methods.

    Order:   Called between two callbacks of the loop, or in its timer.
    Threads: The loop's.
    """

    def on_slow(self, what: str, duration: float) -> None:
        """Called when a callback has taken long.

        Args:
            what: Its name, such as ``"Echo.on_data"``; of a task, that of its
                coroutine.
            duration: Seconds.
        """

    def on_report(self, report: Report) -> None:
        """Called about once in each interval, and a last time by `Observation.end`.

        After the first callback when the interval is over: not while the loop sleeps.
        """


class Observation:
    """What `observe` of a loop returns: reads the numbers, and ends the observation.

    Also a context manager, which ends it.
    """

    def __init__(
        self, observers: Observers, observer: object, slow: float, interval: float
    ) -> None:
        self.observers: Observers = observers
        self._on_slow = method_of(observer, "on_slow")
        self._on_report = method_of(observer, "on_report")
        self._interval = interval
        self._begin = observers.read()
        self._end: Report | None = None
        self.slow: float = inf if self._on_slow is None else slow
        due = self._begin.elapsed + interval
        self.due: float = inf if self._on_report is None else due

    def report(self) -> Report:
        """Return what the loop has done so far, or until `end`.

        Threads: Any.
        """
        return self._end or self.observers.read().since(self._begin)

    def end(self) -> None:
        """End the observation: nothing is measured any more. Idempotent.

        Threads: The loop's; any, if the loop does not run.
        """
        if self._end is None:
            self._end = self.report()
            # If that happens while the observers are told, this one is told no more.
            self.slow = self.due = inf
            self.observers.remove(self)
            tell(self._on_report, self._end)

    def tell_slow(self, target: object, what: str, duration: float) -> None:
        """Tell the observer of a call, if that was slow."""
        if duration >= self.slow:
            tell(self._on_slow, describe(target, what), duration)

    def tell_due(self, now: float) -> None:
        """Make a report, if that is due."""
        if now >= self.due:
            self.due = now + self._interval
            tell(self._on_report, self.report())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()


class Observers:
    """The observations of one loop, which share one probe.

    Attributes:
        probe: What the loop measures with while there is an observation.
    """

    def __init__(self, loop: Measured) -> None:
        self._loop = loop
        self.probe: Probe = Probe(self.tell_slow, self.tell_due)
        self._observations: tuple[Observation, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether there is an observation."""
        return bool(self._observations)

    def observe(
        self, observer: object, slow: Seconds, interval: Seconds
    ) -> Observation:
        """Begin an observation; see `SelectorEventLoop.observe`.

        Raises:
            TypeError: ``observer`` has neither method, or one that cannot be called; or
                a time is not a number.
            ValueError: ``slow`` is negative or NaN, or ``interval`` is not above 0.
        """
        check_observer(observer)
        slow = checked_slow(slow, "slow")
        interval = checked_seconds(interval, "interval")
        if interval <= 0:
            raise ValueError(refusal("interval", interval, "more than 0 seconds"))
        return self.add(Observation(self, observer, slow, interval))

    def add(self, observation: Observation) -> Observation:
        """Begin this one."""
        self._observations = (*self._observations, observation)
        self.adjust()
        if len(self._observations) == 1:
            self._loop.attach(self.probe)
        return observation

    def remove(self, observation: Observation) -> None:
        """End this one; without any, the loop measures nothing."""
        self._observations = tuple(
            other for other in self._observations if other is not observation
        )
        self.adjust()
        if not self._observations:
            self._loop.attach(None)

    def adjust(self) -> None:
        """Say when C has to tell at least one observation something."""
        self.probe.set(
            min((it.slow for it in self._observations), default=inf),
            min((it.due for it in self._observations), default=inf),
        )

    def tell_slow(self, target: object, what: str, duration: float) -> None:
        """Tell of a slow call; called by C."""
        for observation in self._observations:
            observation.tell_slow(target, what, duration)

    def tell_due(self) -> None:
        """Make the reports that are due; called by C."""
        now = monotonic()
        for observation in self._observations:
            observation.tell_due(now)
        self.adjust()

    def read(self) -> Report:
        """Return the numbers since the first observation. Any thread."""
        probe = self.probe
        calls, sizes, busy, lags, lag = probe.read()
        return Report(
            elapsed=monotonic(),
            calls=calls,
            batch_sizes=sizes,
            busy=busy,
            lags=lags,
            lag=lag,
            accepted=probe.accepted,
            refused=self._loop.refused(),
            shortages=probe.shortages,
        )


def tell(method: Callable[..., object] | None, *args: object) -> None:  # type: ignore[explicit-any] # a user's method
    """Call a method of an observer, and log what it raises."""
    if method is None:
        return
    try:
        method(*args)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        logger.exception("an observer raised in %r", method)


def method_of(observer: object, name: str) -> Callable[..., object] | None:  # type: ignore[explicit-any] # a user's method
    """Return a method of an observer; None if it has none, or that of `Observer`."""
    method = getattr(observer, name, None)
    if getattr(method, "__func__", None) is vars(Observer)[name]:
        return None
    return method


def checked_slow(value: Seconds, name: str) -> float:
    """Return from how many seconds on a callback is slow.

    Raises:
        TypeError: It is not a number.
        ValueError: It is negative, or NaN.
    """
    slow = checked_seconds(value, name)
    if slow < 0:
        raise ValueError(refusal(name, slow, "0 or more seconds"))
    return slow


def check_observer(observer: object) -> None:
    """Refuse what is no observer.

    Raises:
        TypeError: It has neither method, or one that cannot be called.
    """
    found = False
    for name in ("on_slow", "on_report"):
        method = getattr(observer, name, None)
        if method is not None:
            check_callable(f"{name} of the observer", method)
            found = True
    if not found:
        raise TypeError(
            f"observe with {observer!r}: it has neither on_slow() nor on_report()"
        )


def describe(target: object, what: str) -> str:
    """Return the name of what was called; the type's, where the object refuses its own.

    It reads attributes of the program's objects, which may raise anything.

    Args:
        target: A stream, an endpoint or a transport, if ``what`` is the method of its
            handler or protocol; otherwise the callback itself.
    """
    try:
        return name_of(target, what)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - as said above
        return type(target).__qualname__


def name_of(target: object, what: str) -> str:
    """Return the name of what was called; see `describe`."""
    if what:
        return f"{type(owner_of(target)).__qualname__}.{what}"
    while isinstance(target, functools.partial):
        target = target.func
    coroutine = coroutine_of(getattr(target, "__self__", None))
    named = target if coroutine is None else coroutine
    name = getattr(named, "__qualname__", None)
    return name if isinstance(name, str) else type(named).__qualname__


def owner_of(target: object) -> object:
    """Return the handler of a stream or endpoint, the protocol of a transport."""
    for name in ("_handler", "_client_handler", "_protocol"):
        found: object = getattr(target, name, None)
        if found is not None:
            return found
    return target


def coroutine_of(task: object) -> object:
    """Return the coroutine of a task of asyncio; None for anything else."""
    get_coro = getattr(task, "get_coro", None)
    return get_coro() if callable(get_coro) else None
