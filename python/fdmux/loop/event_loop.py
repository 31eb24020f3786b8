"""SelectorEventLoop: callbacks for descriptors, timers and other threads.

This file is the public face: it checks arguments and says what users may rely on. What
one iteration does is in iteration.py, who may run the loop in running.py.
"""

from __future__ import annotations

import functools
import math
import selectors
import time
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from fdmux._native import NativeLoop
from fdmux.checks import (
    check_callable,
    check_selector,
    checked_integer,
    checked_seconds,
    refusal,
)
from fdmux.debugging import is_debug
from fdmux.loop.debug import DebugIteration
from fdmux.loop.iteration import Iteration, wait_limit
from fdmux.loop.observed import observers_of
from fdmux.loop.running import close_in_turn, run_in_turn
from fdmux.loop.timers import Handle, TimerHandle
from fdmux.observing import INTERVAL, SLOW, checked_slow
from fdmux.selector import Selector

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from _typeshed import FileDescriptorLike

    from fdmux._delivery import Delivery
    from fdmux.checks import Seconds
    from fdmux.loop.interest import ReadyCallback
    from fdmux.loop.iteration import ErrorHook
    from fdmux.observing import Observation

Parameters = ParamSpec("Parameters")
FileLike = TypeVar("FileLike", bound="FileDescriptorLike")


