"""What an observer of a loop is told: in what is called slow, late, and together.

Tests call everything slow (``slow=0``), so that none has to wait.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import socket
import threading
import weakref
from typing import TYPE_CHECKING

import pytest

import fdmux
from fdmux.loop.timers import TimerHandle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.python.conftest import FakeClock, SelectorFactory


class Recorder(fdmux.Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.slow: list[str] = []
        self.durations: list[float] = []
        self.reports: list[fdmux.Report] = []

    def on_slow(self, what: str, duration: float) -> None:
        self.slow.append(what)
        self.durations.append(duration)

    def on_report(self, report: fdmux.Report) -> None:
        self.reports.append(report)


class Echo(fdmux.StreamHandler):
    def on_data(self, _stream: fdmux.Stream, data: bytes) -> bytes:
        return data


class Datagrams(fdmux.DatagramHandler):
    def on_datagram(
        self, _endpoint: fdmux.DatagramEndpoint, data: bytes, _address: object
    ) -> bytes:
        return data


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def read_all(sock: socket.socket) -> None:
    sock.recv(100)


def sizes(report: fdmux.Report) -> dict[int, int]:
    """By the upper bound: how many batches; of larger ones, by 0."""
    bounds = (*report.SIZE_BOUNDS, 0)
    return {
        bound: count
        for bound, count in zip(bounds, report.batch_sizes, strict=True)
        if count
    }


# ---- what is told --------------------------------------------------------------------


def test_callbacks_in_python_are_named(
    loop: fdmux.SelectorEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    recorder = Recorder()
    loop.register_read(pair[0], read_all)
    loop.call_later(0, functools.partial(str, 5))
    loop.call_soon_threadsafe(print, end="")
    pair[1].send(b"x")
    with loop.observe(recorder, slow=0) as observation:
        while observation.report().calls < 3:
            loop.run_once()
    assert sorted(recorder.slow) == sorted(["read_all", "str", "print"])
    assert all(duration >= 0 for duration in recorder.durations)


def test_fast_callbacks_are_not_told(loop: fdmux.SelectorEventLoop) -> None:
    recorder = Recorder()
    with loop.observe(recorder, slow=1000) as observation:
        loop.call_soon_threadsafe(int)
        loop.run_once()
    assert recorder.slow == []
    assert observation.report().calls == 1


def test_slow_callback_is_measured(loop: fdmux.SelectorEventLoop) -> None:
    """Its own clock says how long it took at least."""
    recorder = Recorder()
    took: list[float] = []

    def be_slow() -> None:
        before = loop.time()
        while loop.time() - before < 0.01:
            pass
        took.append(loop.time() - before)

    with loop.observe(recorder, slow=0.01):
        loop.call_soon_threadsafe(be_slow)
        loop.run_once()
    assert [name.rpartition(".")[2] for name in recorder.slow] == ["be_slow"]
    assert recorder.durations[0] >= took[0]


def test_callback_that_raises_is_told_and_raised(
    loop: fdmux.SelectorEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    recorder = Recorder()

    def fail(_sock: object) -> None:
        raise LookupError

    loop.register_read(pair[0], fail)
    pair[1].send(b"x")
    loop.observe(recorder, slow=0)
    with pytest.raises(LookupError):
        loop.run(None, 3)
    assert [name.rpartition(".")[2] for name in recorder.slow] == ["fail"]


def test_error_hook_works_as_without_an_observer(
    selector_factory: SelectorFactory, pair: tuple[socket.socket, socket.socket]
) -> None:
    errors: list[tuple[str, object]] = []

    def note(error: Exception, source: object) -> None:
        errors.append((type(error).__name__, source))

    def fail(*_args: object) -> None:
        raise LookupError

    with fdmux.SelectorEventLoop(selector_factory(), error_hook=note) as loop:
        loop.observe(Recorder(), slow=0)
        loop.register_read(pair[0], fail)
        loop.call_soon_threadsafe(fail)
        pair[1].send(b"x")
        while len(errors) < 2:
            loop.run_once()
    assert ("LookupError", pair[0]) in errors
    assert ("LookupError", fail) in errors


def test_both_directions_of_a_socket_are_called(
    loop: fdmux.SelectorEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    called: list[str] = []
    loop.register_read(pair[0], lambda _: called.append("read"))
    loop.register_write(pair[0], lambda _: called.append("write"))
    pair[1].send(b"x")
    with loop.observe(Recorder()):
        while "read" not in called or "write" not in called:
            loop.run_once()


def test_closed_descriptor_is_dropped_as_without_an_observer(
    loop: fdmux.SelectorEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    called: list[object] = []
    twin = pair[0].dup()
    loop.register_read(pair[0], called.append)
    pair[0].close()
    pair[1].send(b"x")
    with loop.observe(Recorder()), twin:
        loop.run_once(0)
    assert called == []


# ---- lag and batches -----------------------------------------------------------------


def test_lag_of_a_timer_is_the_time_since_its_deadline(clock: FakeClock) -> None:
    with fdmux.SelectorEventLoop(clock=clock) as loop:
        observation = loop.observe(Recorder())
        loop.call_later(1, int)
        clock.advance(1.3)
        loop.run_once(0)
        report = observation.report()
    bound = dict(zip(report.LAG_BOUNDS, report.lags, strict=False))
    assert bound[0.5] == 1
    assert sum(report.lags) == report.calls == 1
    assert report.lag == pytest.approx(0.3)


def test_cancelled_timer_is_no_lag(clock: FakeClock) -> None:
    with fdmux.SelectorEventLoop(clock=clock) as loop:
        observation = loop.observe(Recorder())
        later: list[TimerHandle] = []
        first = loop.call_later(1, lambda: list(map(TimerHandle.cancel, later)))
        later.append(loop.call_later(1, int))
        clock.advance(5)
        loop.run_once(0)
        assert observation.report().calls == 1
        assert first.is_cancelled


@pytest.mark.parametrize(("count", "bound"), [(1, 1), (2, 2), (3, 4), (70, 128)])
def test_size_of_a_batch(loop: fdmux.SelectorEventLoop, count: int, bound: int) -> None:
    with loop.observe(Recorder()) as observation:
        for _ in range(count):
            loop.call_soon_threadsafe(int)
        while observation.report().calls < count:
            loop.run_once(0)
    assert sizes(observation.report()) == {bound: 1}


def test_largest_batches_have_a_count_of_their_own(
    loop: fdmux.SelectorEventLoop,
) -> None:
    with loop.observe(Recorder()) as observation:
        for _ in range(1025):
            loop.call_soon_threadsafe(int)
        loop.run_once(0)
    assert sizes(observation.report()) == {0: 1}


def test_reading_a_report_does_not_move_what_lag_is_counted_from(
    loop: fdmux.SelectorEventLoop,
) -> None:
    """The second call is as late as the first was long, whoever reads in between."""
    took: list[float] = []

    def read_and_be_slow() -> None:
        before = loop.time()
        while loop.time() - before < 0.01:
            pass
        took.append(loop.time() - before)
        observation.report()

    with loop.observe(Recorder()) as observation:
        for _ in range(3):
            loop.call_soon_threadsafe(read_and_be_slow)
        loop.run_once(0)
        report = observation.report()
    assert report.calls == 3
    assert report.lag >= 2 * took[0] + took[1]
    assert report.busy >= sum(took)


# ---- reports -------------------------------------------------------------------------


def test_report_is_made_when_it_is_due(loop: fdmux.SelectorEventLoop) -> None:
    recorder = Recorder()
    with loop.observe(recorder, interval=1e-9) as observation:
        for _ in range(2):
            loop.call_soon_threadsafe(int)
            loop.run_once(0)
    assert [report.calls for report in recorder.reports] == [1, 2, 2]
    assert recorder.reports[-1] == observation.report()


def test_report_is_not_made_before_it_is_due(loop: fdmux.SelectorEventLoop) -> None:
    recorder = Recorder()
    observation = loop.observe(recorder, interval=1000)
    loop.call_soon_threadsafe(int)
    loop.run_once(0)
    assert recorder.reports == []
    observation.end()
    assert [report.calls for report in recorder.reports] == [1]


def test_nothing_is_measured_after_the_end(loop: fdmux.SelectorEventLoop) -> None:
    recorder = Recorder()
    observation = loop.observe(recorder, slow=0)
    observation.end()
    observation.end()
    loop.call_soon_threadsafe(int)
    loop.run_once(0)
    assert recorder.slow == []
    assert observation.report().calls == 0
    assert len(recorder.reports) == 1


def test_each_observer_counts_from_its_own_beginning(
    loop: fdmux.SelectorEventLoop,
) -> None:
    first = loop.observe(Recorder(), slow=0)
    loop.call_soon_threadsafe(int)
    loop.run_once(0)
    quiet, loud = Recorder(), Recorder()
    second = loop.observe(quiet, slow=1000)
    third = loop.observe(loud, slow=0)
    loop.call_soon_threadsafe(int)
    loop.run_once(0)
    first.end()
    loop.call_soon_threadsafe(int)
    loop.run_once(0)
    assert first.report().calls == 2
    assert second.report().calls == third.report().calls == 2
    assert quiet.slow == []
    assert loud.slow == ["int", "int"]


def test_observation_may_begin_and_end_in_a_callback(
    loop: fdmux.SelectorEventLoop,
) -> None:
    recorder = Recorder()
    observations: list[fdmux.Observation] = []
    loop.call_soon_threadsafe(
        lambda: observations.append(loop.observe(recorder, slow=0))
    )
    loop.run_once(0)
    loop.call_soon_threadsafe(int)
    loop.call_soon_threadsafe(observations[0].end)
    loop.call_soon_threadsafe(str)
    loop.run_once(0)
    assert "int" in recorder.slow
    assert observations[0].report().calls >= 1


@pytest.mark.parametrize("who", ["callback", "observer"])
def test_observation_may_end_while_descriptors_are_served(
    selector_factory: SelectorFactory, who: str
) -> None:
    """The rest of the batch is called, as without an observer."""
    called: list[socket.socket] = []
    pairs = [socket.socketpair() for _ in range(3)]

    class Ending(fdmux.Observer):
        def on_slow(self, _what: str, _duration: float) -> None:
            if who == "observer":
                observation.end()

    def read(sock: socket.socket) -> None:
        called.append(sock)
        sock.recv(1)
        if who == "callback":
            observation.end()

    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(fdmux.SelectorEventLoop(selector_factory()))
        observation = loop.observe(Ending(), slow=0)
        for ours, theirs in pairs:
            stack.enter_context(ours)
            stack.enter_context(theirs)
            theirs.send(b"x")
            loop.register_read(ours, read)
            loop.register_write(ours, loop.unregister_write)
        while len(called) < 3:
            loop.run_once(0)


def test_report_is_read_from_another_thread(loop: fdmux.SelectorEventLoop) -> None:
    found: list[fdmux.Report] = []
    with loop.observe(Recorder()) as observation:
        loop.call_soon_threadsafe(int)
        loop.run_once(0)
        thread = threading.Thread(target=lambda: found.append(observation.report()))
        thread.start()
        thread.join()
    assert found[0].calls == 1


def test_difference_of_reports() -> None:
    early = fdmux.Report(1.0, 2, (1, 0), 0.5, (2, 0), 0.1, 1, 0, 0)
    late = fdmux.Report(3.0, 7, (2, 3), 0.7, (4, 1), 0.3, 5, 2, 1)
    between = late.since(early)
    assert (between.elapsed, between.calls, between.batch_sizes) == (2.0, 5, (1, 3))
    assert (between.accepted, between.refused, between.shortages) == (4, 2, 1)
    assert between.lags == (2, 1)


# ---- observers that are wrong --------------------------------------------------------


class Broken:
    """Raises whatever it is told."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def on_slow(self, _what: str, _duration: float) -> None:
        raise self.error

    def on_report(self, _report: fdmux.Report) -> None:
        raise self.error


