"""What programs override or replace on EventLoop: as on asyncio's own loop."""

# What replaces methods takes whatever they take, and selector keys declare Any.
# mypy: disable-error-code="explicit-any"

from __future__ import annotations

import asyncio
import collections
import contextlib
import selectors
import socket
import threading
from typing import TYPE_CHECKING, cast
from unittest import mock

import pytest
from tests.python.hosts.asyncio.asyncio_loops import (
    KINDS,
    Loop,
    errors_of,
    kind_of,
    make_loop,
    needs_iteration,
    nothing,
    run_for,
    turn,
    until,
)

import fdmux
from fdmux import _delivery
from fdmux.hosts.asyncio import EventLoop, private
from fdmux.hosts.asyncio.selector import StreamSelector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from _typeshed import FileDescriptorLike

    Pairs = list[tuple[selectors.SelectorKey, int]]

loop = pytest.fixture(params=KINDS)(make_loop)
kind = pytest.fixture(params=KINDS)(kind_of)
LATER = 1000.0


def sub(kind: type[Loop], **methods: object) -> Loop:
    """Make a loop of a class with these methods."""
    return cast("type[Loop]", type("Sub", (kind,), methods))()


# ---- methods of a subclass, and of the object ----------------------------------------


@pytest.mark.parametrize("where", ["class", "object", "object while running"])
def test_run_once_may_be_replaced(kind: type[Loop], where: str) -> None:
    def run_once(self: Loop) -> None:
        seen.append(1)
        kind._run_once(self)

    seen: list[int] = []
    loop = sub(kind, _run_once=run_once) if where == "class" else kind()
    if where == "object":
        loop._run_once = lambda: run_once(loop)  # type: ignore[method-assign] # the test
    if where == "object while running":
        loop.call_soon(setattr, loop, "_run_once", lambda: run_once(loop))
    for _ in range(3):
        loop.call_soon(loop.call_soon, nothing)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert len(seen) > 1
    if where != "class":
        del loop._run_once
    count = len(seen)
    turn(loop)
    assert (len(seen) > count) == (where == "class")
    loop.close()


@pytest.mark.parametrize("where", ["class", "object", "object while running"])
def test_process_events_may_be_replaced(kind: type[Loop], where: str) -> None:
    def process(self: Loop, events: list[object]) -> None:
        seen.extend(events)
        kind._process_events(self, events)

    seen: list[object] = []
    ran: list[bytes] = []
    loop = sub(kind, _process_events=process) if where == "class" else kind()

    def replace() -> None:
        loop._process_events = lambda events: process(loop, events)  # type: ignore[assignment, method-assign] # the test

    if where == "object":
        replace()
    if where == "object while running":
        loop.call_soon(replace)
        turn(loop)
    left, right = socket.socketpair()
    with left, right:
        loop.add_reader(left, lambda: ran.append(left.recv(1)))
        right.send(b".")
        until(loop, lambda: bool(ran))
        loop.remove_reader(left)
    assert ran == [b"."]
    assert len(seen) >= 1
    loop.close()


@pytest.mark.parametrize("where", ["class", "object"])
def test_call_at_may_be_replaced_and_serves_call_later(
    kind: type[Loop], where: str
) -> None:
    def call_at(
        self: Loop,
        when: float,
        callback: Callable[..., object],
        *args: object,
        **more: object,
    ) -> asyncio.TimerHandle:
        seen.append(args)
        return kind.call_at(self, when, callback, *args, **more)  # type: ignore[arg-type] # a context

    seen: list[object] = []
    ran: list[object] = []
    loop = sub(kind, call_at=call_at) if where == "class" else kind()
    if where == "object":
        loop.call_at = lambda *args, **more: call_at(loop, *args, **more)  # type: ignore[method-assign] # the test
    loop.call_later(0, ran.append, 1)
    loop.call_later(0, ran.append, 2, context=None)
    turn(loop)
    assert seen == [(1,), (2,)]
    assert ran == [1, 2]
    loop.close()


def test_call_soon_may_be_replaced_and_serves_tasks(kind: type[Loop]) -> None:
    def call_soon(
        self: Loop, callback: Callable[..., object], *args: object, **more: object
    ) -> asyncio.Handle:
        seen.append(callback)
        return kind.call_soon(self, callback, *args, **more)  # type: ignore[arg-type] # a context

    seen: list[object] = []
    loop = sub(kind, call_soon=call_soon)
    loop.run_until_complete(asyncio.sleep(0))
    assert len(seen) >= 2
    loop.close()


