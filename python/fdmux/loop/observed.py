"""ObservedIteration: one iteration of a `SelectorEventLoop` that is observed.

It does what `Iteration` does, and looks at the clock after each callback. While a loop
is observed, its iteration has this class; a loop that is not observed runs nothing of
this file. What C calls is measured there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from fdmux._ffi import lib
from fdmux._native import c_loop_of
from fdmux.loop.iteration import Iteration, call_both
from fdmux.loop.timers import TimerHandle
from fdmux.observing import Observers

if TYPE_CHECKING:
    import collections
    from collections.abc import Sequence

    from fdmux._delivery import Delivery, Probe
    from fdmux.loop.interest import Interest, WatchedKey
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

    def _deliver(  # noqa: C901 - the hot path stays one frame
        self, ready: Sequence[tuple[WatchedKey, int]]
    ) -> int:
        """Call the callbacks of one batch, as `Iteration` does."""
        probe = self.observers.probe
        lap = probe.lap
        wakes = self._wakes_seen
        count = len(ready)
        events_left = iter(ready)
        probe.begin()
        while True:
            interest: Interest | None = None
            events = 0
            callback: object = None
            try:
                for key, events in events_left:
                    interest = key.data
                    fileno = interest.fileno
                    if fileno is not None and fileno() != interest.fd:
                        self.table.drop(interest)
                        count -= 1
                        continue
                    if events == 1:
                        callback = interest.on_read
                        if callback is not None:
                            callback(interest.reader)
                        else:
                            count -= 1
                    else:
                        callback = interest.on_read or interest.on_write
                        count += call_both(interest, events) - 1
                    if self._wakes_seen != wakes:  # no callback of the user's
                        wakes = self._wakes_seen
                        probe.skip()
                    elif lap():
                        self._tell(interest, callback)
                return count  # noqa: TRY300 - the loop ends here, not the try
            except Exception as error:
                if lap():
                    self._tell(interest, callback)
                if self._error_hook is None:
                    raise
                self._error_hook(error, interest and interest.source_of(events))

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


def observers_of(iteration: Iteration) -> Observers:
    """Return the observers of a loop, which is measured as soon as there are some."""
    observers = iteration.observers
    if observers is None:
        observers = Observers(MeasuredLoop(iteration))
        iteration.observers = observers
    return observers
