"""SelectorEventLoop: callbacks for descriptors, timers and other threads.

Its one rule: nothing that was promised a call is lost, and nothing that was taken back
is called. An exception leaves an iteration with the rest of its work still queued
(readiness is level-triggered and reported again; due timers and posted calls stay in
their queues). What is watched lies in interest.py, when in timers.py, how a wait ends
early in wakeup.py; this file is the order in which they take turns.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import math
import operator
import os
import time
import weakref
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, ParamSpec, TypeVar, TypeVarTuple, cast

from fdmux._delivery import Delivery
from fdmux._ffi import lib
from fdmux._native import FEATURES, LoopClosed, NativeLoop
from fdmux.loop.interest import InterestTable
from fdmux.loop.running import running
from fdmux.loop.timers import Handle, TimerHandle, TimerQueue
from fdmux.loop.wakeup import WakeChannel
from fdmux.selector import Selector, is_fn_error

if TYPE_CHECKING:
    import selectors
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from _typeshed import FileDescriptorLike

    from fdmux.loop.interest import Interest, ReadyCallback, WatchedKey

    ErrorHook = Callable[[Exception, object], object]

Parameters = ParamSpec("Parameters")
Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")
FileLike = TypeVar("FileLike", bound="FileDescriptorLike")

TIMER_IN_FD = FEATURES[lib.FDMUX_FEATURE_TIMER_IN_FD]
# poll(2) and epoll_wait(2) take an int of milliseconds. A wait this long ends early,
# as an iteration with nothing to do; `run` then simply waits again.
WAIT_MAX = 24 * 24 * 3600.0

TURN = "turn"


def normalise_timeout(timeout: float | None) -> float | None:
    """Turn what users pass into what `select` takes.

    Negative means 0; ``None``, ``inf`` and anything above `WAIT_MAX` set no limit of
    their own.

    Raises:
        ValueError: ``timeout`` is NaN.
        TypeError: ``timeout`` is not a real number.
    """
    if timeout is None:
        return None
    if math.isnan(timeout):
        raise ValueError("wait for events: the timeout is NaN")
    return None if timeout > WAIT_MAX else max(float(timeout), 0.0)


class SelectorEventLoop:
    """A callback loop on any selector.

    >>> with SelectorEventLoop() as loop:
    ...     loop.register_read(sock, on_readable)  # on_readable(sock)
    ...     loop.run()

    One iteration, in this order: wait; the callbacks of what is ready; the timers that
    are due; the calls posted from other threads. A timer or call that these add is for
    the next iteration, so none of them can starve the others.

    Args:
        selector: Any `selectors.BaseSelector`; ``None`` makes a `fdmux.Selector`.
            It belongs to the loop from then on: it must be empty, is used for nothing
            else, and `close` closes it. (A stdlib `EpollSelector` may be replaced by
            a new one while the loop runs, see interest.py.)
        error_hook: ``None``: an exception of a callback leaves `run_once` or `run`
            with its traceback, and the loop stays usable. A callable: it gets
            ``(error, source)`` and the iteration goes on; ``source`` is the registered
            object, or the function of a timer or posted call, or `native` for an error
            that a native function has returned. ``KeyboardInterrupt``
            and ``SystemExit`` leave in either case. A callback that raised stays
            registered.
        clock: What `time`, timers and deadlines go by, in seconds; for tests.

    Threads: Everything belongs to the thread that runs the loop, except `stop` and
        `call_soon_threadsafe` (any thread, and signal handlers).
    Fork: The parent is unaffected by a fork in the middle. In the child the loop calls
        nobody and raises `LoopClosed`, as it would share its epoll set with the
        parent; `close` is allowed there, and a new loop can be made.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector | None = None,
        *,
        error_hook: ErrorHook | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        with contextlib.ExitStack() as on_failure:
            if selector is None:
                selector = Selector()
                on_failure.callback(selector.close)
            ours = selector.native if isinstance(selector, Selector) else None
            self._wake = WakeChannel(ours)
            on_failure.callback(self._wake.close)
            self._table = InterestTable(selector)
            self._table.add(self._wake.reader, EVENT_READ, self._on_wake)
            on_failure.pop_all()
        self._own_native: NativeLoop | None = None
        self._untimed: NativeLoop | None = None  # ours, whose fd tells of no timer
        self._streams: Delivery | None = None
        self._native_of_streams: NativeLoop
        self._is_one_batch = False
        self._error_hook = error_hook
        self._clock = clock
        self._timers = TimerQueue()
        self._timers.on_earlier = self._on_earlier_deadline
        self.on_earlier_deadline: Callable[[], object] | None = None  # a guest's
        # Due and posted calls wait here until they have run, so that an exception in
        # one of them does not lose the others.
        self._due: collections.deque[Handle] = collections.deque()
        self._posted: collections.deque[Handle] = collections.deque()
        self._turn: dict[str, object] = {}  # TURN: whoever runs or closes the loop
        self._is_stopping = False
        self._wakes_seen = 0
        self._unusable: str | None = None
        live_loops.add(self)

    # Registration ----------------------------------------------------------------

    def register_read(
        self, sock: FileLike, callback: Callable[[FileLike], object]
    ) -> None:
        """Call ``callback(sock)`` each time ``sock`` is readable, at its end or broken.

        Level-triggered: an unread socket is reported again in the next iteration.
        A callback registered earlier for this direction is replaced; the other
        direction is not touched.

        Args:
            sock: A socket, any object with ``fileno()``, or a descriptor. Stays the
                caller's, who unregisters it before closing it. (Forgotten: it is
                dropped at its next event. Its number can be registered again.)
            callback: Gets the very object that was registered.

        Raises:
            ValueError: No descriptor, or a closed one.
            PermissionError: The kernel cannot watch it (regular files, under epoll).
            OSError: The kernel refused; nothing is registered for this descriptor.
            LoopClosed: After `close`.
        Order:   A callback may register and unregister anything, itself included.
        Threads: Loop thread only. From others, through `call_soon_threadsafe`.
        """
        self._check_usable()
        self._table.add(sock, EVENT_READ, cast("ReadyCallback", callback))

    def register_write(
        self, sock: FileLike, callback: Callable[[FileLike], object]
    ) -> None:
        """Call ``callback(sock)`` each time ``sock`` takes data, or is broken.

        Otherwise as `register_read`. One socket may have both.
        """
        self._check_usable()
        self._table.add(sock, EVENT_WRITE, cast("ReadyCallback", callback))

    def unregister(self, sock: FileDescriptorLike) -> None:
        """Forget ``sock``, both directions.

        Quiet if ``sock`` is unknown or closed, and after `close`.

        Order: No callback of ``sock`` starts after this returns, not even for an
            event that was collected in the same batch.
        """
        self._table.discard(sock)

    def unregister_read(self, sock: FileDescriptorLike) -> None:
        """Forget the read callback of ``sock``, as `unregister` does both."""
        self._table.discard(sock, EVENT_READ)

    def unregister_write(self, sock: FileDescriptorLike) -> None:
        """Forget the write callback of ``sock``, as `unregister` does both."""
        self._table.discard(sock, EVENT_WRITE)

    # Time and other threads ------------------------------------------------------

    def time(self) -> float:
        """Read the loop's clock: `time.monotonic` unless one was given."""
        return self._clock()

    def call_later(
        self,
        delay: float,
        callback: Callable[Parameters, object],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> TimerHandle:
        """Call ``callback(*args, **kwargs)`` after ``delay`` seconds; see `call_at`."""
        return self.call_at(self._clock() + delay, callback, *args, **kwargs)

    def call_at(
        self,
        when: float,
        callback: Callable[Parameters, object],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> TimerHandle:
        """Call ``callback(*args, **kwargs)`` once, when `time` has reached ``when``.

        Returns:
            A handle with ``cancel()``.

        Units:   seconds; a time in the past means the next iteration, ``inf`` never
        Raises:
            ValueError: ``when`` is NaN.
            LoopClosed: After `close`.
        Order:   Never early. By time, then in the order of the calls to `call_at`.
        Threads: Loop thread only.
        """
        self._check_usable()
        return self._timers.add(
            when, functools.partial(callback, *args, **kwargs), callback
        )

    def call_soon_threadsafe(
        self,
        callback: Callable[Parameters, object],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Handle:
        """Call ``callback(*args, **kwargs)`` once, in the loop's thread, and soon.

        Returns:
            A handle with ``cancel()``.

        Raises:
            OSError: The kernel refused to wake the loop, as a sandbox may; the call
                will not be made.
            LoopClosed: After `close`.
        Order:   First in, first out for each calling thread. Calls that `close` finds
            waiting are dropped.
        Threads: Any, also a signal handler.
        """
        self._check_usable()
        handle = Handle(functools.partial(callback, *args, **kwargs), callback)
        self._posted.append(handle)
        try:
            self._wake.wake()
        except OSError:
            handle.cancel()
            raise
        return handle

    # Running ---------------------------------------------------------------------

    def run_once(self, timeout: float | None = 1.0) -> int:
        """Do one iteration: wait up to ``timeout`` seconds, then call what is due.

        Returns:
            How many callbacks ran (of descriptors, timers and posted calls). 0 when
            time ran out, or when `stop` or a wake-up ended the wait.

        Units:   seconds; 0 or less: do not wait; ``None`` or ``inf``: no limit
        Raises:
            ValueError: ``timeout`` is NaN.
            RuntimeError: The loop is running already: in another thread, or in the
                callback that calls this.
            LoopClosed: After `close`.
        """
        limit = normalise_timeout(timeout)
        return self._in_turn(self._iterate, limit, is_one_batch=True)

    def run(
        self, timeout: float | None = 1.0, max_iterations: int | None = None
    ) -> None:
        """Iterate until `stop` is called, or ``max_iterations`` times.

        Ctrl-C and other signals end the wait that is under way, so their handlers run
        at once and what they raise leaves from here.

        Args:
            timeout: The longest wait of one iteration, as in `run_once`. It bounds
                nothing else: `stop`, timers and posted calls do not wait for it.
            max_iterations: Return after so many; ``None`` sets no limit.

        Raises:
            RuntimeError: The loop is running already, as in `run_once`.
            LoopClosed: After `close`.
        """
        limit = normalise_timeout(timeout)
        left = math.inf if max_iterations is None else operator.index(max_iterations)
        if left < 0:
            raise ValueError(f"run the loop: max_iterations is {max_iterations}")
        self._in_turn(self._repeat, limit, left, is_one_batch=left < math.inf)

    def stop(self) -> None:
        """Make `run` return after the iteration it is in, without waiting further.

        Called while nothing runs, it counts for the next `run`, which then makes one
        iteration without waiting (as in asyncio). Quiet after `close`.

        Raises:
            OSError: The kernel refused to wake the loop, as a sandbox may.
        Threads: Any, also a signal handler.
        """
        self._is_stopping = True
        self._wake.wake()

    # Native code -----------------------------------------------------------------

    @property
    def native(self) -> NativeLoop:
        """The core loop whose descriptors, timers and calls this loop serves.

        A `fdmux.Selector` has one, which runs inside its ``select``. On any other
        selector it is made on first use and watched through its one descriptor.
        """
        self._check_usable()
        selector = self._table.selector
        if isinstance(selector, Selector):
            return selector.native
        if self._own_native is None:
            native = NativeLoop()
            try:
                self._table.add(native, EVENT_READ, self._on_native)
            except BaseException:
                native.close()
                raise
            self._own_native = native
            if TIMER_IN_FD not in native.stats().features:
                self._untimed = native
        return self._own_native

    @property
    def streams(self) -> Delivery:
        """What the streams of this loop share; made on first use."""
        self._check_usable()
        if self._streams is None:
            native = self.native
            self._streams = Delivery(native.__fdmux_loop__())
            self._native_of_streams = native
            self._streams.is_one_batch = self._is_one_batch
            if TURN in self._turn:
                self._streams.enter()  # in a callback of this loop
        return self._streams

    def __fdmux_loop__(self) -> object:
        """Hand out the core loop, in a capsule for native code."""
        return self.native.__fdmux_loop__()

    # The end ---------------------------------------------------------------------

    def close(self) -> None:
        """Close the selector and everything of the loop's own. Idempotent.

        Registered sockets stay open; streams are aborted, and told by `on_close`;
        timers and posted calls are dropped.

        Raises:
            RuntimeError: The loop runs right now; `stop` it first.
        """
        turn, me = self._turn, object()
        try:
            if turn.setdefault(TURN, me) is not me:
                raise RuntimeError("close the loop: it is running; call stop() first")
            self._unusable = "the loop is closed"
            if self._streams is not None:
                abort_streams(self._native_of_streams, self._streams)
            self._wake.close()
            self._table.selector.close()
            if self._own_native is not None:
                self._own_native.close()
            self._table.abandon()
            self._posted.clear()
            self._due.clear()
            self._timers.on_earlier = None  # handles keep the queue, but not this loop
            self._timers = TimerQueue()
        finally:
            if TURN in turn and turn[TURN] is me:  # as in `_in_turn`
                del turn[TURN]

    def __enter__(self) -> Self:
        self._check_usable()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # One iteration ---------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._unusable is not None:
            raise LoopClosed(self._unusable)

    def _in_turn(
        self,
        work: Callable[[*Arguments], Result],
        *args: *Arguments,
        is_one_batch: bool,
    ) -> Result:
        """Do ``work`` as the one who runs the loop, and consume a `stop` afterwards.

        Ctrl-C may come whenever a function is called, as it begins or has returned. So
        the turn is taken by one call inside the `try`, and given back by none.
        """
        self._check_usable()
        turn, me, outer = self._turn, object(), running.loop
        try:
            if turn.setdefault(TURN, me) is not me:
                raise RuntimeError("run the loop: it is running already")
            running.loop = self
            self._is_one_batch = is_one_batch
            if self._streams is not None:
                self._streams.is_one_batch = is_one_batch
                self._streams.enter()
            return work(*args)
        finally:
            if TURN in turn and turn[TURN] is me:
                self._is_stopping = False
                running.loop = outer  # whose callback has run this loop
                if self._streams is not None:
                    self._streams.leave()
                del turn[TURN]

    def _repeat(self, limit: float | None, left: float) -> None:
        """Iterate ``left`` times, or until `stop`."""
        with self._wake.woken_by_signals():
            while left > 0:
                self._iterate(limit)
                left -= 1
                if self._is_stopping:
                    return

    def _iterate(self, limit: float | None) -> int:
        if self._unusable is not None:  # a callback forked, and this is the child
            raise LoopClosed(self._unusable)
        streams = self._streams
        calls_before = 0 if streams is None else streams.call_count
        ready = self._wait(limit)
        count = self._deliver(ready) if ready else 0
        if self._streams is not None:
            count += self._streams.call_count - calls_before
        if self._wakes_seen:
            count -= self._wakes_seen
            self._wakes_seen = 0
        timers = self._timers
        # Without timers the clock is not read: an iteration may cost less than that.
        if timers.next_deadline != math.inf and timers.next_deadline <= self._clock():
            self._due.extend(timers.take_due(self._clock()))
        if self._due:
            count += self._make_calls(self._due)
        if self._posted:
            count += self._make_calls(self._posted)
        return count

    def _on_earlier_deadline(self) -> None:
        """Let a wait that is calling functions end: it knows a later deadline."""
        selector = self._table.selector
        if isinstance(selector, Selector):
            lib.fdmux_py_end_batch(selector.native._c_loop)  # noqa: SLF001 - ours
        if self.on_earlier_deadline is not None:
            self.on_earlier_deadline()

    def _wait(self, limit: float | None) -> Sequence[tuple[WatchedKey, int]]:
        """Select, not past anything that is due."""
        limit = self._bound(limit)
        if self._own_native is not None:
            self._check_native(self._own_native)
        table = self._table
        if table.has_ghosts:
            table.replace_selector()
        try:
            untimed = self._untimed
            return (
                table.selector.select(limit)
                if untimed is None
                else self._wait_for_timers(untimed, limit)
            )
        except OSError as error:
            if self._took_error_of_native(error):
                return ()
            # select(2) fails as a whole with EBADF for one closed descriptor.
            if error.errno == errno.EBADF and table.drop_closed():
                return ()
            raise
        except LoopClosed:
            self._check_usable()  # a callback has forked, and this is the child
            raise

    def _check_native(self, native: NativeLoop) -> None:
        """Say that somebody else has closed it: a selector would just be silent."""
        if lib.fdmux_loop_fd(native._c_loop) == -errno.ESTALE:  # noqa: SLF001 - ours
            raise LoopClosed("wait for events: the loop's native loop was closed")

    def _bound(self, limit: float | None) -> float | None:
        """Return how long to wait at most: not past a deadline, nor with work to do."""
        if self._is_stopping or self._posted or self._due:
            return 0.0
        deadline = self._timers.next_deadline
        if deadline != math.inf:
            time_left = max(deadline - self._clock(), 0.0)
            if time_left < (WAIT_MAX if limit is None else limit):
                return time_left
        return limit

    def _took_error_of_native(self, error: OSError) -> bool:
        """Give the error hook, if there is one, what a native function has returned."""
        selector = self._table.selector
        if self._error_hook is None or not isinstance(selector, Selector):
            return False
        native = selector.native
        if not is_fn_error(native._c_loop, -(error.errno or 0)):  # noqa: SLF001 - ours
            return False
        self._error_hook(error, native)
        return True

    def _wait_for_timers(
        self, native: NativeLoop, limit: float | None
    ) -> Sequence[tuple[WatchedKey, int]]:
        """Select, not past a native timer: no timerfd was to be had."""
        due = native.next_deadline()
        if due is not None:
            time_left = max(due - time.monotonic(), 0.0)
            limit = time_left if limit is None else min(limit, time_left)
        ready = self._table.selector.select(limit)
        native.dispatch(0)
        return ready

    def _deliver(self, ready: Sequence[tuple[WatchedKey, int]]) -> int:
        """Call the callbacks of one batch. The hot path: no lookup, no new object."""
        count = len(ready)  # one callback each, corrected where it is not so
        events_left = iter(ready)
        while True:
            interest: Interest | None = None
            events = 0
            try:
                for key, events in events_left:
                    interest = key.data
                    fileno = interest.fileno
                    if fileno is not None and fileno() != interest.fd:
                        self._table.drop(interest)
                        count -= 1
                    elif events == 1:  # EVENT_READ alone, as most are
                        callback = interest.on_read
                        if callback is not None:
                            callback(interest.reader)
                        else:
                            count -= 1
                    else:
                        count += call_both(interest, events) - 1
                return count  # noqa: TRY300 - the loop ends here, not the try
            except Exception as error:
                if self._error_hook is None:
                    raise
                self._error_hook(error, interest and interest.source_of(events))

    def _make_calls(self, calls: collections.deque[Handle]) -> int:
        """Run as many as there are now; what they add is for the next iteration."""
        count = 0
        for _ in range(len(calls)):
            handle = calls.popleft()
            try:
                count += handle.run()
            except Exception as error:
                if self._error_hook is None:
                    raise
                count += 1
                self._error_hook(error, handle.source)
        return count

    def _on_wake(self, _reader: object) -> None:
        self._wakes_seen += 1
        self._wake.drain()

    def _on_native(self, _native: object) -> None:
        self._wakes_seen += 1  # no callback of anybody's
        if self._own_native is not None:
            self._own_native.dispatch(0)

    def _abandon_after_fork(self) -> None:
        """Run in the child: leave everything shared with the parent alone."""
        if self._unusable is None:
            self._unusable = (
                "the loop belongs to the parent process; make a new one after fork"
            )
        self._table.abandon()
        if self._streams is not None:
            self._streams.abandon()
        self._posted.clear()
        self._due.clear()
        self._wake.abandon_after_fork()
        self._turn = {}  # another thread may have had the old one


def abort_streams(native: NativeLoop, streams: Delivery) -> None:
    """End every stream, and call its `on_close`; the loop is about to close."""
    for stream in streams.streams():
        (stream._owner or stream).abort()  # type: ignore[attr-defined] # noqa: SLF001 - ours
    with contextlib.suppress(LoopClosed):  # by somebody else, below us
        native.finish_streams()


def call_both(interest: Interest, events: int) -> int:
    """Make the calls of an event that is not for reading alone; returns how many."""
    count = 0
    callback = interest.on_read
    if events & EVENT_READ and callback is not None:
        callback(interest.reader)
        count = 1
    callback = interest.on_write  # looked up now: reading may have taken it back
    if events & EVENT_WRITE and callback is not None:
        callback(interest.writer)
        count += 1
    return count


live_loops: weakref.WeakSet[SelectorEventLoop] = weakref.WeakSet()


def abandon_loops_after_fork() -> None:
    """Detach every loop of the parent from the child."""
    for loop in list(live_loops):
        loop._abandon_after_fork()  # noqa: SLF001 - this module's own class


if hasattr(os, "register_at_fork"):  # where there is a fork
    os.register_at_fork(after_in_child=abandon_loops_after_fork)