class SelectorEventLoop:
    """A callback loop on any selector.

    >>> with SelectorEventLoop() as loop:
    ...     loop.register_read(sock, on_readable)  # on_readable(sock)
    ...     loop.run()

    One iteration does this, in this order: it waits; it calls the callbacks of the
    descriptors that are ready; the timers that are due; the calls posted from other
    threads. A timer or call added meanwhile has to wait for the next iteration, so
    none of them can starve the others.

    Args:
        selector: Any `selectors.BaseSelector`; ``None`` makes a `fdmux.Selector`.
            The loop owns it: it must be empty, nothing else may use it, and `close`
            closes it. (The loop may replace a stdlib `EpollSelector` by a new one,
            see interest.py.)
        error_hook: ``None``: `run_once` and `run` raise what a callback has raised,
            with its traceback, and the loop stays usable. A callable: the loop calls
            it with ``(error, source)`` and goes on; ``source`` is the registered
            object, or the function of a timer or posted call, or `native` for an error
            that a native function has returned. ``KeyboardInterrupt`` and
            ``SystemExit`` are raised in either case. A callback that raised stays
            registered.
        clock: Returns the time in seconds, for `time`, timers and deadlines; for tests.

    Raises:
        TypeError: ``selector`` is not a selector, or a function cannot be called.
        OSError: The kernel has no descriptors to give.

    Threads: Only the thread that runs the loop may use it, except for `stop` and
        `call_soon_threadsafe` (any thread, and signal handlers).
    Fork: A fork during `run` does not affect the parent. In the child the loop calls
        no callback and raises `LoopClosed`, since it shares its epoll set with the
        parent. The child may `close` it, and make a new loop.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector | None = None,
        *,
        error_hook: ErrorHook | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_selector(selector)
        if error_hook is not None:
            check_callable("error_hook", error_hook)
        check_callable("clock", clock)
        given = Selector() if selector is None else selector
        try:
            make = DebugIteration if is_debug() else Iteration
            self._iteration = make(given, error_hook, clock)
        except BaseException:
            if selector is None:
                given.close()
            raise

    # Registration ----------------------------------------------------------------

    def register_read(
        self, sock: FileLike, callback: Callable[[FileLike], object]
    ) -> None:
        """Call ``callback(sock)`` each time ``sock`` is readable, at its end or broken.

        Level-triggered: an unread socket is reported again in the next iteration.
        Replaces the callback registered earlier for this direction; the other
        direction stays as it is.

        Args:
            sock: A socket, any object with ``fileno()``, or a descriptor. The caller
                still owns it, and must unregister it before closing it. (If it was
                closed first, the loop drops it at its next event, and its number can
                be registered again.)
            callback: Called with the object that was registered.

        Raises:
            TypeError: ``callback`` cannot be called.
            ValueError: ``sock`` has no descriptor, or a closed one. Any other exception
                of ``sock.fileno()`` is raised as it is.
            PermissionError: The kernel cannot watch it (regular files, under epoll).
            OSError: The kernel refused it; EBADF: it is not open, or it was opened
                with ``O_PATH``. Nothing is registered for this descriptor.
            LoopClosed: After `close`.
        Order:   A callback may register and unregister anything, itself included.
        Threads: Loop thread only. From others, through `call_soon_threadsafe`.
        """
        iteration = self._iteration
        iteration.check_usable()
        iteration.table.add(sock, EVENT_READ, cast("ReadyCallback", callback))

    def register_write(
        self, sock: FileLike, callback: Callable[[FileLike], object]
    ) -> None:
        """Call ``callback(sock)`` each time ``sock`` is writable, or broken.

        Otherwise as `register_read`. A socket may have both callbacks.
        """
        iteration = self._iteration
        iteration.check_usable()
        iteration.table.add(sock, EVENT_WRITE, cast("ReadyCallback", callback))

    def unregister(self, sock: FileDescriptorLike) -> None:
        """Remove both callbacks of ``sock``.

        Does nothing if ``sock`` is not registered, and after `close` of the loop. A
        ``sock`` that was closed before is found by identity, in O(n).

        Order: No callback of ``sock`` starts after this returns, not even for an
            event that was collected in the same batch.
        """
        self._iteration.table.discard(sock)

    def unregister_read(self, sock: FileDescriptorLike) -> None:
        """Remove the read callback of ``sock``; otherwise as `unregister`."""
        self._iteration.table.discard(sock, EVENT_READ)

    def unregister_write(self, sock: FileDescriptorLike) -> None:
        """Remove the write callback of ``sock``; otherwise as `unregister`."""
        self._iteration.table.discard(sock, EVENT_WRITE)

    # Time and other threads ------------------------------------------------------

    def time(self) -> float:
        """Read the loop's clock: `time.monotonic` unless one was given."""
        return self._iteration.clock()

    def call_later(
        self,
        delay: Seconds,
        callback: Callable[Parameters, object],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> TimerHandle:
        """Call ``callback(*args, **kwargs)`` after ``delay`` seconds; see `call_at`."""
        when = self._iteration.clock() + checked_seconds(delay, "delay")
        check_callable("callback", callback)
        call = functools.partial(callback, *args, **kwargs)
        return self._add_timer(when, call, callback)

    def call_at(
        self,
        when: Seconds,
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
            TypeError: ``when`` is not a number, or ``callback`` cannot be called.
            LoopClosed: After `close`.
        Order:   Never early. By time, then in the order of the calls to `call_at`.
        Threads: Loop thread only.
        """
        check_callable("callback", callback)
        call = functools.partial(callback, *args, **kwargs)
        return self._add_timer(checked_seconds(when, "when"), call, callback)

    def _add_timer(
        self, when: float, call: Callable[[], object], source: object
    ) -> TimerHandle:
        self._iteration.check_usable()
        return self._iteration.timers.add(when, call, source)

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
            TypeError: ``callback`` cannot be called.
            OSError: The kernel refused to wake the loop, as a sandbox may; the call
                will not be made.
            LoopClosed: After `close`.
        Order:   First in, first out for each calling thread. `close` drops the calls
            that have not run.
        Threads: Any, also a signal handler.
        """
        iteration = self._iteration
        iteration.check_usable()
        check_callable("callback", callback)
        handle = Handle(functools.partial(callback, *args, **kwargs), callback)
        iteration.posted.append(handle)
        try:
            iteration.wake.wake()
        except OSError:
            handle.cancel()
            raise
        return handle

    # Running ---------------------------------------------------------------------

    def run_once(self, timeout: Seconds | None = 1.0) -> int:
        """Run one iteration: wait up to ``timeout`` seconds, then call what is due.

        Returns:
            How many callbacks ran (of descriptors, timers and posted calls). 0 when
            time ran out, or when `stop` or a wake-up ended the wait.

        Units:   seconds; 0 or less: do not wait; ``None`` or ``inf``: no limit
        Raises:
            ValueError: ``timeout`` is NaN.
            TypeError: ``timeout`` is not a number.
            RuntimeError: The loop is running already: in another thread, or in the
                callback that calls this.
            LoopClosed: After `close`.
        """
        limit = wait_limit(timeout)
        iteration = self._iteration
        return run_in_turn(self, iteration, iteration.run, limit, is_one_batch=True)

    def run(
        self, timeout: Seconds | None = 1.0, max_iterations: int | None = None
    ) -> None:
        """Run iterations until `stop` is called, or ``max_iterations`` of them.

        Ctrl-C and other signals end the wait that is under way, so that their handlers
        run at once; this function raises what a handler raises.

        Args:
            timeout: The longest wait of one iteration, as in `run_once`. `stop`, timers
                and posted calls end that wait early.
            max_iterations: Return after this many; ``None`` sets no limit.

        Raises:
            ValueError: ``timeout`` is NaN, or ``max_iterations`` is negative.
            TypeError: One of them is not a number.
            RuntimeError: The loop is running already, as in `run_once`.
            LoopClosed: After `close`.
        """
        limit = wait_limit(timeout)
        left = (
            math.inf
            if max_iterations is None
            else checked_integer("max_iterations", max_iterations, 0)
        )
        iteration = self._iteration
        is_one_batch = left < math.inf
        run_in_turn(
            self, iteration, iteration.run_many, limit, left, is_one_batch=is_one_batch
        )

    def stop(self) -> None:
        """Make `run` return after the iteration it is in, without waiting further.

        If the loop does not run, the next `run` makes one iteration, without waiting,
        and returns (as in asyncio). Does nothing after `close`.

        Raises:
            OSError: The kernel refused to wake the loop, as a sandbox may.
        Threads: Any, also a signal handler.
        """
        self._iteration.is_stopping = True
        self._iteration.wake.wake()

    # Seeing inside ---------------------------------------------------------------

    @property
    def slow_callback_duration(self) -> float:
        """Debug mode logs callbacks that take so many seconds or more; 0.1 at first.

        Raises:
            ValueError: It is set to a negative number, or NaN.
            TypeError: It is set to what is no number.
        """
        return self._iteration.slow_callback_duration

    @slow_callback_duration.setter
    def slow_callback_duration(self, duration: Seconds) -> None:
        seconds = checked_slow(duration, "slow_callback_duration")
        self._iteration.slow_callback_duration = seconds
        self._iteration.note_slow_callback_duration()

    def observe(
        self, observer: object, *, slow: Seconds = SLOW, interval: Seconds = INTERVAL
    ) -> Observation:
        """Measure from now on what the loop does, and tell ``observer``.

        A loop that is not observed measures nothing. Several observers share the cost.

        Args:
            observer: Any object with methods of `Observer`. What they raise is logged.
            slow: Callbacks that take so many seconds or more are told to ``on_slow``.
            interval: How often ``on_report`` is called, while the loop is not idle.

        Returns:
            What ends the observation, and reads the numbers at any time.

        Raises:
            TypeError: ``observer`` has none of the methods, or one that cannot be
                called; or a time is not a number.
            ValueError: ``slow`` is negative, ``interval`` not above 0, or one is NaN.
            LoopClosed: After `close`.
        Threads: Loop thread only.
        """
        self._iteration.check_usable()
        return observers_of(self._iteration).observe(observer, slow, interval)

    # Native code -----------------------------------------------------------------

    @property
    def native(self) -> NativeLoop:
        """The core loop, where native code has its descriptors, timers and calls.

        A `fdmux.Selector` runs it inside its ``select``. On any other selector the
        first use makes it, and the selector watches its descriptor.

        Raises:
            OSError: The kernel has no descriptors to give.
            LoopClosed: After `close`.
        """
        return self._iteration.native()

    def __fdmux_loop__(self) -> object:
        """Return the core loop for native code, see `NativeLoop`."""
        return self.native.__fdmux_loop__()

    # The end ---------------------------------------------------------------------

    def close(self) -> None:
        """Close the selector, and everything else the loop has made. Idempotent.

        Registered sockets stay open. Streams are aborted, and their `on_close` is
        called. Timers and posted calls are dropped.

        Raises:
            RuntimeError: The loop is running; call `stop` first.
        """
        close_in_turn(self._iteration)

    def __enter__(self) -> Self:
        self._iteration.check_usable()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def check_loop(loop: object) -> None:
    """Refuse what is no `SelectorEventLoop`.

    Raises:
        TypeError: The message says what to do with a `NativeLoop` and with asyncio.
    """
    if isinstance(loop, SelectorEventLoop):
        return
    wanted = "a fdmux.SelectorEventLoop"
    if isinstance(loop, NativeLoop):
        wanted += ", which has callbacks; a NativeLoop alone has none"
    elif hasattr(loop, "create_task"):
        wanted += "; to run one inside asyncio, let asyncio watch a fdmux.Guest"
    raise TypeError(refusal("loop", loop, wanted))


def iteration_of(loop: SelectorEventLoop) -> Iteration:
    """Return what ``loop`` works on, for the parts of fdmux that build on it."""
    return loop._iteration  # noqa: SLF001 - this module's own class


def delivery_of(loop: SelectorEventLoop) -> Delivery:
    """Return what the streams of ``loop`` share; the first call makes it.

    Raises:
        LoopClosed: The loop is closed.
    """
    return iteration_of(loop).delivery()
