"""TimerQueue: the calls that wait for their time, in a heap by (deadline, sequence).

Its one rule: `take_due` takes out all that is due before any of it runs. So a call that
arms itself again without a delay runs in the next iteration, and cannot starve the
rest. Knows nothing about sockets, selectors or threads; reads no clock of its own.
"""

from __future__ import annotations

import heapq
import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A cancelled entry stays in the heap until it is the first, since removing one from the
# middle is O(n). When there are more than this many, and they are more than half, one
# O(n) sweep removes them all. So a cancelled call costs O(log n) amortised, and the
# heap is at most twice as large as the armed timers need.
CANCELLED_KEPT_MAX = 64


class Handle:
    """A call that will be made once, unless it is cancelled before.

    Attributes:
        source: The function, as the user passed it.
    """

    __slots__ = ("_call", "place", "source")
    place: str | None  # where it was made; set in debug mode alone

    def __init__(self, call: Callable[[], object], source: object) -> None:
        self._call: Callable[[], object] | None = call
        self.source: object = source

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called or the call has run: it will not run any more."""
        return self._call is None

    def cancel(self) -> None:
        """Make sure that the call does not start from now on.

        Does nothing if it has run already, or is running.
        """
        self._call = None

    def run(self) -> bool:
        """Make the call, the first time only; return whether it was made."""
        call, self._call = self._call, None
        if call is None:
            return False
        call()
        return True


class TimerHandle(Handle):
    """A call with a deadline; `call_later` and `call_at` return it.

    Attributes:
        deadline: When the call is due, in seconds on the loop's clock.
        queue: The queue it waits in; ``None`` once it was due.
    """

    __slots__ = ("deadline", "queue")

    def __init__(
        self,
        deadline: float,
        call: Callable[[], object],
        source: object,
        queue: TimerQueue,
    ) -> None:
        super().__init__(call, source)
        self.deadline: float = deadline
        self.queue: TimerQueue | None = queue

    def cancel(self) -> None:
        """Make sure that the call does not start from now on. Loop thread only."""
        if self._call is not None:
            self._call = None
            if self.queue is not None:
                self.queue.note_cancelled()


class TimerQueue:
    """The armed timers of one loop.

    Attributes:
        next_deadline: The earliest deadline, ``inf`` if there is none. An attribute,
            since a loop reads it twice in each iteration.
        on_earlier: `add` calls it when the new timer comes before all others: a wait
            that is under way must end earlier then.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, TimerHandle]] = []
        self._sequence = itertools.count()
        self._cancelled_count = 0
        self.next_deadline: float = math.inf
        self.on_earlier: Callable[[], object] | None = None

    def __len__(self) -> int:
        """How many entries the heap holds, cancelled ones included."""
        return len(self._heap)

    def add(
        self, deadline: float, call: Callable[[], object], source: object
    ) -> TimerHandle:
        """Arm ``call`` for ``deadline``; equal deadlines run in the order of adding.

        Args:
            deadline: Not NaN, which would break the order of the heap.

        Units:   seconds on the caller's clock; ``inf`` never comes due
        """
        handle = TimerHandle(deadline, call, source, self)
        heapq.heappush(self._heap, (deadline, next(self._sequence), handle))
        if deadline < self.next_deadline:
            self.next_deadline = deadline
            if self.on_earlier is not None:
                self.on_earlier()
        return handle

    def take_due(self, now: float) -> list[TimerHandle]:
        """Remove and return the calls that are due at ``now``, in order."""
        due: list[TimerHandle] = []
        while self.next_deadline <= now < math.inf:
            handle = heapq.heappop(self._heap)[2]
            handle.queue = None
            due.append(handle)
            self._skip_cancelled()
        return due

    def note_cancelled(self) -> None:
        """Count one more cancelled entry; sweep the heap if they are the majority."""
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
