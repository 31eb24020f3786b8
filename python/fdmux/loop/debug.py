"""DebugIteration: what a `SelectorEventLoop` looks at in debug mode.

It is an observed loop (observed.py) whose observer logs slow callbacks, with tables
that remember where each entry was made. A loop that is made without debug mode has none
of these classes.

Its one rule: it warns, with the place in the program where the thing was made. Only a
call in a wrong thread raises, as in asyncio: what it would do is not defined.
"""

from __future__ import annotations

import collections
import logging
import os
from threading import get_ident
from typing import TYPE_CHECKING

from fdmux.debug_selector import DebugSelector
from fdmux.debugging import (
    place_of_caller,
    place_of_function,
    state,
    warn_misuse,
    warn_unclosed,
)
from fdmux.loop.interest import InterestTable
from fdmux.loop.iteration import Iteration
from fdmux.loop.observed import ObservedIteration, observers_of
from fdmux.loop.timers import Handle, TimerHandle, TimerQueue
from fdmux.observing import INTERVAL, Observation, Observers, describe

if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable, Iterator

    from _typeshed import FileDescriptorLike

    from fdmux._delivery import Delivery, Endpoint, Stream
    from fdmux.loop.interest import Interest, ReadyCallback, WatchedKey
    from fdmux.loop.iteration import ErrorHook

    # How to warn of what is left, the text, and the object.
    Left = tuple[Callable[[str, object], None], str, object]

logger = logging.getLogger("fdmux.loop")


class DebugTable(InterestTable):
    """Watched descriptors, with the places where they were registered."""

    iteration: DebugIteration | None = None

    def add(
        self, fileobj: FileDescriptorLike, event: int, callback: ReadyCallback
    ) -> None:
        """Register, and remember where."""
        self._check_thread("register a descriptor")
        super().add(fileobj, event, callback)
        interest = self._find(fileobj)
        if interest is not None:
            is_own = isinstance(getattr(callback, "__self__", None), Iteration)
            interest.place = None if is_own else place_of_caller()

    def discard(self, fileobj: FileDescriptorLike, events: int = 3) -> None:
        """Unregister."""
        self._check_thread("unregister a descriptor")
        super().discard(fileobj, events)

    def _check_thread(self, attempted: str) -> None:
        if self.iteration is not None:
            self.iteration.check_thread(attempted)

    def _extend(
        self, interest: Interest, fileobj: FileDescriptorLike, event: int
    ) -> Interest:
        extended = super()._extend(interest, fileobj, event)
        if extended is not interest:
            warn_closed(interest)
        return extended

    def _forget(self, interest: Interest) -> None:
        super()._forget(interest)  # first: the program may turn warnings into errors
        if interest.is_closed():
            warn_closed(interest)

    def _move(self, key: WatchedKey, fresh: selectors.EpollSelector) -> None:
        super()._move(key, fresh)
        if key.fd not in self._by_fd:
            warn_closed(key.data)

    def find_left(self) -> Iterator[Left]:
        """Find what was never unregistered, but the loop's own."""
        for interest in self._by_fd.values():
            if interest.place is None:
                continue
            if interest.is_closed():
                yield warn_misuse, closed_text(interest), None
            else:
                text = f"fd {interest.fd} was never unregistered from its loop"
                place = f"registered at {interest.place}"
                yield warn_unclosed, f"{text}; {place}", interest.reader


def closed_text(interest: Interest) -> str:
    """Say that a file was closed before it was unregistered."""
    text = f"fd {interest.fd} was closed while a loop watched it"
    return f"{text}; registered at {interest.place}"


def warn_closed(interest: Interest) -> None:
    """Warn of a file that was closed before it was unregistered."""
    if getattr(interest, "place", None) is not None:
        warn_misuse(closed_text(interest), None)


class DebugTimerHandle(TimerHandle):
    """A timer, which refuses to be cancelled in another thread than the loop's."""

    __slots__ = ()

    def cancel(self) -> None:
        """Check the thread, then cancel."""
        if isinstance(self.queue, DebugTimers):
            self.queue.check_thread("cancel a timer")
        super().cancel()


class DebugTimers(TimerQueue):
    """Timers, with the places where they were made."""

    iteration: DebugIteration | None = None

    def add(
        self, deadline: float, call: Callable[[], object], source: object
    ) -> TimerHandle:
        """Arm, and remember where."""
        self.check_thread("add a timer")
        handle = super().add(deadline, call, source)
        handle.place = place_of_caller()
        handle.__class__ = DebugTimerHandle
        return handle

    def check_thread(self, attempted: str) -> None:
        """Refuse a call in another thread than the one that runs the loop."""
        if self.iteration is not None:
            self.iteration.check_thread(attempted)