@pytest.mark.parametrize("where", ["class", "object", "object while running"])
@pytest.mark.parametrize("number", [float, int])
def test_clock_may_be_replaced(
    kind: type[Loop], where: str, number: type[float]
) -> None:
    def tell(*_self: object) -> float:
        now[0] += 1
        return number(now[0])

    now = [100.0]
    ran: list[float] = []
    loop = sub(kind, time=tell) if where == "class" else kind()
    if where == "object":
        loop.time = tell  # type: ignore[method-assign] # the test
    if where == "object while running":
        loop.call_soon(setattr, loop, "time", tell)
        turn(loop)
    timer = loop.call_later(50, lambda: ran.append(now[0]))
    assert timer.when() == pytest.approx(151, abs=10)
    loop.call_at(timer.when() + 1, loop.stop)

    def spin() -> None:
        loop.call_soon(spin)

    spin()
    loop.run_forever()
    assert ran[0] >= timer.when()
    loop._ready.clear()
    loop.close()


def test_clock_that_fails_is_an_error_of_the_loop(loop: Loop) -> None:
    loop.call_later(LATER, nothing)
    loop.time = lambda: 1 / 0  # type: ignore[method-assign] # the test
    for use in (loop._run_once, loop.run_forever):
        with pytest.raises(ZeroDivisionError):
            use()
    with pytest.raises(ZeroDivisionError):
        loop.call_later(1, nothing)
    del loop.time
    turn(loop)


def test_write_to_self_may_be_replaced(loop: Loop) -> None:
    with mock.patch.object(loop, "_write_to_self") as wake:
        loop.call_soon_threadsafe(nothing)
    wake.assert_called_once_with()
    turn(loop)


# ---- a clock whose time passes at once -----------------------------------------------


class VirtualClock:
    """Patches a loop as aiotools.VirtualClock does: its time, and its selector."""

    def __init__(self, loop: Loop) -> None:
        self.now = 0.0
        self.waits: list[float | None] = []
        self.select = loop._selector.select
        self.patches = [
            mock.patch.object(loop._selector, "select", new=self.wait),
            mock.patch.object(loop, "time", new=self.time),
        ]

    def time(self) -> float:
        return self.now

    def wait(self, timeout: float | None) -> Pairs:
        self.waits.append(timeout)
        if timeout:
            self.now += timeout
        return self.select(0)

    def __enter__(self) -> Self:
        for patch in self.patches:
            patch.start()
        return self

    def __exit__(self, *_error: object) -> None:
        for patch in self.patches:
            patch.stop()


def test_virtual_clock_in_a_running_loop(loop: Loop) -> None:
    async def main() -> None:
        with VirtualClock(loop) as clock:
            await asyncio.sleep(LATER)
            assert clock.now == LATER
            await asyncio.wait({asyncio.create_task(asyncio.sleep(LATER))})
            assert clock.now == 2 * LATER
            assert clock.waits
        seen = len(clock.waits)
        await asyncio.sleep(0.001)
        assert len(clock.waits) == seen

    loop.run_until_complete(main())
    assert "select" not in vars(loop._selector)


def test_virtual_clock_of_an_idle_loop(loop: Loop) -> None:
    with VirtualClock(loop) as clock:
        loop.run_until_complete(asyncio.sleep(LATER))
        assert clock.now == LATER
        loop.call_soon_threadsafe(nothing)
        turn(loop)
    turn(loop)


def test_select_that_is_not_replaced_cannot_be_deleted() -> None:
    with StreamSelector() as selector:
        with pytest.raises(AttributeError):
            del selector.select
        selector.select = list  # type: ignore[assignment] # the test
        assert selector.select() == []
        del selector.select
        assert selector.select(0) == []
        assert StreamSelector.select.__doc__ is not None


@pytest.mark.parametrize("is_running", [False, True])
def test_selector_may_be_replaced(loop: Loop, is_running: bool) -> None:
    class Counting(selectors.SelectSelector):
        count = 0

        def select(self, timeout: float | None = None) -> Pairs:
            self.count += 1
            return super().select(timeout)

    old, new = loop._selector, Counting()
    for key in old.get_map().values():
        new.register(key.fileobj, key.events, key.data)
    if is_running:
        loop.call_soon(setattr, loop, "_selector", new)
        turn(loop)
    else:
        loop._selector = new
    timer = threading.Timer(0.01, loop.call_soon_threadsafe, (loop.stop,))
    timer.start()
    loop.run_forever()
    timer.join()
    assert new.count > 0
    count = new.count
    loop._selector = old
    turn(loop)
    assert new.count == count
    new.close()


