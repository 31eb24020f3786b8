"""Conformance cases about errors, closing, threads, processes and signals."""
# ruff: noqa: S101 - cases are made of asserts; run_case refuses to run without them

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
import threading
import time
import warnings
from typing import TYPE_CHECKING

import fdmux
from fdmux.testing.cases_io import session_of, socket_pair
from fdmux.testing.native import READ
from fdmux.testing.session import TIME_LIMIT, Session, contains

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from fdmux.testing.host import Callback, Host


class PlannedError(Exception):
    """The error that a Python callback raises on purpose."""


def dispatch_once(session: Session, then: Callback | None = None) -> None:
    """Watch a readable native descriptor; when called back, stop or call ``then``.

    Called in the loop.
    """
    left, right = (end.detach() for end in socket.socketpair())

    def on_ready(token: int, _events: int) -> None:
        assert session.code.unwatch(token) == 0
        os.close(left)
        os.close(right)
        (then or session.stop)()

    session.code.watch(left, READ, on_ready, "once")
    os.write(right, b"x")


def python_exception(kind: type[Host]) -> None:
    """An exception of a Python callback does not affect mounted native code."""
    with session_of(kind) as session:

        def fail() -> None:
            session.stop()
            raise PlannedError

        try:
            session.run(lambda: session.host.call_later(0, fail))
        except BaseException as error:
            if not contains(error, PlannedError):
                raise
        session.run(lambda: dispatch_once(session))


def native_error(kind: type[Host]) -> None:
    """The error of a native function is reported, and affects nothing else."""
    with session_of(kind) as session, socket_pair() as (left, right):

        def main() -> None:
            right.send(b"x")
            session.code.watch(left.fileno(), READ, fail_once)

        def fail_once(token: int, _events: int) -> int:
            session.code.unwatch(token)
            dispatch_once(session)
            return -errno.EPROTO

        try:
            session.run(main)
        except BaseException as error:
            # A loop that dispatches its native loop itself raises the error.
            if not contains(error, OSError):
                raise
            session.reported.append(error)
            session.run(lambda: dispatch_once(session))
    (reported,) = session.reported
    assert isinstance(reported, OSError)
    assert reported.errno == errno.EPROTO
    assert "a function given to the loop returned -EPROTO" in str(reported)


def closed_with_watchers(kind: type[Host]) -> None:
    """Closing a host calls each ``destroyed`` once, and no function after that."""
    called: list[str] = []
    with socket_pair() as (left, right):
        session = Session(kind())

        def main() -> None:
            fd = left.fileno()
            session.code.watch(fd, READ, lambda _t, _e: called.append("io"), "io")
            token = session.code.timer(lambda _t: called.append("timer"), "timer")
            session.code.arm(token, TIME_LIMIT)
            session.call_later(0, session.stop)

        try:
            session.run(main)
        finally:
            session.close()
        code, mounted = session.code, session.mounted
        gc.collect()
        assert code.destroyed == {"io": 1, "timer": 1}
        right.send(b"x")
        mounted.unmount()
        assert code.post(lambda: called.append("post")) == -errno.ESTALE
    assert code.destroyed == {"io": 1, "timer": 1}
    assert called == []


def close_announced(kind: type[Host]) -> None:
    """Closing a host is announced once, while the native loop still works."""
    removed: list[int] = []
    with socket_pair() as (left, _right):
        session = Session(kind())

        def main() -> None:
            token = session.code.watch(left.fileno(), READ, lambda _t, _e: None)
            session.code.at_close(lambda: removed.append(session.code.unwatch(token)))
            session.call_later(0, session.stop)

        try:
            session.run(main)
        finally:
            session.close()
        session.check()
        gc.collect()
        assert removed == [0]
        assert session.code.destroyed == {"watcher": 1}


def run_twice(kind: type[Host]) -> None:
    """A loop that runs again dispatches native code again."""
    with session_of(kind) as session:
        for _ in range(2):
            session.run(lambda: dispatch_once(session))


def two_threads(kind: type[Host]) -> None:
    """Two loops in two threads do not affect each other."""
    threads: dict[str, set[int]] = {"one": set(), "two": set()}
    loops: set[int] = set()
    errors: list[BaseException] = []
    both = threading.Barrier(2, timeout=TIME_LIMIT)

    def run(name: str) -> None:
        with session_of(kind) as session:

            def main() -> None:
                loops.add(session.mounted.native.address)
                both.wait()
                step(20)

            def step(left: int) -> None:
                threads[name].add(threading.get_ident())
                dispatch_once(session, (lambda: step(left - 1)) if left else None)

            session.run(main)
            both.wait()  # both loops exist at once, so their addresses differ

    def run_and_report(name: str) -> None:
        try:
            run(name)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)
            both.abort()

    other = threading.Thread(target=run_and_report, args=("two",), daemon=True)
    other.start()
    run_and_report("one")
    other.join(TIME_LIMIT)
    if errors:
        raise errors[0]
    assert len(loops) == 2
    assert len(threads["one"]) == len(threads["two"]) == 1
    assert threads["one"] != threads["two"]


def fork(kind: type[Host]) -> str | None:
    """A forked child cannot use the parent's loop, and does not affect it."""
    if not hasattr(os, "fork"):
        return "this system has no fork"
    with session_of(kind) as session, socket_pair() as (left, right):

        def main() -> None:
            session.code.watch(left.fileno(), READ, on_ready, "parent")
            status = wait_for_child(lambda: check_child(session))
            assert status == 0, f"the child ended with {status}"
            assert session.code.destroyed["parent"] == 0
            right.send(b"x")

        def on_ready(_token: int, _events: int) -> None:
            session.stop()

        session.run(main)
    return None


def wait_for_child(work: Callback) -> int:
    """Fork, do ``work`` in the child, and return the child's exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # hosts with threads
        pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - the parent gets the exit code
        os.write(2, f"in the child: {error!r}\n".encode())
        os._exit(1)
    os._exit(0)


def check_child(session: Session) -> None:
    """Check what a forked child can and cannot do."""
    try:
        session.mounted.native.dispatch()
    except fdmux.ForkedLoop:
        pass
    else:
        raise AssertionError("the child dispatched the parent's loop")
    session.mounted.unmount()
    with fdmux.Selector() as selector, socket_pair() as (left, right):
        selector.register(left, READ)
        right.send(b"x")
        assert len(selector.select(TIME_LIMIT)) == 1


def keyboard_interrupt(kind: type[Host]) -> str:
    """Ctrl-C is handled while native functions are busy."""
    if threading.current_thread() is not threading.main_thread():
        return "signals belong to the main thread"
    sent: list[float] = []
    with session_of(kind) as session, socket_pair() as (left, right):

        def main() -> None:
            right.send(b"x")
            session.code.watch_busily(left.fileno())
            threading.Timer(0.02, interrupt).start()

        def interrupt() -> None:
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        def handle(_signal: int, _frame: FrameType | None) -> None:
            session.stop()  # as an application of such a host does

        with interrupts(
            signal.default_int_handler if kind.raises_interrupt else handle
        ):
            try:
                session.run(main)
            except BaseException as error:
                if not contains(error, KeyboardInterrupt):
                    raise
            else:
                assert not kind.raises_interrupt, "no KeyboardInterrupt came out"
        took = time.monotonic() - sent[0]
    assert took < 2.0
    return f"after {took * 1000:.0f} ms"


@contextlib.contextmanager
def interrupts(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Set another handler for SIGINT inside the block."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
