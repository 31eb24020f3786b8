"""Transports of asyncio: the limits of the write buffer, and what C asks of Python."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import warnings
import weakref
from typing import TYPE_CHECKING, cast

import pytest
from tests.python.hosts.asyncio.asyncio_ends import (
    BIG,
    BOTH,
    SOON,
    Loop,
    Recorder,
    connect,
    make_loop,
    receive_size,
    run,
    turns,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

loop = pytest.fixture(params=BOTH)(make_loop)

DEFAULT = (16 * 1024, 64 * 1024)


def with_transport(
    loop: Loop, use: Callable[[asyncio.Transport], Coroutine[object, object, None]]
) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            await use(transport)
            transport.abort()
            await protocol.lost

    run(loop, main())


@pytest.mark.parametrize(
    ("high", "low", "limits"),
    [
        (None, None, DEFAULT),
        (None, 5, (5, 20)),
        (7, None, (1, 7)),
        (0, 0, (0, 0)),
        (2**70, None, (2**68, 2**70)),
        (10.5, 1.5, (1.5, 10.5)),
        (1e300, 1e299, (1e299, 1e300)),
        (10**400, 5, (5, 10**400)),
    ],
)
def test_limits_may_be_any_numbers(
    loop: Loop, high: float | None, low: float | None, limits: tuple[float, float]
) -> None:
    async def use(transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=high, low=low)  # type: ignore[arg-type] # floats too
        assert transport.get_write_buffer_limits() == limits
        transport.write(b"x")

    with_transport(loop, use)


@pytest.mark.parametrize(
    ("high", "low", "text"),
    [
        (1, 2, r"high \(1\) must be >= low \(2\) must be >= 0"),
        (-1, None, r"high \(-1\) must be >= low \(-1\) must be >= 0"),
        (None, -2, r"high \(-8\) must be >= low \(-2\) must be >= 0"),
        (float("inf"), None, r"high \(inf\) must be >= low \(nan\) must be >= 0"),
        ("x", None, "unsupported operand"),
        (1, "x", "'>=' not supported"),
        ([1], [0], "'>=' not supported"),
    ],
)
def test_wrong_limits_are_refused_and_change_nothing(
    loop: Loop, high: object, low: object, text: str
) -> None:
    async def use(transport: asyncio.Transport) -> None:
        with pytest.raises((ValueError, TypeError), match=text):
            transport.set_write_buffer_limits(high, low)  # type: ignore[arg-type] # wrong on purpose
        with pytest.raises(TypeError):
            transport.set_write_buffer_limits(1, 2, 3)  # type: ignore[call-arg] # the same
        with pytest.raises(TypeError):
            transport.set_write_buffer_limits(height=1)  # type: ignore[call-arg] # the same
        assert transport.get_write_buffer_limits() == DEFAULT

    with_transport(loop, use)


class Ordered:
    """Can be compared, but is no number."""

    def __ge__(self, other: object) -> bool:
        return True

    __le__ = __ge__


@pytest.mark.parametrize("loop", ["ours"], indirect=True)
def test_limit_that_is_no_number_is_refused(loop: Loop) -> None:
    async def use(transport: asyncio.Transport) -> None:
        with pytest.raises(TypeError, match="real number"):
            transport.set_write_buffer_limits(Ordered(), 1)  # type: ignore[arg-type] # wrong on purpose
        assert transport.get_write_buffer_limits() == DEFAULT

    with_transport(loop, use)


def test_deleted_limits_are_an_attribute_error(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[str] = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda it: reported.append(repr(it.exc_value))
    )

    async def use(transport: asyncio.Transport) -> None:
        del transport._high_water  # type: ignore[attr-defined] # private
        with pytest.raises(AttributeError, match="_high_water"):
            transport.get_write_buffer_limits()
        try:
            transport.write(bytes(BIG))
        except AttributeError as error:  # of asyncio's own transport
            reported.append(repr(error))
        assert ["_high_water" in text for text in reported] == [True]
        transport.set_write_buffer_limits(5)
        assert transport.get_write_buffer_limits() == (1, 5)

    with_transport(loop, use)


def test_limits_in_a_cycle_are_collected(loop: Loop) -> None:
    class Mark:
        """Shows, by a weak reference, that what refers to it is gone."""

    class Number(int):
        owned: tuple[Mark, asyncio.Transport]

    gone: list[weakref.ref[Mark]] = []

    async def use(transport: asyncio.Transport) -> None:
        number = Number(1000)
        number.owned = (Mark(), transport)
        gone.append(weakref.ref(number.owned[0]))
        transport.set_write_buffer_limits(number, number)

    with_transport(loop, use)
    gc.collect()
    assert gone[0]() is None


@pytest.mark.parametrize("loop", ["ours"], indirect=True)
def test_deleted_protocol_is_an_attribute_error(loop: Loop) -> None:
    reported: list[str] = []
    loop.set_exception_handler(
        lambda _loop, context: reported.append(context["message"])
    )

    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            transport.write(bytes(BIG))
            assert protocol.events == ["made", "pause"]
            del transport._protocol  # type: ignore[attr-defined] # private
            assert len(await receive_size(far, BIG)) == BIG
            transport.abort()
            await turns()
        assert reported[0] == "protocol.resume_writing() failed"

    run(loop, main())


class Stubborn(Recorder):
    """Is interrupted when it is resumed."""

    def resume_writing(self) -> None:
        super().resume_writing()
        raise KeyboardInterrupt


def test_ctrl_c_in_resume_writing_leaves_the_loop(loop: Loop) -> None:
    loop.set_exception_handler(lambda _loop, _context: None)

    async def main() -> None:
        transport, protocol, far = await connect(Stubborn)
        with far:
            transport.write(bytes(BIG))
            assert len(await receive_size(far, BIG)) == BIG
            transport.abort()
            await protocol.lost
        assert protocol.events == ["made", "pause", "resume", "lost"]

    task = loop.create_task(asyncio.wait_for(main(), SOON))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(task)


class Abrupt(Recorder):
    """Is interrupted when it is paused."""

    def pause_writing(self) -> None:
        super().pause_writing()
        raise KeyboardInterrupt


def test_ctrl_c_in_pause_writing_leaves_the_loop(loop: Loop) -> None:
    async def begin() -> tuple[asyncio.Transport, Recorder, socket.socket]:
        return await connect(Abrupt)

    transport, protocol, far = loop.run_until_complete(begin())
    with far:
        loop.call_soon(transport.write, bytes(BIG))
        late = loop.call_later(SOON, loop.stop)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        late.cancel()
        assert protocol.events == ["made", "pause"]
        transport.abort()
        assert loop.run_until_complete(protocol.lost) is None


@pytest.mark.parametrize("loop", ["ours"], indirect=True)
def test_ctrl_c_in_pause_writing_is_printed_if_the_loop_closes_at_once(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda it: reported.append(it.exc_type))

    async def begin() -> tuple[asyncio.Transport, Recorder, socket.socket]:
        return await connect(Abrupt)

    transport, protocol, far = loop.run_until_complete(begin())
    with far:
        transport.write(bytes(BIG))  # outside of a run: nobody raises it
        gone = weakref.ref(protocol)
        loop.close()
        assert reported == [KeyboardInterrupt]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # they are not closed
            del transport, protocol
            gc.collect()
        assert gone() is None


def test_transport_is_what_asyncio_asks_for(loop: Loop) -> None:
    async def use(transport: asyncio.Transport) -> None:
        assert isinstance(transport, asyncio.Transport)
        assert isinstance(transport, asyncio.transports._FlowControlMixin)
        transport.note = "of the program"  # type: ignore[attr-defined] # allowed
        assert weakref.ref(transport)() is transport
        with pytest.raises(TypeError):
            transport.write()  # type: ignore[call-arg] # wrong on purpose
        with pytest.raises(TypeError):
            transport.writelines([b"x", "y"])  # type: ignore[list-item] # the same

    with_transport(loop, use)


def test_socket_outlives_its_transport(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        sock = cast("socket.socket", transport.get_extra_info("socket"))
        with far:
            transport.close()
            await protocol.lost
        del transport, protocol.transport
        gc.collect()
        assert sock.fileno() == -1
        with pytest.raises(OSError, match="Bad file descriptor"):
            sock.shutdown(socket.SHUT_RDWR)

    run(loop, main())


@pytest.mark.parametrize("loop", ["ours"], indirect=True)
def test_closed_transport_is_freed_without_the_collector(loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, far = await connect()
        with far:
            transport.write(b"x")
            transport.close()
            await protocol.lost
        gone = weakref.ref(transport)
        del transport, protocol.transport
        await turns()
        assert gone() is None

    gc.collect()
    gc.disable()
    try:
        run(loop, main())
    finally:
        gc.enable()


class Sly(int):
    """A limit that sets other limits while it is compared."""

    set_others: Callable[[], object]

    def __ge__(self, other: object) -> bool:
        self.set_others()
        return True


def test_limits_set_while_limits_are_set_are_released_once(loop: Loop) -> None:
    async def use(transport: asyncio.Transport) -> None:
        first = 10**6
        sly = Sly(2 * 10**6)
        sly.set_others = lambda: transport.set_write_buffer_limits(5000, 50)
        references = sys.getrefcount(first)
        transport.set_write_buffer_limits(first, 1)
        transport.set_write_buffer_limits(sly, 1)
        transport.set_write_buffer_limits(7, 1)
        assert sys.getrefcount(first) == references

    with_transport(loop, use)


class Replacer:
    """Calls a function as it is freed."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function

    def __del__(self) -> None:
        self.function()


class Emptied(list[Replacer], asyncio.Protocol):
    """A protocol whose `pause_writing` is a function in C, which takes no reference."""

    pause_writing = list[Replacer].clear


def test_protocol_outlives_its_replacement_in_pause_writing(loop: Loop) -> None:
    alive: list[bool] = []

    async def use(transport: asyncio.Transport) -> None:
        def replace() -> None:
            transport.set_protocol(asyncio.Protocol())
            alive.append(protocol() is not None)

        recorder = transport.get_protocol()
        emptied = Emptied([Replacer(replace)])
        protocol = weakref.ref(emptied)
        transport.set_protocol(emptied)
        del emptied
        transport.write(bytes(BIG))
        assert alive == [True]
        transport.set_protocol(recorder)

    with_transport(loop, use)
