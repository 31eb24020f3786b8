"""Debug mode warns of mistakes, and names the place where the thing was made.

Each test that expects a place looks for its own file; the program at the end is run by
``-X dev`` and by ``FDMUX_DEBUG=1``, and without either.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import re
import selectors
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

import fdmux
from fdmux.loop.debug import DebugIteration
from fdmux.loop.event_loop import iteration_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.python.conftest import SelectorFactory

HERE = re.escape(__file__) + r":\d+"


@pytest.fixture(autouse=True)
def debug_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FDMUX_DEBUG", "1")


@pytest.fixture
def loop(selector_factory: SelectorFactory) -> Iterator[fdmux.SelectorEventLoop]:
    loop = fdmux.SelectorEventLoop(selector_factory())
    yield loop
    loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def read(sock: socket.socket) -> None:
    sock.recv(100)


class Echo(fdmux.StreamHandler):
    def on_data(self, _stream: fdmux.Stream, data: bytes) -> bytes:
        return data


class Sink(fdmux.DatagramHandler):
    def on_datagram(self, *_: object) -> None:
        pass


# ---- slow callbacks ------------------------------------------------------------------


def run_until_logged(
    loop: fdmux.SelectorEventLoop, caplog: pytest.LogCaptureFixture
) -> str:
    """Call everything slow; return the first message."""
    loop.slow_callback_duration = 0
    with caplog.at_level(logging.WARNING, "fdmux.loop"):
        while not caplog.messages:
            loop.run_once()
    loop.slow_callback_duration = 1000
    return caplog.messages[0]


def test_slow_reader_is_logged(
    loop: fdmux.SelectorEventLoop,
    pair: tuple[socket.socket, socket.socket],
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop.register_read(pair[0], read)
    pair[1].send(b"x")
    message = run_until_logged(loop, caplog)
    loop.unregister(pair[0])
    assert re.fullmatch(
        rf"read at {HERE} took 0\.\d\d\d seconds; made at {HERE}", message
    )


@pytest.mark.parametrize("is_posted", [True, False])
def test_slow_call_is_logged(
    loop: fdmux.SelectorEventLoop, is_posted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if is_posted:
        loop.call_soon_threadsafe(int)
    else:
        loop.call_later(0, functools.partial(int))
    message = run_until_logged(loop, caplog)
    assert re.fullmatch(rf"int took 0\.\d\d\d seconds; made at {HERE}", message)


def test_slow_handler_is_logged(
    pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    with fdmux.SelectorEventLoop() as loop:
        stream = fdmux.add_stream(loop, pair[0], Echo())
        pair[1].send(b"x")
        message = run_until_logged(loop, caplog)
        stream.close()
    pattern = rf"Echo\.on_data took 0\.\d\d\d seconds; made at {HERE}"
    assert re.fullmatch(pattern, message)


def test_threshold_is_that_of_asyncio(
    loop: fdmux.SelectorEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    assert loop.slow_callback_duration == 0.1
    loop.slow_callback_duration = 1000
    loop.call_soon_threadsafe(int)
    loop.run_once()
    assert caplog.messages == []


@pytest.mark.parametrize(("wrong", "error"), [(-1, ValueError), ("1", TypeError)])
def test_wrong_threshold_is_refused(
    loop: fdmux.SelectorEventLoop, wrong: float, error: type[Exception]
) -> None:
    with pytest.raises(error, match="slow_callback_duration"):
        loop.slow_callback_duration = wrong


# ---- threads -------------------------------------------------------------------------


def in_thread(function: Callable[[], object]) -> BaseException | None:
    """Return what ``function`` raises in another thread."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return raised[0] if raised else None


@pytest.mark.parametrize("name", ["timer", "cancel", "add", "remove", "stream"])
def test_call_in_wrong_thread_raises_while_the_loop_runs(
    loop: fdmux.SelectorEventLoop,
    pair: tuple[socket.socket, socket.socket],
    name: str,
) -> None:
    handle = loop.call_later(1000, int)
    calls: dict[str, Callable[[], object]] = {
        "timer": lambda: loop.call_later(1, int),
        "cancel": handle.cancel,
        "add": lambda: loop.register_read(pair[0], read),
        "remove": lambda: loop.unregister(pair[0]),
        "stream": lambda: fdmux.DatagramEndpoint(
            loop, Sink(), address=("127.0.0.1", 0)
        ),
    }
    raised: list[BaseException | None] = []
    loop.call_soon_threadsafe(lambda: raised.append(in_thread(calls[name])))
    loop.run_once()
    text = str(raised[0])
    assert "in another thread than that which runs the loop" in text
    assert re.search(rf"made at {HERE}; use call_soon_threadsafe", text)


def test_timer_goes_on_that_a_wrong_thread_has_tried_to_cancel(
    loop: fdmux.SelectorEventLoop,
) -> None:
    called: list[object] = []
    handle = loop.call_later(0.02, called.append, "timer")
    loop.call_soon_threadsafe(lambda: called.append(in_thread(handle.cancel)))
    while len(called) < 2:
        loop.run_once()
    refusal, timer = called
    assert isinstance(refusal, RuntimeError)
    assert timer == "timer"


