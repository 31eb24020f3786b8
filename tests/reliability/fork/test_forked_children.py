"""Forks, in every situation: the parent loses no event, and the child is told.

Beside that: processes of `multiprocessing` with loops of their own, and programs that
are started, which see no descriptor of ours.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, cast

import pytest
from tests.reliability.echo_process import PROGRAMS
from tests.reliability.fork.fork_traffic import (
    LONG,
    Traffic,
    fork,
    only_the_parent_goes_on,
    succeeded,
)

from fdmux import (
    EchoServer,
    ForkedLoop,
    LoopClosed,
    NativeQueue,
    Selector,
    SelectorEventLoop,
)
from fdmux._native import backend_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.reliability.conftest import Bars

    Situation = Callable[[Traffic], bool]

# Some situations fork beside threads, of which Python warns.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PROGRAM = PROGRAMS / "process_echo.py"
MESSAGES = 200


def expect_closed(loop: SelectorEventLoop) -> None:
    """Every call on the loop raises: the loop belongs to the parent."""
    for use in (
        lambda: loop.run_once(0),
        loop.run,
        lambda: loop.call_later(0, print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.register_read(0, print),
    ):
        with pytest.raises(LoopClosed):
            use()
    loop.stop()


# ---- the situations: each returns whether its children succeeded ---------------------


def idle(_traffic: Traffic) -> bool:
    return succeeded(fork(lambda: None))


def in_a_callback(traffic: Traffic) -> bool:
    """Fork in the middle of a batch; only the parent processes the rest."""
    children: list[int] = []
    with only_the_parent_goes_on():
        traffic.loop.call_soon_threadsafe(lambda: children.append(os.fork()))
        while not children:
            traffic.loop.run_once(0)
        if children == [0]:
            expect_closed(traffic.loop)
    return succeeded(children[0])


def in_a_callback_of_a_descriptor(traffic: Traffic) -> bool:
    children: list[int] = []
    _here, there = traffic.pairs[0]

    def on_writable(sock: socket.socket) -> None:
        traffic.loop.unregister_write(sock)
        children.append(os.fork())

    with only_the_parent_goes_on():
        traffic.loop.register_write(there, on_writable)
        with contextlib.suppress(LoopClosed):  # in the child
            traffic.loop.run_once(LONG)
        if children == [0]:
            expect_closed(traffic.loop)
    return succeeded(children[0])


def in_a_callback_of_a_stream(traffic: Traffic) -> bool:
    """The child returns from the callback into C, which ends its batch."""
    children: list[int] = []

    def fork_once() -> None:
        if not children:
            children.append(os.fork())

    traffic.in_on_data = fork_once
    with only_the_parent_goes_on():
        with contextlib.suppress(LoopClosed):  # in the child
            while not children:
                traffic.loop.run_once(LONG)
        if children == [0]:
            expect_closed(traffic.loop)
            traffic.loop.close()
    return succeeded(children[0])


def a_child_leaves_a_callback_of_a_stream(traffic: Traffic) -> bool:
    """The child raises to exit; the exception leaves the loop in the child alone."""
    children: list[int] = []

    def fork_once() -> None:
        if not children:
            children.append(os.fork())
            if children == [0]:
                raise SystemExit(7)

    traffic.in_on_data = fork_once
    codes: list[object] = []
    with only_the_parent_goes_on():
        try:
            while not children:
                traffic.loop.run_once(LONG)
        except SystemExit as error:
            codes.append(error.code)
        assert codes == ([7] if children == [0] else [])
    return succeeded(children[0])


def from_another_thread(traffic: Traffic) -> bool:
    """Another thread forks while the loop waits; the child has only that thread."""
    results: list[bool] = []

    def fork_there() -> None:
        results.append(succeeded(fork(lambda: expect_closed(traffic.loop))))
        traffic.loop.stop()

    thread = threading.Thread(target=fork_there)
    thread.start()
    traffic.loop.run(None)
    thread.join(LONG)
    return results == [True]


def in_a_signal_handler(traffic: Traffic) -> bool:
    """A signal handler forks during the wait of the loop."""
    children: list[int] = []

    def on_alarm(_number: int, _frame: object) -> None:
        children.append(os.fork())
        traffic.loop.stop()

    with only_the_parent_goes_on():
        previous = signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            while not children:
                traffic.loop.run(None)
        except LoopClosed:
            assert children == [0]
        finally:
            signal.signal(signal.SIGALRM, previous)
        if children == [0]:
            expect_closed(traffic.loop)
    return succeeded(children[0])


def with_a_wake_pending(traffic: Traffic) -> bool:
    """The child must not consume the wake-up."""
    traffic.loop.native.wake()
    return succeeded(fork(lambda: expect_closed(traffic.loop)))


def then_the_parent_closes(traffic: Traffic) -> bool:
    """The parent closes its loop; the child works on with a new one."""
    ours, theirs = socket.socketpair()

    def work() -> None:
        assert theirs.recv(1) == b"x"
        work_in_a_new_loop()
        traffic.loop.close()

    with ours, theirs:
        child = fork(work)
        traffic.loop.close()
        traffic.move()
        ours.send(b"x")
        return succeeded(child)


def the_child_closes_first(traffic: Traffic) -> bool:
    def close() -> None:
        traffic.loop.close()
        traffic.loop.close()

    return succeeded(fork(close))


def the_child_uses_it_as_it_is(traffic: Traffic) -> bool:
    selector = traffic.loop._iteration.table.selector

    def use() -> None:
        expect_closed(traffic.loop)
        for here, _there in traffic.pairs:
            traffic.loop.unregister(here)
            with pytest.raises((ForkedLoop, KeyError)):
                selector.unregister(here)
        with pytest.raises(ForkedLoop):
            selector.select(0)

    return succeeded(fork(use))


def the_child_adopts_it(traffic: Traffic) -> bool:
    """The child unregisters everything in its copy; only the parent reads."""
    selector = cast("Selector", traffic.loop._iteration.table.selector)

    def adopt() -> None:
        selector.native.after_fork()
        selector.select(0)  # the parent owns the streams: they receive nothing here
        for here, _there in traffic.pairs:
            selector.unregister(here)
        selector.close()

    return succeeded(fork(adopt))


def the_child_drops_everything(traffic: Traffic) -> bool:
    def drop() -> None:
        vars(traffic).clear()
        gc.collect()

    return succeeded(fork(drop))


def the_child_closes_the_sockets(traffic: Traffic) -> bool:
    """The child closes every descriptor number, as a daemon does."""

    def close() -> None:
        os.closerange(3, 1000)
        with contextlib.suppress(OSError):  # the numbers are closed already
            traffic.loop.close()

    return succeeded(fork(close))


def work_in_a_new_loop() -> None:
    with Traffic("epoll") as traffic:
        traffic.send()
        assert traffic.lost_and_twice() == (0, 0)


def the_child_makes_its_own(_traffic: Traffic) -> bool:
    return succeeded(fork(work_in_a_new_loop))


def the_child_forks_again(traffic: Traffic) -> bool:
    """Grandchildren create, use and close loops; each process has its own copy."""
    native = traffic.loop.native

    def fork_again() -> None:
        assert succeeded(fork(lambda: expect_closed(traffic.loop)))
        native.after_fork()
        assert succeeded(fork(native.after_fork))
        assert succeeded(fork(work_in_a_new_loop))

    return succeeded(fork(fork_again))


def many_at_once(traffic: Traffic) -> bool:
    children = [fork(traffic.loop.close) for _ in range(4)]
    children += [fork(traffic.loop.native.after_fork) for _ in range(4)]
    return [succeeded(child) for child in children] == [True] * len(children)


SITUATIONS: list[Situation] = [
    idle,
    in_a_callback,
    in_a_callback_of_a_descriptor,
    in_a_callback_of_a_stream,
    a_child_leaves_a_callback_of_a_stream,
    from_another_thread,
    in_a_signal_handler,
    with_a_wake_pending,
    then_the_parent_closes,
    the_child_closes_first,
    the_child_uses_it_as_it_is,
    the_child_adopts_it,
    the_child_drops_everything,
    the_child_closes_the_sockets,
    the_child_makes_its_own,
    the_child_forks_again,
    many_at_once,
]


@pytest.mark.commit
@pytest.mark.slow
@pytest.mark.parametrize("backend", backend_names())
def test_parent_loses_no_event(bars: Bars, backend: str) -> None:
    lost = twice = 0
    failed = []
    for situation in SITUATIONS:
        with Traffic(backend) as traffic:
            traffic.send()
            if not situation(traffic):
                failed.append(situation.__name__)
            traffic.send()
            counts = traffic.lost_and_twice()
        print(f"{situation.__name__}: {counts}")  # noqa: T201 - which one it was
        lost += counts[0]
        twice += counts[1]
    assert not failed, "see the tracebacks of their children"
    title = f"fork, {backend}"
    bars.at_least(12, f"{title}: situations", len(SITUATIONS))
    bars.at_most(0, f"{title}: events the parent lost", lost)
    bars.at_most(0, f"{title}: events it got twice", twice)


@pytest.mark.commit
@pytest.mark.slow
def test_processes_of_multiprocessing_serve_with_loops_of_their_own(
    bars: Bars,
) -> None:
    """A process of each start method echoes to a parent that has a loop."""
    command = [sys.executable, str(PROGRAM), str(MESSAGES)]
    methods = ("fork", "spawn", "forkserver")
    processes = {
        method: subprocess.Popen(
            [*command, method],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for method in methods
    }
    echoed = {}
    for method, process in processes.items():
        output, errors = process.communicate(timeout=LONG)
        assert (process.returncode, errors) == (0, ""), method
        echoed[method] = int(output)
    for method, count in echoed.items():
        title = f"multiprocessing, {method}: events the parent lost"
        bars.at_most(0, title, MESSAGES - count)


def seen_by_programs() -> list[set[str]]:
    """Return the descriptors that a program finds, for three ways to start it."""
    command = ["ls", "/proc/self/fd"]
    popen = subprocess.run(
        command, close_fds=False, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    found = [set(popen.split())]
    for start in (spawn, fork_and_exec):
        reader, writer = os.pipe()
        with os.fdopen(reader, encoding="ascii") as output:
            number = start(command, writer)
            os.close(writer)
            found.append(set(output.read().split()))
        assert succeeded(number)
    return found


def spawn(command: list[str], output: int) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, output, 1)]
    return os.posix_spawnp(command[0], command, os.environ, file_actions=actions)


def fork_and_exec(command: list[str], output: int) -> int:
    def become() -> None:
        os.dup2(output, 1)
        os.execvp(command[0], command)  # noqa: S606 - "ls"

    return fork(become)


@pytest.mark.commit
def test_started_programs_see_no_descriptor_of_ours(bars: Bars) -> None:
    before = seen_by_programs()
    with (
        Traffic("epoll"),
        EchoServer(port=0) as server,
        NativeQueue(),
        Selector() as selector,
    ):
        server.run_in_thread()
        with socket.create_connection(server.address, timeout=LONG) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            assert selector.fileno() >= 0
            after = seen_by_programs()
    more = sum(len(now - then) for now, then in zip(after, before, strict=True))
    bars.at_most(0, "descriptors of ours that started programs see", more)