class Wrapper:
    """Counts the waits of a selector, and passes everything on."""

    def __init__(self, wrapped: selectors.BaseSelector) -> None:
        self.wrapped = wrapped
        self.count = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.wrapped, name)

    def select(self, timeout: float | None = None) -> Pairs:
        self.count += 1
        return self.wrapped.select(timeout)


def test_selector_may_be_wrapped_and_grow(loop: Loop) -> None:
    wrapper = Wrapper(loop._selector)
    loop._selector = cast("selectors.BaseSelector", wrapper)
    with contextlib.ExitStack() as ends:
        for _ in range(100):  # more than the selector has room for at first
            near, far = socket.socketpair()
            ends.callback(far.close)
            ends.callback(near.close)
            loop.add_reader(near, nothing)
            ends.callback(loop.remove_reader, near)
        count = wrapper.count
        turn(loop)
        assert wrapper.count > count


# ---- the queue -----------------------------------------------------------------------


class Queue(list[object]):
    """A list that is a queue."""

    def popleft(self) -> object:
        return self.pop(0)


class Deque(collections.deque[object]):
    """A deque of another class."""


@pytest.mark.parametrize("queue", [collections.deque, Deque, Queue])
@pytest.mark.parametrize("is_running", [False, True])
def test_ready_may_be_replaced(
    loop: Loop, queue: type[Queue], is_running: bool
) -> None:
    ran: list[int] = []
    loop.call_soon(ran.append, 1)
    loop.call_soon(ran.append, 2)

    def replace() -> None:
        loop._ready = queue(loop._ready)  # type: ignore[assignment] # the test

    if is_running:
        loop._ready.insert(0, loop.call_soon(replace))
        del loop._ready[-1]
    else:
        replace()
    assert isinstance(loop._ready, collections.deque if is_running else queue)
    loop.call_soon(ran.append, 3)
    loop.call_at(0, ran.append, 4)
    loop.call_soon_threadsafe(ran.append, 5)
    run_for(loop, 0.001)
    assert isinstance(loop._ready, queue)
    assert ran == [1, 2, 3, 5, 4]
    loop._ready = collections.deque()


def test_ready_takes_handles_of_asyncio(loop: Loop) -> None:
    ran: list[object] = []
    handles = [asyncio.Handle(ran.append, (i,), loop) for i in range(3)]
    loop._ready.append(handles[0])
    loop._ready.extend(handles[1:])
    loop._ready.append(asyncio.TimerHandle(0, ran.append, ("timer",), loop))
    handles[1].cancel()
    turn(loop)
    assert ran == [0, 2, "timer"]


class Foreign:
    """What is no handle, and has what the iteration asks for."""

    def __init__(self, ran: list[str]) -> None:
        self.ran = ran
        self._cancelled = False

    def _run(self) -> None:
        self.ran.append("foreign")


class SubHandle(asyncio.Handle):
    """A handle of a program, which runs in its own way."""

    def _run(self) -> None:
        self._args[0].append("sub")


@pytest.mark.parametrize("is_debug", [False, True])
def test_ready_takes_objects_that_can_be_run(loop: Loop, is_debug: bool) -> None:
    ran: list[str] = []
    loop.set_debug(is_debug)
    queue = cast("list[object]", loop._ready)
    queue.append(Foreign(ran))
    queue.append(Foreign(ran))
    queue[-1]._cancelled = True  # type: ignore[attr-defined] # it has it
    queue.append(SubHandle(ran.append, (ran,), loop))
    turn(loop)
    assert ran == ["foreign", "sub"]


@pytest.mark.parametrize("is_debug", [False, True])
def test_object_that_cannot_be_run_is_an_error(loop: Loop, is_debug: bool) -> None:
    loop.set_debug(is_debug)
    cast("list[object]", loop._ready).append(object())
    with pytest.raises(AttributeError):
        turn(loop)
    loop.run_forever()  # stop() was behind it