class PlacedCalls(collections.deque[Handle]):
    """Posted calls, with the places where they were posted."""

    def append(self, handle: Handle, /) -> None:
        """Post, and remember where."""
        handle.place = place_of_caller()
        super().append(handle)


class SlowLog(Observation):
    """The observer that logs slow callbacks."""

    def __init__(self, observers: Observers, iteration: DebugIteration) -> None:
        super().__init__(observers, self, iteration.slow_callback_duration, INTERVAL)
        self._iteration = iteration

    def on_slow(self, what: str, duration: float) -> None:
        """Have a method that makes this an observer; `tell_slow` is called instead."""

    def tell_slow(self, target: object, what: str, duration: float) -> None:
        """Log a slow callback."""
        if duration < self.slow:
            return
        place = self._iteration.call_place
        if what:
            place = place_of(target)
        logger.warning(
            "%s%s took %.3f seconds; made at %s",
            describe(target, what),
            "" if what else place_of_function(target),
            duration,
            place,
        )


class DebugIteration(ObservedIteration):
    """What a loop in debug mode works on.

    Attributes:
        place: Where the loop was made.
        call_place: Where the callback was registered that was just called.
    """

    table_type = DebugTable
    timers_type = DebugTimers
    posted_type = PlacedCalls
    table: DebugTable
    timers: DebugTimers

    def __init__(
        self,
        selector: selectors.BaseSelector,
        error_hook: ErrorHook | None,
        clock: Callable[[], float],
    ) -> None:
        state.is_used = True
        self.place = place_of_caller()
        self.call_place: str | None = None
        self._pid = os.getpid()
        self._thread: int | None = None
        super().__init__(selector, error_hook, clock)
        if isinstance(selector, DebugSelector):
            selector.is_quiet = True
        self.table.iteration = self.timers.iteration = self
        observers = observers_of(self)
        self._slow_log = SlowLog(observers, self)
        observers.add(self._slow_log)

    def note_slow_callback_duration(self) -> None:
        """Use the new value."""
        self._slow_log.slow = self.slow_callback_duration
        self._slow_log.observers.adjust()

    def check_thread(self, attempted: str) -> None:
        """Refuse a call in another thread than the one that runs the loop.

        Raises:
            RuntimeError: It is another one.
        """
        if self._thread is not None and self._thread != get_ident():
            raise RuntimeError(
                f"{attempted} in another thread than that which runs the loop, made "
                f"at {self.place}; use call_soon_threadsafe()"
            )

    def run_many(self, limit: float | None, left: float) -> None:
        """Run iterations in this thread."""
        outer, self._thread = self._thread, get_ident()
        try:
            super().run_many(limit, left)
        finally:
            self._thread = outer

    def run(self, limit: float | None) -> int:
        """Run one iteration in this thread."""
        outer, self._thread = self._thread, get_ident()
        try:
            return super().run(limit)
        finally:
            self._thread = outer

    def delivery(self) -> Delivery:
        """Return what the streams of the loop share."""
        self.check_thread("make a stream, endpoint or server")
        return super().delivery()

    def close(self) -> None:
        """Close, then warn of what was left."""
        left = [] if self.unusable is not None else [*self._find_left()]
        super().close()
        for warn, text, source in left:
            warn(text, source)

    def __del__(self) -> None:
        if getattr(self, "unusable", "") is None and self._pid == os.getpid():
            warn_unclosed(f"unclosed event loop, made at {self.place}", self)
            for warn, text, source in self._find_left():
                warn(text, source)

    def _find_left(self) -> Iterator[Left]:
        yield from self.table.find_left()
        delivery = self.core.delivery
        if delivery is None:
            return
        made: list[Stream | Endpoint] = [*delivery.streams(), *delivery.endpoints()]
        for left in made:
            place = place_of(left)
            if place is not None and not left.is_closing:
                yield warn_unclosed, f"unclosed {left!r}, made at {place}", left

    def _tell(self, holder: Interest | Handle | None, callback: object) -> None:
        self.call_place = getattr(holder, "place", None)
        super()._tell(holder, callback)


def place_of(made: object) -> str | None:
    """Return where a stream or endpoint was made; None for clients of servers."""
    find = getattr(made, "_find_place", None)
    return find() if callable(find) else None