@pytest.mark.parametrize("error", [ZeroDivisionError, GeneratorExit])
def test_error_of_an_observer_is_logged(
    loop: fdmux.SelectorEventLoop,
    error: type[BaseException],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        caplog.at_level(logging.ERROR, "fdmux.observing"),
        loop.observe(Broken(error), slow=0, interval=1e-9),
    ):
        loop.call_soon_threadsafe(int)
        assert loop.run_once(0) == 1
    assert len(caplog.records) == 3  # on_slow, on_report, and the last report
    assert all("an observer raised" in record.message for record in caplog.records)


class Nameless:
    """A callback that refuses to tell its name."""

    def __call__(self) -> None:
        pass

    def __getattribute__(self, name: str) -> object:
        raise GeneratorExit(name)


def test_callback_without_a_name_is_told_by_its_type(
    loop: fdmux.SelectorEventLoop,
) -> None:
    recorder = Recorder()
    with loop.observe(recorder, slow=0):
        loop.call_soon_threadsafe(Nameless())
        assert loop.run_once(0) == 1
    assert recorder.slow == ["Nameless"]


def test_observer_that_was_ended_by_another_is_told_no_more(
    loop: fdmux.SelectorEventLoop,
) -> None:
    recorder = Recorder()
    observations: list[fdmux.Observation] = []

    class Ending(fdmux.Observer):
        def on_slow(self, _what: str, _duration: float) -> None:
            observations[0].end()

    loop.observe(Ending(), slow=0)
    observations.append(loop.observe(recorder, slow=0))
    loop.call_soon_threadsafe(int)
    loop.run_once(0)
    assert recorder.slow == []
    assert len(recorder.reports) == 1


