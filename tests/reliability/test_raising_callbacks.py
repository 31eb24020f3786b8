"""Callbacks that raise: reported once, the others are called, the loop goes on.

The error hook gets an ordinary exception; without a hook, `run` raises it. That of a
stream ends the stream and is logged. `run` raises Ctrl-C and SystemExit from any
callback. The rest of the batch is called in any case, and the loop goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import logging
import operator
import selectors
import socket
import sys
import weakref
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import pytest
from tests.compiled import NativeLoad, load_beside
from tests.reliability.raising_places import COUNT, PLACES, VICTIM, Trap

from fdmux import (
    NativeLoop,
    Selector,
    SelectorEventLoop,
    StreamHandler,
    add_stream,
    mount,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from tests.compiled import HasLoop
    from tests.reliability.conftest import Bars
    from tests.reliability.raising_places import Place

    from fdmux import Stream

    Report = Callable[[BaseException], object]

LONG = 30.0
TRIES = 100  # iterations of 10 ms at most, for what takes a few
TURNS = 10_000  # of asyncio, which do not wait


class OddError(BaseException):
    """A BaseException, which no code in between may catch."""


def endless() -> RecursionError:
    """Return what a callback without an end raises."""

    def call() -> None:
        call()

    try:
        call()
    except RecursionError as error:
        return error.with_traceback(None)
    raise AssertionError


ERRORS: list[Callable[[], BaseException]] = [
    ZeroDivisionError,
    MemoryError,
    endless,
    StopIteration,
    lambda: OSError(errno.EBADF, "of a callback"),
    lambda: InterruptedError(errno.EINTR, "of a callback"),
    KeyboardInterrupt,
    lambda: SystemExit(3),
    GeneratorExit,
    OddError,
]


class Outcome(NamedTuple):
    """Where the exception was reported, and how often each callback was called."""

    reports: int
    strangers: list[BaseException]
    missed: int
    twice: int
    is_usable: bool


class Reports(logging.Handler):
    """Collects the exceptions reported by the hook, by `run`, or in the log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.told.append(record.exc_info[1])

    def hook(self, error: Exception, _source: object) -> None:
        self.told.append(error)


@contextlib.contextmanager
def reports() -> Iterator[Reports]:
    logger = logging.getLogger("fdmux")
    taker = Reports()
    logger.addHandler(taker)
    logger.propagate = False
    yield taker
    logger.propagate = True
    logger.removeHandler(taker)


def run_until_all(loop: SelectorEventLoop, trap: Trap, taker: Reports) -> None:
    """Iterate until each was called, and once more to find an extra call."""
    for _ in range(TRIES):
        is_over = all(trap.counts)
        try:
            loop.run(0 if is_over else 0.01, max_iterations=1)
        except BaseException as error:  # noqa: BLE001 - each kind is thrown here
            taker.told.append(error)
            continue
        if is_over:
            return


class Answers(StreamHandler):
    """Echoes."""

    def on_data(self, _stream: Stream, data: bytes) -> bytes:
        return data


def is_usable(loop: SelectorEventLoop) -> bool:
    """Whether each kind of callback is called, and a stream echoes."""
    called: set[str] = set()
    here, there = socket.socketpair()
    left, right = socket.socketpair()

    def read(sock: socket.socket) -> None:
        called.update((sock.recv(9) or b"").decode())

    with here, there:
        loop.register_read(here, read)
        there.send(b"r")
        stream = add_stream(loop, right, Answers())
        loop.register_read(left, read)
        left.send(b"s")
        loop.call_later(0, called.add, "t")
        loop.call_soon_threadsafe(called.add, "p")
        for _ in range(TRIES):
            if called == set("rstp"):
                break
            loop.run_once(0.01)
        stream.abort()
        loop.unregister(here)
        loop.unregister(left)
        left.close()
        loop.run_once(0)
    return called == set("rstp")


def go(place: Place, error: BaseException, *, has_hook: bool) -> Outcome:
    """Raise in a place; return where it was reported and what was called."""
    trap = Trap(error)
    with reports() as taker, contextlib.ExitStack() as stack:
        loop = SelectorEventLoop(error_hook=taker.hook if has_hook else None)
        stack.callback(loop.close)
        place.prepare(loop, trap, stack)
        run_until_all(loop, trap, taker)
        expected = [1] * COUNT
        # Readiness is still there when the callback has raised: it is called again.
        expected[VICTIM] = place.victim_calls
        missing = list(map(operator.sub, expected, trap.counts))
        usable = is_usable(loop)
    return Outcome(
        sum(told is error for told in taker.told),
        [told for told in taker.told if told is not error],
        sum(max(count, 0) for count in missing),
        sum(max(-count, 0) for count in missing),
        usable,
    )


