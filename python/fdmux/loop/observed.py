"""ObservedIteration: one iteration of a `SelectorEventLoop` that is observed.

It does what `Iteration` does, and looks at the clock after each callback. While a loop
is observed, its iteration has this class; a loop that is not observed runs nothing of
this file. What C calls is measured there.
"""

from __future__ import annotations

from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, cast

from fdmux._ffi import lib
from fdmux._native import c_loop_of
from fdmux.loop.iteration import Iteration
from fdmux.loop.timers import TimerHandle
from fdmux.observing import Observers

if TYPE_CHECKING:
    import collections
    from collections.abc import Sequence

    from _typeshed import FileDescriptorLike

    from fdmux._delivery import Delivery, Probe
    from fdmux.loop.interest import Interest, ReadyCallback, WatchedKey
    from fdmux.loop.timers import Handle


class MeasuredLoop:
    """A `SelectorEventLoop`, as its `Observers` need it."""

    def __init__(self, iteration: Iteration) -> None:
        self._iteration = iteration

    def attach(self, probe: Probe | None) -> None:
        """Measure from now on, or no longer."""
        iteration = self._iteration
        if type(iteration) is Iteration:
            iteration.__class__ = ObservedIteration
        cast("ObservedIteration", iteration).attach(probe)

    def refused(self) -> int:
        """Return how many clients its servers have refused. Any thread."""
        core = self._iteration.core
        native = core.inside or core.beside
        return 0 if native is None else lib.fdmux_py_stream_refused(c_loop_of(native))


class ObservedIteration(Iteration):
    """What an observed loop works on."""

    __slots__ = ()
    observers: Observers  # of an observed loop, there are some

    def attach(self, probe: Probe | None) -> None:
        """Be this class as long as there is a probe, and let C measure with it."""
        if probe is None and type(self) is ObservedIteration:
            self.__class__ = Iteration  # type: ignore[assignment] # which has its slots
        if self.core.delivery is not None:
            self.core.delivery.observe(probe)

    def delivery(self) -> Delivery:
        """Return what the streams of the loop share, which is observed too."""
        had_delivery = self.core.delivery is not None
        delivery = super().delivery()
        if not had_delivery:
            delivery.observe(self.observers.probe)
        return delivery

    def _deliver(self, ready: Sequence[tuple[WatchedKey, int]]) -> int:
        """Call the callbacks of one batch, as `Iteration` does."""
        self.observers.probe.begin()
        count = 0
        for key, events in ready:
            interest = key.data
            fileno = interest.fileno
            try:
                if fileno is not None and fileno() != interest.fd:
                    self.table.drop(interest)
                elif events == EVENT_READ and interest.on_read is not None:
                    measure(self, interest, interest.on_read, interest.reader)
                    count += 1
                else:
                    count += call_each(self, interest, events)
            except Exception as error:
                if self._error_hook is None:
                    raise
                count += 1
                self._error_hook(error, interest.source_of(events))
        return count

    def _make_calls(self, calls: collections.deque[Handle]) -> int:
        """Make the calls that wait now, as `Iteration` does."""
        probe = self.observers.probe
        count = 0
        probe.begin()
        for _ in range(len(calls)):
            handle = calls.popleft()
            if handle.is_cancelled:
                continue
            lag = (
                (self.clock() - handle.deadline,)
                if isinstance(handle, TimerHandle)
                else ()
            )
            try:
                count += handle.run()
            except Exception as error:
                if self._error_hook is None:
                    raise
                count += 1
                self._error_hook(error, handle.source)
            finally:
                if probe.lap(*lag):
                    self._tell(handle, handle.source)
        return count

    def _tell(self, _holder: Interest | Handle | None, callback: object) -> None:
        """Tell of a callback of Python; ``_holder`` is what it was kept in."""
        self.observers.probe.tell(callback)


# Functions, not methods: a callback may end the observation, and then the iteration is
# of the other class for the rest of the batch.
def call_each(iteration: ObservedIteration, interest: Interest, events: int) -> int:
    """Call the callbacks of a descriptor; return how many were called."""
    count = 0
    if events & EVENT_READ and interest.on_read is not None:
        measure(iteration, interest, interest.on_read, interest.reader)
        count = 1
    # Read only now: `on_read` may have removed it.
    if events & EVENT_WRITE and interest.on_write is not None:
        measure(iteration, interest, interest.on_write, interest.writer)
        count += 1
    return count


def measure(
    iteration: ObservedIteration,
    interest: Interest,
    callback: ReadyCallback,
    fileobj: FileDescriptorLike,
) -> None:
    """Make one call."""
    wakes = iteration._wakes_seen  # noqa: SLF001 - a method but for the class
    try:
        callback(fileobj)
    finally:
        probe = iteration.observers.probe
        if iteration._wakes_seen != wakes:  # noqa: SLF001 - no callback of the user's
            probe.skip()
        elif probe.lap():
            iteration._tell(interest, callback)  # noqa: SLF001 - as above


def observers_of(iteration: Iteration) -> Observers:
    """Return the observers of a loop, which is measured as soon as there are some."""
    observers = iteration.observers
    if observers is None:
        observers = Observers(MeasuredLoop(iteration))
        iteration.observers = observers
    return observers
