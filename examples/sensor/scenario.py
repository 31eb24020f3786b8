"""What every sensor of these examples must do, in whatever language it is written.

A sensor reads a FIFO, has a timer of 2 ms, and a thread that posts 1,000 samples. `run`
tests one in a SelectorEventLoop, a NativeLoop and asyncio. It prints what happened, and
ends the program with exit code 1 at the first wrong result.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import fdmux

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLE_COUNT = 1000
SAMPLE_TOTAL = sum(range(SAMPLE_COUNT))


class Sensor(Protocol):
    """A sensor that runs in a loop of the program."""

    def counts(self) -> dict[str, int]:
        """Return what has happened: bytes, ticks, samples, total, dropped."""

    def has_ended(self) -> bool:
        """Whether the descriptor is closed and the thread joined."""

    def close(self) -> None:
        """End the sensor, not the loop. Idempotent."""


class SensorModule(Protocol):
    """What each of the example packages offers."""

    def attach(self, path: str, loop: object = None) -> Sensor:
        """Open a sensor in a loop; in that of ``fdmux.current()`` if none is given."""

    def live(self) -> int:
        """Count the sensors whose memory is not freed yet."""


def check(is_so: bool, text: str) -> None:
    """Print a result that is right; with a wrong one, end the program."""
    if not is_so:
        sys.exit(f"WRONG   {text}")
    print(f"ok      {text}")


def run_until(loop: fdmux.SelectorEventLoop, is_done: Callable[[], bool]) -> None:
    """Run the loop until a condition holds, 10 s at most."""
    deadline = time.monotonic() + 10
    while not is_done():
        if time.monotonic() > deadline:
            sys.exit("WRONG   nothing happened for 10 s")
        loop.run_once(timeout=0.01)


@contextlib.contextmanager
def writer_of(path: str) -> Iterator[int]:
    """Open the other end of a sensor's FIFO; leaving unplugs the sensor."""
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def is_complete(sensor: Sensor) -> bool:
    """Whether every sample has arrived or was given back, and some ticks came."""
    counts = sensor.counts()
    return counts["ticks"] >= 3 and counts["samples"] == SAMPLE_COUNT


def check_counts(sensor: Sensor, byte_count: int) -> None:
    """No sample was lost, and none came twice."""
    counts = sensor.counts()
    expected = {
        "bytes": byte_count,
        "samples": SAMPLE_COUNT,
        "total": SAMPLE_TOTAL,
        "dropped": 0,
    }
    is_so = all(counts[name] == value for name, value in expected.items())
    check(is_so, f"counted: {counts}")


def run_beside_python(module: SensorModule, path: str) -> None:
    """A sensor and callbacks of Python in one loop, until the sensor is unplugged."""
    with fdmux.SelectorEventLoop() as loop:
        exercise(loop, module.attach(path, loop), path)
        check(module.live() == 0, "its memory is freed while the loop goes on")


def exercise(loop: fdmux.SelectorEventLoop, sensor: Sensor, path: str) -> None:
    """A callback of Python writes what native code reads."""
    left = [b"reading %d" % number for number in range(10)]
    with writer_of(path) as writer:

        def write() -> None:
            os.write(writer, left.pop())
            if left:
                loop.call_later(0.001, write)

        loop.call_later(0, write)
        run_until(loop, lambda: is_complete(sensor) and not left)
        run_until(loop, lambda: sensor.counts()["bytes"] == 90)
        check_counts(sensor, 90)
        provoke_error(loop, sensor, writer)
    run_until(loop, sensor.has_ended)
    check(True, "its writer is gone, so the sensor removed itself")


def provoke_error(loop: fdmux.SelectorEventLoop, sensor: Sensor, writer: int) -> None:
    """A negative result of a native function is an OSError when the loop runs."""
    os.write(writer, b"!")
    try:
        run_until(loop, lambda: False)
    except OSError as error:
        check(error.errno == errno.EPROTO, f"an error of the native function: {error}")
    os.write(writer, b"still there?")
    run_until(loop, lambda: sensor.counts()["bytes"] == 103)
    check(not sensor.has_ended(), "the sensor goes on after it")


def run_without_a_loop(module: SensorModule, path: str) -> None:
    """In a callback the sensor finds the loop itself, with fdmux.current()."""
    found: list[Sensor] = []
    with fdmux.SelectorEventLoop() as loop:
        loop.call_later(0, lambda: found.append(module.attach(path)))
        run_until(loop, lambda: bool(found) and is_complete(found[0]))
        check_counts(found[0], 0)
        found[0].close()
        check(found[0].has_ended(), "fdmux.current() found the loop; close() ended it")
        found[0].close()
    found.clear()
    check(module.live() == 0, "close() twice freed the memory once")