def test_queue_that_a_callback_empties_is_an_index_error(loop: Loop) -> None:
    loop.call_soon(loop._ready.clear)
    loop.call_soon(nothing)
    with pytest.raises(IndexError):
        loop._run_once()
    turn(loop)


def test_queue_that_was_deleted_is_an_attribute_error(loop: Loop) -> None:
    ready = loop._ready
    del loop._ready
    for use in (loop._run_once, lambda: loop.call_soon(nothing), lambda: loop._ready):
        with pytest.raises(AttributeError):
            use()
    loop._ready = ready


# ---- selectors -----------------------------------------------------------------------


class Plain(selectors.BaseSelector):
    """A program's own selector, with no more than it must have."""

    def __init__(self) -> None:
        self.inner = selectors.SelectSelector()

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> selectors.SelectorKey:
        return self.inner.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self.inner.unregister(fileobj)

    def select(self, timeout: float | None = None) -> Pairs:
        return self.inner.select(timeout)

    def close(self) -> None:
        self.inner.close()

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self.inner.get_map()


class Noting(StreamSelector):
    """Ours, with a `select` of a program."""

    def select(self, timeout: float | None = None) -> Pairs:
        return list(super().select(timeout))


@pytest.mark.parametrize(
    "made", [selectors.SelectSelector, Plain, fdmux.Selector, StreamSelector, Noting]
)
def test_loop_works_on_any_selector(
    kind: type[Loop], made: Callable[[], selectors.BaseSelector]
) -> None:
    async def main() -> None:
        left, right = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=left)
        _, other = await asyncio.open_connection(sock=right)
        other.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        for each in (writer, other):
            each.close()
            await each.wait_closed()
        await asyncio.get_running_loop().run_in_executor(None, nothing)

    loop = kind(made())
    timer = loop.call_later(LATER, nothing)
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    timer.cancel()
    loop.close()


def test_selector_that_is_closed_behind_is_an_error(kind: type[Loop]) -> None:
    loop = kind()
    selector = loop._selector
    loop.call_soon(nothing)
    selector.close()
    loop.call_soon_threadsafe(nothing)
    with pytest.raises((ValueError, RuntimeError)):
        loop.run_forever()
    # asyncio's own close() would ask the closed selector to unregister.
    loop._closed = True  # type: ignore[attr-defined] # or it would warn
    loop._ssock.close()  # type: ignore[attr-defined] # what close() would
    loop._csock.close()  # type: ignore[attr-defined] # the same


def test_data_that_is_no_pair_of_handles_is_an_error(loop: Loop) -> None:
    left, right = socket.socketpair()
    with left, right:
        right.send(b".")
        for data in (None, 5, (), (None,), (None, None, None)):
            loop._selector.register(left, selectors.EVENT_READ, data)
            with pytest.raises((TypeError, ValueError)):
                loop._run_once()
            loop._selector.unregister(left)
    turn(loop)


# ---- what C is given -----------------------------------------------------------------


@needs_iteration
@pytest.mark.parametrize(
    "args",
    [
        (),
        (None,) * 8,
        (asyncio.Handle,) * 8,
        (int, int, int, int, None, None, None, None),
        (type, type, type, type, None, None, None, None),
        (asyncio.Handle, asyncio.TimerHandle, list, dict, 1, 2, 3, 4),
    ],
)
def test_types_are_made_once_whatever_is_given(args: tuple[object, ...]) -> None:
    made = _delivery.asyncio_types(*args)  # type: ignore[arg-type] # the test
    assert made == (private.Handle, private.TimerHandle, private.LoopBase)


@needs_iteration
def test_wrong_objects_are_refused() -> None:
    loop = EventLoop()
    wrong: list[tuple[object, ...]] = [(), (1,), (None, object(), 0, None, 0, 0, [])]
    for args in wrong:
        with pytest.raises((TypeError, ValueError)):
            loop._use_selector(*args)  # type: ignore[arg-type] # the test
    with StreamSelector() as selector:
        streams = _delivery.Delivery(selector.native.__fdmux_loop__())
        with pytest.raises(TypeError, match="LoopBase"):
            streams.watch(asyncio.SelectorEventLoop)
        assert streams.watch(None) == 0
        streams.disown()
    loop._delivery = object()  # type: ignore[assignment] # the test
    loop._clock_resolution = 0
    turn(cast("Loop", loop))
    loop._delivery = None
    errors_of(cast("Loop", loop))
    loop.close()
