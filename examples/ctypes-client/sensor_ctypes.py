"""A sensor in Python that uses the C interface of fdmux through ctypes.

One rule for memory: C gets numbers, and `_memory` maps them to objects. `destroyed`, or
the posted call when it has run, removes the number; after that, nothing is kept for C.
An exception must not leave a function that C calls, because ctypes would print and drop
it. So each of these functions returns -errno instead.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import itertools
import os
import threading
import weakref

from fdmux_table import (
    READ,
    DestroyedFn,
    IoFn,
    IoOptions,
    PostFn,
    TimerFn,
    TimerOptions,
    check,
    loop_of,
)

import fdmux

TICK_NS = 2_000_000
SAMPLE_COUNT = 1000

_memory: dict[int, object] = {}
_keys = itertools.count(1)  # next() of it is atomic; 0 would be NULL
_states: weakref.WeakSet[_State] = weakref.WeakSet()


def attach(path: str, loop: object = None) -> Sensor:
    """Open a sensor in the loop of an object, or in the running loop."""
    return Sensor(path, fdmux.current() if loop is None else loop)


def live() -> int:
    """Count the sensors that are in memory."""
    return len(_states)


def _keep(value: object) -> int:
    key = next(_keys)
    _memory[key] = value
    return key


class _State:
    """The state that the functions called by C use."""

    def __init__(self, owner: object) -> None:
        self.capsule = owner.__fdmux_loop__()
        self.table, self.loop = loop_of(self.capsule)
        self.fd = -1
        self.io = ctypes.c_uint64(0)
        self.timer = ctypes.c_uint64(0)
        self.thread: threading.Thread | None = None
        self.has_ended = False
        self.counts = dict.fromkeys(("bytes", "ticks", "samples", "total"), 0)
        self.lock = threading.Lock()
        self.dropped = 0  # by the thread too, so guarded by the lock
        _states.add(self)

    def start_io(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        key = _keep(self)
        options = IoOptions(
            struct_size=ctypes.sizeof(IoOptions),
            fd=self.fd,
            events=READ,
            fn=_on_readable,
            userdata=key,
            destroyed=_on_io_destroyed,
        )
        result = self.table.io_add(self.loop, options, self.io)
        if result < 0:
            _on_io_destroyed(key)  # not registered, so fdmux does not call it
        check(result, path)

    def start_timer(self, path: str) -> None:
        key = _keep(self)
        options = TimerOptions(
            struct_size=ctypes.sizeof(TimerOptions),
            fn=_on_tick,
            userdata=key,
            destroyed=_on_timer_destroyed,
        )
        result = self.table.timer_add(self.loop, options, self.timer)
        if result < 0:
            del _memory[key]
        check(result, path)
        deadline = self.table.loop_now(self.loop) + TICK_NS
        check(
            self.table.timer_arm(self.loop, self.timer.value, deadline, TICK_NS), path
        )

    def stop(self) -> None:
        """Remove the watchers. They are tokens, so doing it twice does no harm."""
        self.table.timer_remove(self.loop, self.timer.value)
        self.table.io_remove(self.loop, self.io.value)

    def measure(self) -> None:
        """Post the samples. Runs in the sensor's thread."""
        for value in range(SAMPLE_COUNT):
            key = _keep((self, value))
            if self.table.post(self.loop, _on_sample, key) < 0:
                _on_sample(None, key)  # refused, so it is still ours

    def drop(self) -> None:
        with self.lock:
            self.dropped += 1


class Sensor:
    """A sensor in a loop; `attach` makes it."""

    def __init__(self, path: str, owner: object) -> None:
        self._state = _State(owner)
        try:
            self._state.start_io(path)
            self._state.start_timer(path)
        except OSError:
            self._state.stop()
            raise

    def __del__(self) -> None:
        if hasattr(self, "_state"):
            self._state.stop()

    def close(self) -> None:
        """End the sensor, not the loop. Idempotent."""
        self._state.stop()

    def has_ended(self) -> bool:
        """Whether the descriptor is closed and the thread joined."""
        return self._state.has_ended

    def counts(self) -> dict[str, int]:
        """Return what has happened so far."""
        return {**self._state.counts, "dropped": self._state.dropped}


# ---- what C calls, in the loop's thread; ctypes takes the GIL for each call ----------


@IoFn
def _on_readable(_loop: int, _io: int, _events: int, key: int) -> int:
    """Return 0, or -errno, which running the loop raises as an OSError."""
    state = _memory[key]
    try:
        data = os.read(state.fd, 4096)
    except BlockingIOError:
        return 0
    except OSError as error:
        return -error.errno
    if not data:
        state.stop()  # unplugged; removing ourselves in our own call is fine
    state.counts["bytes"] += len(data)
    return -errno.EPROTO if b"!" in data else 0


@TimerFn
def _on_tick(_loop: int, _timer: int, key: int) -> int:
    """Count. The first tick starts the thread, since nothing can fail any more."""
    state = _memory[key]
    state.counts["ticks"] += 1
    if state.thread is None:
        thread = threading.Thread(target=state.measure, name="sensor")
        try:
            thread.start()
        except RuntimeError:
            return -errno.EAGAIN
        state.thread = thread
    return 0


@PostFn
def _on_sample(loop: int | None, key: int, memory: dict[int, object] = _memory) -> int:
    """Take a sample; without a loop, the loop was closed or refused the post.

    A loop that was not closed calls this for the remaining samples when the interpreter
    ends. The globals of this module are gone by then; the default of an argument is
    not.
    """
    state, value = memory.pop(key)
    if loop is None:
        state.drop()
    else:
        state.counts["samples"] += 1
        state.counts["total"] += value
    return 0


@DestroyedFn
def _on_io_destroyed(key: int) -> None:
    """Close the FIFO and join the thread: this is called exactly once, always.

    The garbage collector may call it in the sensor's own thread. That thread cannot
    join itself, and only ends its work.
    """
    state = _memory.pop(key)
    if state.thread not in (None, threading.current_thread()):
        state.thread.join()
    os.close(state.fd)
    state.has_ended = True


@DestroyedFn
def _on_timer_destroyed(key: int) -> None:
    del _memory[key]


@atexit.register
def _end() -> None:
    """End the sensors that were not closed, before the interpreter ends."""
    for state in list(_states):
        state.stop()


# C may call these until the process ends, so they must not be freed with the module.
for _callback in (
    _on_readable,
    _on_tick,
    _on_sample,
    _on_io_destroyed,
    _on_timer_destroyed,
):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_callback))