def test_other_thread_may_use_a_loop_that_does_not_run(
    loop: fdmux.SelectorEventLoop,
) -> None:
    assert in_thread(lambda: loop.call_later(1, int)) is None
    loop.run_once(0)
    assert in_thread(lambda: loop.call_later(1, int)) is None


def test_any_thread_may_post_and_stop(loop: fdmux.SelectorEventLoop) -> None:
    raised: list[BaseException | None] = []

    def check() -> None:
        raised.append(in_thread(lambda: loop.call_soon_threadsafe(int)))
        raised.append(in_thread(loop.stop))

    loop.call_soon_threadsafe(check)
    loop.run()
    assert raised == [None, None]


# ---- descriptors ---------------------------------------------------------------------


def test_watcher_that_is_never_removed(
    selector_factory: SelectorFactory, pair: tuple[socket.socket, socket.socket]
) -> None:
    loop = fdmux.SelectorEventLoop(selector_factory())
    loop.register_read(pair[0], read)
    loop.register_write(pair[1], read)
    loop.unregister(pair[1])
    text = rf"fd {pair[0].fileno()} was never unregistered .* registered at {HERE}"
    with pytest.warns(ResourceWarning, match=text) as warned:
        loop.close()
    assert len(warned) == 1


def test_closed_descriptor_is_told_when_it_is_unregistered(
    loop: fdmux.SelectorEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    loop.register_read(pair[0], read)
    fd = pair[0].fileno()
    pair[0].close()
    text = rf"fd {fd} was closed while a loop watched it; registered at {HERE}"
    with pytest.warns(RuntimeWarning, match=text) as warned:
        loop.unregister(pair[0])
    assert len(warned) == 1


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_warning_that_is_an_error_leaves_nothing_registered(
    loop: fdmux.SelectorEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    loop.register_read(pair[0], read)
    pair[0].close()
    with pytest.raises(RuntimeWarning):
        loop.unregister(pair[0])
    loop.unregister(pair[0])  # there is nothing left to warn of


def test_closed_descriptor_is_told_when_its_number_is_used_again(
    loop: fdmux.SelectorEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    loop.register_read(pair[0], read)
    fd = pair[0].detach()
    os.close(fd)
    other = os.dup(pair[1].fileno())
    assert other == fd
    with pytest.warns(RuntimeWarning, match=rf"fd {fd} was closed .* at {HERE}"):
        loop.register_read(fd, read)  # type: ignore[arg-type] # never called
    loop.unregister(fd)
    os.close(fd)


def test_number_that_means_another_file_is_told() -> None:
    """Only the kernel knows that; `fdmux.Selector` goes on with the other file."""
    ours, theirs = socket.socketpair()
    selector = selectors.EpollSelector()
    with fdmux.SelectorEventLoop(selector) as loop, ours, theirs:
        fd = os.dup(ours.fileno())
        loop.register_read(fd, int)
        os.close(fd)
        assert os.dup(theirs.fileno()) == fd
        with pytest.warns(RuntimeWarning, match=rf"fd {fd} was closed"):
            loop.register_write(fd, int)
        loop.unregister(fd)
        os.close(fd)


def test_closed_descriptor_is_told_when_it_is_reported(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """The kernel still reports the file, of which there is a duplicate."""
    with fdmux.SelectorEventLoop() as loop, pair[0].dup():
        loop.register_read(pair[0], read)
        fd = pair[0].fileno()
        pair[0].close()
        pair[1].send(b"x")
        with pytest.warns(RuntimeWarning, match=rf"fd {fd} was closed"):
            loop.run_once(0)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_warning_that_is_an_error_goes_to_the_error_hook(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    told: list[type[Exception]] = []

    def note(error: Exception, _source: object) -> None:
        told.append(type(error))

    with fdmux.SelectorEventLoop(error_hook=note) as loop, pair[0].dup():
        loop.register_read(pair[0], read)
        pair[0].close()
        pair[1].send(b"x")
        loop.run_once(0)
    assert told == [RuntimeWarning]


def test_closed_descriptor_is_told_when_the_loop_closes(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    loop = fdmux.SelectorEventLoop()
    loop.register_read(pair[0], read)
    pair[0].close()
    with pytest.warns(RuntimeWarning, match=HERE):
        loop.close()


# ---- what is never closed ------------------------------------------------------------


def test_loop_that_is_never_closed(
    selector_factory: SelectorFactory, pair: tuple[socket.socket, socket.socket]
) -> None:
    loop = fdmux.SelectorEventLoop(selector_factory())
    loop.register_read(pair[0], read)
    del loop
    with pytest.warns(ResourceWarning) as warned:
        gc.collect()
    texts = [str(warning.message) for warning in warned]
    assert any(re.match(rf"unclosed event loop, made at {HERE}", it) for it in texts)
    assert any(re.search(rf"never unregistered .* {HERE}", it) for it in texts)


def test_streams_that_are_never_closed(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    loop = fdmux.SelectorEventLoop()
    fdmux.add_stream(loop, pair[0], Echo())
    server = fdmux.StreamServer("127.0.0.1", 0, Echo(), loop=loop)
    server.start()
    fdmux.connect_stream(loop, server.address, Echo())
    fdmux.DatagramEndpoint(loop, Sink(), address=("127.0.0.1", 0))
    while not server.stats.open:
        loop.run_once()
    with pytest.warns(ResourceWarning) as warned:
        loop.close()
    texts = sorted(str(warning.message) for warning in warned)
    kinds = ("DatagramEndpoint", "Stream", "Stream", "server at")
    for text, kind in zip(texts, kinds, strict=True):
        assert kind in text
        assert re.search(rf"made at {HERE}$", text)


def test_what_was_closed_is_not_told(
    selector_factory: SelectorFactory,
    pair: tuple[socket.socket, socket.socket],
    recwarn: pytest.WarningsRecorder,
) -> None:
    with fdmux.SelectorEventLoop(selector_factory()) as loop:
        stream = fdmux.add_stream(loop, pair[0], Echo())
        loop.register_read(pair[1], read)
        endpoint = fdmux.DatagramEndpoint(loop, Sink(), address=("127.0.0.1", 0))
        server = fdmux.StreamServer("127.0.0.1", 0, Echo(), loop=loop)
        server.start()
        server.stop()
        stream.close()
        endpoint.abort()
        loop.unregister(pair[1])
        loop.run_once(0)
    del loop
    gc.collect()
    assert not recwarn.list


def test_server_with_a_thread_is_not_told(recwarn: pytest.WarningsRecorder) -> None:
    with fdmux.StreamServer("127.0.0.1", 0, Echo()) as server:
        server.run_in_thread()
        with socket.create_connection(server.address) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
    gc.collect()
    assert not recwarn.list


# ---- selectors -----------------------------------------------------------------------


def test_selector_tells_of_a_closed_descriptor(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    with fdmux.Selector() as selector:
        selector.register(pair[0], selectors.EVENT_READ)
        pair[0].close()
        text = rf"\(socket\) was closed while a selector .* registered at {HERE}"
        with pytest.warns(RuntimeWarning, match=text):
            selector.unregister(pair[0])


def test_selector_tells_of_a_closed_number_when_it_closes(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    selector = fdmux.Selector()
    selector.register(pair[0].fileno(), selectors.EVENT_READ)
    selector.register(pair[1], selectors.EVENT_READ)  # stays open: not told
    pair[0].close()
    with pytest.warns(RuntimeWarning, match=HERE) as warned:
        selector.close()
    assert len(warned) == 1


def test_selector_that_is_never_closed() -> None:
    selector = fdmux.Selector()
    del selector  # it is part of a cycle
    with pytest.warns(ResourceWarning, match=rf"unclosed selector .* at {HERE}"):
        gc.collect()


def test_subclass_of_a_selector_stays_one() -> None:
    class Own(fdmux.Selector):
        pass

    with Own() as selector:
        assert type(selector) is Own


# ---- switching it on -----------------------------------------------------------------

PROGRAM = """
import fdmux, socket
from fdmux.hosts.asyncio import EventLoop
ours, theirs = socket.socketpair()
loop = fdmux.SelectorEventLoop()
loop.register_read(ours, print)
loop.close()
ours.close(), theirs.close()
EventLoop().close()
"""


def run_program(tmp_path: Path, *options: str, value: str | None) -> str:
    """Return what the program prints to standard error."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {name: it for name, it in os.environ.items() if name != "FDMUX_DEBUG"}
    if value is not None:
        environment["FDMUX_DEBUG"] = value
    done = subprocess.run(
        [sys.executable, "-W", "always", *options, program],
        check=True,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    return done.stderr


@pytest.mark.parametrize(
    ("options", "value"), [(("-X", "dev"), None), ((), "1"), (("-X", "dev"), "0")]
)
def test_debug_mode_is_on(
    tmp_path: Path, options: tuple[str, ...], value: str | None
) -> None:
    told = run_program(tmp_path, *options, value=value)
    assert re.search(r"never unregistered .* registered at .*program\.py:6", told)


@pytest.mark.parametrize(
    ("options", "value"), [((), None), ((), ""), ((), "0"), (("-E",), "1")]
)
def test_debug_mode_is_off(
    tmp_path: Path, options: tuple[str, ...], value: str | None
) -> None:
    assert run_program(tmp_path, *options, value=value) == ""


def test_loop_without_debug_mode_has_none_of_its_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FDMUX_DEBUG")
    if sys.flags.dev_mode:
        pytest.skip("these tests run in dev mode")
    with fdmux.SelectorEventLoop() as loop, fdmux.Selector() as selector:
        assert not isinstance(iteration_of(loop), DebugIteration)
        assert type(selector) is fdmux.Selector
        loop.slow_callback_duration = 3  # kept, and without effect
        assert loop.slow_callback_duration == 3
