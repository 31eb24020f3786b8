"""Calls that wait for their time: a heap ordered by (deadline, sequence).

Its one rule: what is due is taken out in one go, before anything runs, so a call
that arms itself again with no delay runs in the next round and never starves the
rest. Knows nothing about sockets, selectors or threads; reads no clock of its own.
"""

from __future__ import annotations

import heapq
import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Cancelled entries stay in the heap until they surface, as removing one from the
# middle is O(n). Once there are this many, and they outnumber the rest, one O(n)
# sweep removes them all: a cancelled call costs O(log n) amortised, and memory
# stays within twice what is alive.
CANCELLED_KEPT_MAX = 64


class Handle:
    """A call that was asked for and has not run yet."""

    __slots__ = ("_call", "source")

    def __init__(self, call: Callable[[], object], source: object) -> None:
        self._call: Callable[[], object] | None = call
        self.source = source

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called or the call has run: it will not run again."""
        return self._call is None

    def cancel(self) -> None:
        """Make sure that the call does not run from now on.

        Quiet when it ran already, or runs right now.
        """
        self._call = None

    def run(self) -> bool:
        """Make the call, once; returns whether there was one to make."""
        call, self._call = self._call, None
        if call is None:
            return False
        call()
        return True


class TimerHandle(Handle):
    """A call with a deadline, as `call_later` and `call_at` return it."""

    __slots__ = ("deadline", "queue")

    def __init__(
        self,
        deadline: float,
        call: Callable[[], object],
        source: object,
        queue: TimerQueue,
    ) -> None:
        super().__init__(call, source)
        self.deadline = deadline
        self.queue: TimerQueue | None = queue  # until it is due

    def cancel(self) -> None:
        """Make sure that the call does not run from now on. Loop thread only."""
        if self._call is not None:
            self._call = None
            if self.queue is not None:
                self.queue.note_cancelled()


class TimerQueue:
    """The armed timers of one loop.

    Attributes:
        next_deadline: The earliest deadline there is, ``inf`` if there is none. Kept
            up to date, since a loop reads it twice in each iteration.
        on_earlier: Called when a new timer comes before all others, by `add`. For a
            loop in which somebody else does the waiting.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, TimerHandle]] = []
        self._sequence = itertools.count()
        self._cancelled_count = 0
        self.next_deadline = math.inf
        self.on_earlier: Callable[[], object] | None = None

    def __len__(self) -> int:
        """How many entries the heap holds, cancelled ones included."""
        return len(self._heap)

    def add(
        self, deadline: float, call: Callable[[], object], source: object
    ) -> TimerHandle:
        """Arm ``call`` for ``deadline``; equal deadlines run in the order of adding.

        Units:   seconds on the caller's clock; ``inf`` never comes due
        Raises:
            ValueError: ``deadline`` is NaN, which would break the heap's order.
        """
        if math.isnan(deadline):
            raise ValueError("arm a timer: its time is NaN")
        handle = TimerHandle(deadline, call, source, self)
        heapq.heappush(self._heap, (deadline, next(self._sequence), handle))
        if deadline < self.next_deadline:
            self.next_deadline = deadline
            if self.on_earlier is not None:
                self.on_earlier()
        return handle

    def take_due(self, now: float) -> list[TimerHandle]:
        """Remove and return what is due at ``now``, in order. Never early."""
        due: list[TimerHandle] = []
        while self.next_deadline <= now < math.inf:
            handle = heapq.heappop(self._heap)[2]
            handle.queue = None
            due.append(handle)
            self._skip_cancelled()
        return due

    def note_cancelled(self) -> None:
        """Count one more cancelled entry; sweep the heap when they prevail."""
        heap = self._heap
        self._cancelled_count += 1
        if self._cancelled_count > max(CANCELLED_KEPT_MAX, len(heap) // 2):
            self._heap = [entry for entry in heap if not entry[2].is_cancelled]
            heapq.heapify(self._heap)
            self._cancelled_count = 0
        self._skip_cancelled()

    def _skip_cancelled(self) -> None:
        heap = self._heap
        while heap and heap[0][2].is_cancelled:
            heapq.heappop(heap)
            self._cancelled_count -= 1
        self.next_deadline = heap[0][0] if heap else math.inf
