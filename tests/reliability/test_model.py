"""The selector and the loop agree with their models on random operations.

The selector makes a million random operations in lock-step with the standard library's
EpollSelector and with a dict. The loop, whose callbacks use it, is compared with a
model of the calls that are due. Every run prints its new seeds; FDMUX_MODEL_SEED=N
repeats one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import socket
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.python.selector.test_selector_model import World, pick_seed, run_model

from fdmux import EVENT_READ, Selector, SelectorEventLoop
from fdmux._native import backend_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from selectors import SelectorKey

    from _typeshed import FileDescriptorLike
    from tests.reliability.conftest import Bars

    from fdmux.loop.timers import TimerHandle

OPERATIONS = 1_000_000
SEEDS_AT_NIGHT = 10


class Modelled(Selector):
    """A selector with a dict of what must be registered."""

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self.model: dict[int, tuple[int, object]] = {}

    def register(  # type: ignore[explicit-any] # SelectorKey's data
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> SelectorKey:
        key = super().register(fileobj, events, data)
        assert key.fd not in self.model
        self.model[key.fd] = (events, data)
        return key

    def unregister(  # type: ignore[explicit-any] # SelectorKey's data
        self, fileobj: FileDescriptorLike
    ) -> SelectorKey:
        key = super().unregister(fileobj)
        assert self.model.pop(key.fd) == (key.events, key.data)
        return key

    def modify(  # type: ignore[explicit-any] # SelectorKey's data
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> SelectorKey:
        key = super().modify(fileobj, events, data)  # which may call `unregister`
        assert key.fd in self.model
        self.model[key.fd] = (events, data)
        return key

    def select(  # type: ignore[explicit-any] # SelectorKey's data
        self, timeout: float | None = None
    ) -> list[tuple[SelectorKey, int]]:
        ready = super().select(timeout)
        for key, events in ready:
            assert self.model[key.fd] == (key.events, key.data)
            assert events & ~key.events == 0
        return ready

    def close(self) -> None:
        keys = self.get_map().values()
        assert {key.fd: (key.events, key.data) for key in keys} == self.model
        super().close()


@pytest.fixture
def quiet_collector() -> Iterator[None]:
    """Freeze the living objects, so that collecting the rest is cheap."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def run_worlds(bars: Bars, counts: dict[str, int]) -> None:
    """Run the operations on each backend, and enter the result."""
    seed = pick_seed()
    print(f"FDMUX_MODEL_SEED={seed}")  # noqa: T201 - shown when the test fails
    for backend, count in counts.items():
        run_model(World(backend, seed, Modelled), count)
    total = sum(counts.values())
    bars.at_least(OPERATIONS, "operations as EpollSelector and a dict do them", total)