def test_each_direction_is_a_call_with_its_own_name(
    loop: fdmux.SelectorEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    def write_once(sock: socket.socket) -> None:
        loop.unregister_write(sock)

    recorder = Recorder()
    loop.register_read(pair[0], read_all)
    loop.register_write(pair[0], write_once)
    pair[1].send(b"x")
    with loop.observe(recorder, slow=0) as observation:
        while observation.report().calls < 2:
            loop.run_once()
    names = [name.rpartition(".")[2] for name in recorder.slow]
    assert names == ["read_all", "write_once"]


def test_keyboard_interrupt_of_an_observer_leaves_the_loop(
    loop: fdmux.SelectorEventLoop,
) -> None:
    loop.observe(Broken(KeyboardInterrupt), slow=0)
    loop.call_soon_threadsafe(int)
    with pytest.raises(KeyboardInterrupt):
        loop.run_once(0)


class NotCallable:
    on_slow = 5


@pytest.mark.parametrize(
    ("observer", "options", "message"),
    [
        (object(), {}, "neither on_slow"),
        (NotCallable(), {}, "on_slow of the observer is 5"),
        (Recorder(), {"slow": "1"}, "slow is '1'"),
        (Recorder(), {"interval": None}, "interval is None"),
    ],
)
def test_wrong_types_are_refused(
    observer: object, options: dict[str, float], message: str
) -> None:
    with (
        fdmux.SelectorEventLoop() as loop,
        pytest.raises(TypeError, match=message),
    ):
        loop.observe(observer, **options)


@pytest.mark.parametrize(
    "options", [{"slow": -1}, {"slow": float("nan")}, {"interval": 0}]
)
def test_wrong_values_are_refused(options: dict[str, float]) -> None:
    with fdmux.SelectorEventLoop() as loop, pytest.raises(ValueError, match="must be"):
        loop.observe(Recorder(), **options)


def test_closed_loop_is_refused() -> None:
    loop = fdmux.SelectorEventLoop()
    observation = loop.observe(Recorder())
    loop.close()
    observation.end()
    with pytest.raises(fdmux.LoopClosed):
        loop.observe(Recorder())


def test_observed_loop_is_collected() -> None:
    loop = fdmux.SelectorEventLoop()
    loop.observe(Recorder())
    alive = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert alive() is None


# ---- streams and endpoints -----------------------------------------------------------


def exchange(
    loop: fdmux.SelectorEventLoop, address: tuple[str, int], messages: int = 1
) -> None:
    """Let a client exchange messages with a server on ``loop``."""
    done = threading.Event()

    def client() -> None:
        with socket.create_connection(address) as sock:
            for _ in range(messages):
                sock.sendall(b"hello")
                sock.recv(5)
        done.set()
        loop.stop()

    thread = threading.Thread(target=client)
    thread.start()
    while not done.is_set():
        loop.run()
    thread.join()


@pytest.mark.parametrize("is_early", [True, False])
def test_streams_are_observed(is_early: bool) -> None:
    """Those that are open already, and those to come."""
    recorder = Recorder()
    with fdmux.SelectorEventLoop() as loop:
        server = fdmux.StreamServer("127.0.0.1", 0, Echo(), loop=loop)
        if is_early:
            observation = loop.observe(recorder, slow=0)
            server.start()
        else:
            server.start()
            observation = loop.observe(recorder, slow=0)
        exchange(loop, server.address, messages=3)
        loop.run_once(0.1)
        observation.end()
        told = len(recorder.slow)
        exchange(loop, server.address)
        server.stop()
    assert recorder.slow.count("Echo.on_data") == 3
    assert "Echo.on_connect" in recorder.slow
    assert "Echo.on_close" in recorder.slow
    assert len(recorder.slow) == told
    assert observation.report().accepted == 1
    assert observation.report().calls == sum(observation.report().lags)


def test_open_stream_is_observed_and_then_no_longer() -> None:
    recorder = Recorder()
    ours, theirs = socket.socketpair()
    with fdmux.SelectorEventLoop() as loop, theirs:
        fdmux.add_stream(loop, ours, Echo())
        for observed in (False, True, False):
            observation = loop.observe(recorder, slow=0) if observed else None
            theirs.send(b"x")
            while not loop.run_once():
                pass
            assert theirs.recv(10) == b"x"
            if observation is not None:
                observation.end()
    assert recorder.slow == ["Echo.on_data"]


def test_framing_is_named() -> None:
    class Lines(fdmux.FrameHandler):
        framing = fdmux.Delimited(b"\n")

        def on_frame(self, _stream: fdmux.Stream, _frame: bytes) -> None:
            pass

    recorder = Recorder()
    ours, theirs = socket.socketpair()
    with fdmux.SelectorEventLoop() as loop, theirs:
        fdmux.add_stream(loop, ours, Lines())
        with loop.observe(recorder, slow=0):
            theirs.send(b"x\n")
            while not loop.run_once():
                pass
    assert [name.rpartition(".")[2] for name in recorder.slow] == ["on_frames"]


def test_endpoints_are_observed() -> None:
    recorder = Recorder()
    with (
        fdmux.SelectorEventLoop() as loop,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        endpoint = fdmux.DatagramEndpoint(loop, Datagrams(), address=("127.0.0.1", 0))
        for observed in (False, True, False):
            observation = loop.observe(recorder, slow=0) if observed else None
            sock.sendto(b"x", endpoint.sockname)
            while not loop.run_once():
                pass
            assert sock.recv(10) == b"x"
            if observation is not None:
                observation.end()
        with loop.observe(recorder, slow=0):
            late = fdmux.DatagramEndpoint(loop, Datagrams(), address=("127.0.0.1", 0))
            late.close()
            while not loop.run_once():
                pass
        endpoint.close()
    assert recorder.slow == ["Datagrams.on_datagram", "Datagrams.on_close"]


def test_refused_clients_are_counted() -> None:
    limits = fdmux.ServerLimits(connection_max=1)
    with fdmux.SelectorEventLoop() as loop:
        server = fdmux.StreamServer("127.0.0.1", 0, Echo(), loop=loop, limits=limits)
        server.start()
        with (
            loop.observe(Recorder()) as observation,
            socket.create_connection(server.address),
            socket.create_connection(server.address),
        ):
            while server.stats.refused == 0:
                loop.run_once(0.1)
            report = observation.report()
        server.stop()
    assert (report.accepted, report.refused) == (1, 1)


def test_interrupt_in_an_observer_of_streams_leaves_the_loop() -> None:
    ours, theirs = socket.socketpair()
    with fdmux.SelectorEventLoop() as loop, theirs:
        fdmux.add_stream(loop, ours, Echo())
        observation = loop.observe(Broken(KeyboardInterrupt), slow=0)
        theirs.send(b"x")
        with pytest.raises(KeyboardInterrupt):
            loop.run()
        observation.slow = float("inf")
        with pytest.raises(KeyboardInterrupt):  # its last report
            observation.end()
        assert theirs.recv(10) == b"x"