@pytest.mark.commit
@pytest.mark.slow
@pytest.mark.parametrize("has_hook", [False, True], ids=["no-hook", "hook"])
def test_callbacks_that_raise_take_nothing_from_others(
    bars: Bars, *, has_hook: bool
) -> None:
    cases = [(name, make) for name in PLACES for make in ERRORS]
    outcomes = []
    for name, make in cases:
        error = make()
        outcomes.append(go(PLACES[name], error, has_hook=has_hook))
        if outcomes[-1] != (1, [], 0, 0, True):
            print(name, repr(error), outcomes[-1])  # noqa: T201 - which one it was
    title = f"raising callbacks, {'with' if has_hook else 'without'} a hook"
    unheard = sum(one.reports != 1 for one in outcomes)
    bars.at_least(160, f"{title}: places times errors", len(outcomes))
    bars.at_most(0, f"{title}: not told exactly once", unheard)
    strangers = sum(len(one.strangers) for one in outcomes)
    bars.at_most(0, f"{title}: other errors told", strangers)
    bars.at_most(0, f"{title}: callbacks missed", sum(one.missed for one in outcomes))
    bars.at_most(0, f"{title}: callbacks twice", sum(one.twice for one in outcomes))
    broken = sum(not one.is_usable for one in outcomes)
    bars.at_most(0, f"{title}: loops unusable afterwards", broken)


# ---- a hook that raises, a finalizer that raises, the end of a loop ------------------


@pytest.mark.commit
def test_hook_that_raises_takes_nothing_from_others(bars: Bars) -> None:
    """The exception leaves `run`; the next run goes on."""
    names = ["a callback for reading", "a timer", "a posted call"]
    missed = told = 0

    def hook(_error: Exception, _source: object) -> None:
        raise LookupError

    for name in names:
        trap = Trap(ZeroDivisionError())
        with reports() as taker, contextlib.ExitStack() as stack:
            loop = SelectorEventLoop(error_hook=hook)
            stack.callback(loop.close)
            PLACES[name].prepare(loop, trap, stack)
            run_until_all(loop, trap, taker)
            told += [type(one) for one in taker.told] == [LookupError]
            missed += trap.counts.count(0) + (not is_usable(loop))
    bars.at_least(len(names), "hooks that raise: told by run", told)
    bars.at_most(0, "hooks that raise: callbacks missed", missed)


class Fragile:
    """Raises in its finalizer, as does the callback of its weak reference."""

    def __del__(self) -> None:
        raise ZeroDivisionError