def close_loop_under_it(module: SensorModule, path: str) -> None:
    """The loop ends first: `destroyed` ends the sensor; the posted samples come back.

    The program keeps the sensor, and reads its counts afterwards.
    """
    with fdmux.NativeLoop() as loop:
        sensor = module.attach(path, loop)
        deadline = time.monotonic() + 10
        while not sensor.counts()["ticks"] and time.monotonic() < deadline:
            loop.dispatch(timeout=0)  # so that it returns while the thread is posting
    check(sensor.has_ended(), "closing the loop ended the sensor")
    counts = sensor.counts()
    is_so = counts["samples"] + counts["dropped"] == SAMPLE_COUNT
    check(is_so, f"{counts['samples']} samples run, {counts['dropped']} given back")
    sensor.close()
    del sensor
    check(module.live() == 0, "close() after the loop's did no harm")


def drop_it(module: SensorModule, path: str) -> None:
    """The program drops the sensor: that ends it, as close() does."""
    with fdmux.SelectorEventLoop() as loop:
        use(loop, module.attach(path, loop))
        run_until(loop, lambda: module.live() == 0)
    check(True, "a sensor that was forgotten has freed its memory")


def use(loop: fdmux.SelectorEventLoop, sensor: Sensor) -> None:
    """Hold the last reference to a sensor, until it is complete."""
    run_until(loop, lambda: is_complete(sensor))


def refuse(module: SensorModule, path: str) -> None:
    """A wrong call raises an exception and leaves nothing behind."""
    with fdmux.SelectorEventLoop() as loop:
        # fdmux_from_object tries to mount on it; others call its __fdmux_loop__().
        no_loop = (TypeError, AttributeError)
        must_raise(no_loop, 0, lambda: module.attach(path, "not a loop"))
        must_raise(RuntimeError, 0, lambda: module.attach(path))
        must_raise(OSError, errno.ENOENT, lambda: module.attach(path + "?", loop))
        native = loop.native
        if native.backend == "epoll":  # epoll_ctl(2): EPERM for regular files
            must_raise(OSError, errno.EPERM, lambda: module.attach(__file__, loop))
    must_raise(OSError, errno.ESTALE, lambda: module.attach(path, native))
    check(module.live() == 0, "no refused sensor is in memory")


def must_raise(
    kind: type[Exception] | tuple[type[Exception], ...],
    code: int,
    attempt: Callable[[], object],
) -> None:
    """Make an attempt that must fail with this class, and with errno if not 0."""
    try:
        attempt()
    except kind as error:
        is_so = not code or getattr(error, "errno", 0) == code
        check(is_so, f"refused: {type(error).__name__}: {error}")
    else:
        sys.exit(f"WRONG   {kind!r} was not raised")


async def wait_until(is_done: Callable[[], bool]) -> None:
    """Let asyncio run until a condition holds, 10 s at most."""
    deadline = time.monotonic() + 10
    while not is_done():
        if time.monotonic() > deadline:
            sys.exit("WRONG   nothing happened in asyncio for 10 s")
        await asyncio.sleep(0.001)


async def live_in_asyncio(module: SensorModule, path: str) -> None:
    """Attach in a coroutine, without being given a loop."""
    sensor = module.attach(path)
    with writer_of(path) as writer:
        os.write(writer, b"hello")
        await wait_until(lambda: is_complete(sensor) and sensor.counts()["bytes"] == 5)
        check_counts(sensor, 5)
    await wait_until(sensor.has_ended)


def run_in_asyncio(module: SensorModule, path: str) -> None:
    """Asyncio on our selector needs nothing more."""
    loop = asyncio.SelectorEventLoop(fdmux.Selector())
    try:
        loop.run_until_complete(live_in_asyncio(module, path))
    finally:
        loop.close()
    check(module.live() == 0, "the same in asyncio, on a fdmux.Selector")


def resources() -> tuple[int, int]:
    """Count the threads and descriptors of this process, those of C code included."""
    process = Path("/proc/self")
    return len(list((process / "task").iterdir())), len(
        list((process / "fd").iterdir())
    )


def run(module: SensorModule) -> None:
    """Run every part; afterwards no sensor, thread or descriptor may be left."""
    before = resources()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/sensor"
        os.mkfifo(path)
        run_beside_python(module, path)
        run_without_a_loop(module, path)
        close_loop_under_it(module, path)
        drop_it(module, path)
        refuse(module, path)
        run_in_asyncio(module, path)
    deadline = time.monotonic() + 1
    while resources() != before and time.monotonic() < deadline:
        time.sleep(0.001)  # /proc shows a thread for a moment after it was joined
    after = resources()
    check(after == before, f"threads and descriptors before {before}, after {after}")