@pytest.mark.commit
@pytest.mark.slow
@pytest.mark.usefixtures("quiet_collector")
def test_a_million_operations_without_a_divergence(bars: Bars) -> None:
    run_worlds(bars, {"epoll": OPERATIONS * 7 // 10, "poll": OPERATIONS * 3 // 10})


@pytest.mark.nightly
@pytest.mark.usefixtures("quiet_collector")
@pytest.mark.parametrize("number", range(SEEDS_AT_NIGHT))
def test_ten_times_as_many_at_night(bars: Bars, number: int) -> None:
    del number  # each run has a seed of its own
    run_worlds(bars, {"epoll": OPERATIONS, "poll": OPERATIONS})


# ---- a loop whose callbacks call back ----------------------------------------------

ACTIONS = ("nothing", "leave", "enter", "post", "arm", "cancel", "nest", "fail")
PLACES = 4
Action = st.tuples(st.sampled_from(ACTIONS), st.integers(0, PLACES - 1))
actions = st.lists(Action, max_size=3)


class DeliberateError(Exception):
    """What a callback of the test raises."""


@dataclasses.dataclass
class Place:
    """A pair of sockets; `registration` is a number that no later one has."""

    near: socket.socket
    far: socket.socket
    registration: int | None = None
    called: int = 0


@dataclasses.dataclass
class Timer:
    """A timer that must be called, unless it is cancelled."""

    when: float
    handle: TimerHandle | None = None
    is_over: bool = False


class LoopMachine(RuleBasedStateMachine):
    """The sockets, timers and posted calls of a loop, and the calls each must get."""

    backend: ClassVar[str]
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.failures = 0
        self.failures_seen = 0
        self.loop = SelectorEventLoop(
            Selector(self.backend), clock=lambda: self.now, error_hook=self.on_error
        )
        self.places = [Place(*socket.socketpair()) for _ in range(PLACES)]
        self.timers: list[Timer] = []
        self.fired: list[Timer] = []
        self.posted: list[int] = []
        self.ran: list[int] = []
        self.serial = 0

    def teardown(self) -> None:
        self.loop.close()
        for place in self.places:
            place.near.close()
            place.far.close()

    def on_error(self, error: Exception, _source: object) -> None:
        assert isinstance(error, DeliberateError), repr(error)
        self.failures_seen += 1

    def next_serial(self) -> int:
        self.serial += 1
        return self.serial

    # What callbacks do; the test may do the same outside of callbacks.

    def act(self, wanted: list[tuple[str, int]]) -> None:
        for name, index in wanted:
            getattr(self, f"do_{name}")(index)

    def do_nothing(self, _index: int) -> None:
        """Do nothing, as most callbacks."""

    def do_leave(self, index: int) -> None:
        place = self.places[index]
        place.registration = None
        self.loop.unregister(place.near)

    def do_enter(self, index: int) -> None:
        self.enter(index, [])

    def do_post(self, _index: int) -> None:
        self.post([])

    def do_arm(self, index: int) -> None:
        self.arm(float(index) - 1, [])

    def do_cancel(self, index: int) -> None:
        waiting = [timer for timer in self.timers if not timer.is_over]
        if waiting:
            timer = waiting[index % len(waiting)]
            timer.is_over = True
            assert timer.handle is not None
            timer.handle.cancel()

    def do_nest(self, _index: int) -> None:
        """Running the loop in its own callback is refused, and has no effect."""
        with pytest.raises(RuntimeError, match="running already"):
            self.loop.run_once(0)

    def do_fail(self, _index: int) -> None:
        self.failures += 1
        raise DeliberateError

    def enter(self, index: int, wanted: list[tuple[str, int]]) -> None:
        """Register, or replace the callback of what is registered."""
        place = self.places[index]
        registration = place.registration = self.next_serial()

        def on_readable(sock: socket.socket) -> None:
            assert sock is place.near
            assert place.registration == registration, "called after it was taken back"
            place.called += 1
            self.act(wanted)

        self.loop.register_read(place.near, on_readable)

    def post(self, wanted: list[tuple[str, int]]) -> None:
        serial = self.next_serial()
        self.posted.append(serial)

        def run() -> None:
            self.ran.append(serial)
            self.act(wanted)

        self.loop.call_soon_threadsafe(run)

    def arm(self, delay: float, wanted: list[tuple[str, int]]) -> None:
        timer = Timer(self.now + delay)

        def fire() -> None:
            assert not timer.is_over, "called twice, or after it was cancelled"
            assert timer.when <= self.now, "early"
            timer.is_over = True
            self.fired.append(timer)
            self.act(wanted)

        timer.handle = self.loop.call_later(delay, fire)
        self.timers.append(timer)

    # Rules.

    @rule(index=st.integers(0, PLACES - 1), wanted=actions)
    def register(self, index: int, wanted: list[tuple[str, int]]) -> None:
        self.enter(index, wanted)

    @rule(index=st.integers(0, PLACES - 1))
    def unregister(self, index: int) -> None:
        self.do_leave(index)

    @rule(index=st.integers(0, PLACES - 1))
    def make_readable(self, index: int) -> None:
        self.places[index].far.send(b"x")

    @rule(index=st.integers(0, PLACES - 1))
    def drain(self, index: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self.places[index].near.recv(4096, socket.MSG_DONTWAIT)

    @rule(wanted=actions)
    def post_call(self, wanted: list[tuple[str, int]]) -> None:
        self.post(wanted)

    @rule(delay=st.integers(-1, 5), wanted=actions)
    def arm_timer(self, delay: int, wanted: list[tuple[str, int]]) -> None:
        self.arm(float(delay), wanted)

    @precondition(lambda self: self.timers)
    @rule(index=st.integers(0, 99))
    def cancel_timer(self, index: int) -> None:
        self.do_cancel(index)

    @rule(seconds=st.integers(0, 4))
    def let_time_pass(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def iterate(self) -> None:
        """One iteration makes every call that was due when it began."""
        type(self).steps += 1
        owed_calls = self.posted[len(self.ran) :]
        owed_timers = [
            timer
            for timer in self.timers
            if not timer.is_over and timer.when <= self.now
        ]
        ready = [(p, p.registration, p.called) for p in self.places if is_ready(p)]
        self.loop.run_once(0)
        assert self.ran == self.posted[: len(self.ran)], "in the order of posting"
        assert len(owed_calls) <= len(self.ran)
        assert not set(owed_calls) - set(self.ran), "a posted call was lost"
        assert all(timer.is_over for timer in owed_timers), "a timer was lost"
        for place, registration, called in ready:
            if place.registration == registration:
                assert place.called == called + 1, "once an iteration"
        self.check_order()
        assert self.failures_seen == self.failures

    def check_order(self) -> None:
        """Timers that are due together are called in the order of their time."""
        whens = [timer.when for timer in self.fired]
        self.fired.clear()
        assert whens == sorted(whens)


def is_ready(place: Place) -> bool:
    if place.registration is None:
        return False
    with Selector("poll") as selector:
        selector.register(place.near, EVENT_READ)
        return selector.select(0) != []


@pytest.mark.commit
@pytest.mark.slow
@pytest.mark.parametrize("backend", backend_names())
def test_callbacks_that_call_back_get_what_they_are_owed(
    bars: Bars, backend: str
) -> None:
    run_machine(bars, backend, examples=200, steps=50)


@pytest.mark.nightly
@pytest.mark.parametrize("backend", backend_names())
def test_callbacks_that_call_back_all_night(bars: Bars, backend: str) -> None:
    run_machine(bars, backend, examples=3000, steps=60)


def run_machine(bars: Bars, backend: str, *, examples: int, steps: int) -> None:
    class Machine(LoopMachine):
        pass

    Machine.backend = backend
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,  # leaves no files behind; a failure prints its example
            suppress_health_check=list(HealthCheck),
        ),
    )
    name = f"iterations with callbacks that call back, {backend}"
    bars.at_least(examples, name, Machine.steps)