@pytest.mark.commit
def test_finalizers_that_raise_take_nothing_from_others(
    bars: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python reports them to `sys.unraisablehook`; the loop does not notice."""
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda one: told.append(one.exc_type))
    references = []
    trap = Trap(AssertionError())
    trap.is_armed = False

    def drop(number: int) -> None:
        fragile = Fragile()
        references.append(weakref.ref(fragile, lambda _: 1 // 0))
        del fragile
        trap.pass_through(number)

    with SelectorEventLoop() as loop:
        for number in range(COUNT):
            loop.call_later(0, drop, number)
        loop.run_once(0)
        assert is_usable(loop)
    bars.at_most(0, "finalizers that raise: callbacks missed", trap.counts.count(0))
    told_of = f"finalizers that raise: told of {2 * COUNT}"
    bars.at_least(2 * COUNT, told_of, told.count(ZeroDivisionError))


@pytest.mark.commit
def test_close_of_a_loop_tells_every_stream_whatever_one_raises(bars: Bars) -> None:
    """An ordinary error is logged; another leaves `close`, which then goes on."""
    missed = told = 0
    for make in ERRORS:
        trap = Trap(make())
        with reports() as taker, contextlib.ExitStack() as stack:
            loop = SelectorEventLoop()
            PLACES["on_close"].prepare(loop, trap, stack)
            for _ in range(2):
                try:
                    loop.close()
                except BaseException as error:  # noqa: BLE001 - each kind, as above
                    taker.told.append(error)
            told += [one is trap.error for one in taker.told] == [True]
            missed += trap.counts.count(0)
    bars.at_least(len(ERRORS), "close among on_close that raises: told once", told)
    bars.at_most(0, "close among on_close that raises: streams not told", missed)


# ---- native functions that return an error -------------------------------------------


class Counts(ctypes.Structure):
    """struct counts of native_errors.c."""

    _fields_: ClassVar = [("called", ctypes.c_int64), ("destroyed", ctypes.c_int64)]
    called: int
    destroyed: int


KINDS = ("errors_watch", "errors_timer", "errors_post", "errors_hook")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("errors")
    return load_beside(__file__, "native_errors.c", folder)


class Crowd:
    """Native functions of each kind, one of which returns an error, once."""

    def __init__(self, library: ctypes.CDLL, owner: HasLoop) -> None:
        load = NativeLoad(library, owner)
        self._pairs = [socket.socketpair() for _ in range(COUNT)]
        self.counts: list[Counts] = []
        for kind in KINDS:
            for number, (here, there) in enumerate(self._pairs):
                counts = Counts()
                self.counts.append(counts)
                result = -errno.EPROTO if number == VICTIM else 0
                there.send(b"x")
                made = load.call(kind, here.fileno(), result, ctypes.byref(counts))
                assert made == 0

    @property
    def missed(self) -> int:
        return sum(not one.called for one in self.counts)

    def run(
        self, iterate: Callable[[float], object], told: list[BaseException]
    ) -> Self:
        """Iterate until each was called; report what `run` raises."""
        for _ in range(TRIES):
            if not self.missed:
                break
            try:
                iterate(0.01)
            except OSError as error:
                told.append(error)
        return self

    async def wait(self) -> Self:
        """Let asyncio iterate until each was called."""
        for _ in range(TURNS):
            if not self.missed:
                break
            await asyncio.sleep(0)
        return self

    def close(self) -> None:
        for pair in self._pairs:
            for sock in pair:
                sock.close()


def by_a_selector(library: ctypes.CDLL, told: list[BaseException]) -> Crowd:
    with Selector() as selector:
        return Crowd(library, selector).run(selector.select, told)


def by_the_poll_backend(library: ctypes.CDLL, told: list[BaseException]) -> Crowd:
    with Selector("poll") as selector:
        return Crowd(library, selector).run(selector.select, told)


def by_dispatch(library: ctypes.CDLL, told: list[BaseException]) -> Crowd:
    with NativeLoop() as native:
        return Crowd(library, native).run(native.dispatch, told)


def by_a_loop(library: ctypes.CDLL, told: list[BaseException]) -> Crowd:
    with SelectorEventLoop() as loop:
        crowd = Crowd(library, loop).run(loop.run_once, told)
        assert is_usable(loop)
    return crowd


def by_a_loop_on_a_stranger(library: ctypes.CDLL, told: list[BaseException]) -> Crowd:
    """On another selector the native loop is one descriptor."""
    with SelectorEventLoop(selectors.DefaultSelector()) as loop:
        crowd = Crowd(library, loop).run(loop.run_once, told)
        assert is_usable(loop)
    return crowd


def by_asyncio(library: ctypes.CDLL, told: list[BaseException]) -> Crowd:
    """Mounted: errors go to its exception handler."""

    async def serve() -> Crowd:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: told.append(context["exception"])
        )
        with mount() as mounted:
            return await Crowd(library, mounted).wait()

    return asyncio.run(serve())


def by_the_hook_of_a_mount(library: ctypes.CDLL, told: list[BaseException]) -> Crowd:
    """Mounted: its own hook takes errors before the host."""

    async def serve() -> Crowd:
        with mount() as mounted:
            mounted.error_hook = lambda error, _: told.append(error)
            return await Crowd(library, mounted).wait()

    return asyncio.run(serve())


HOSTS = [
    by_a_selector,
    by_the_poll_backend,
    by_dispatch,
    by_a_loop,
    by_a_loop_on_a_stranger,
    by_asyncio,
    by_the_hook_of_a_mount,
]


@pytest.mark.commit
@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.__name__)
def test_native_errors_take_nothing_from_others(
    bars: Bars,
    library: ctypes.CDLL,
    host: Callable[[ctypes.CDLL, list[BaseException]], Crowd],
) -> None:
    told: list[BaseException] = []
    crowd = host(library, told)
    crowd.close()
    title = f"native errors, {host.__name__.replace('_', ' ')}"
    right = sum(getattr(one, "errno", 0) == errno.EPROTO for one in told)
    bars.at_least(len(KINDS), f"{title}: errors returned and told", right)
    bars.at_most(len(KINDS), f"{title}: errors told", len(told))
    bars.at_most(0, f"{title}: functions not called", crowd.missed)
    ended = sum(one.destroyed == 1 for one in crowd.counts)
    bars.at_least(len(crowd.counts), f"{title}: ended exactly once", ended)
