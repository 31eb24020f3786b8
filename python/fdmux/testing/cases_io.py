"""Conformance cases about descriptors."""
# ruff: noqa: S101 - cases are made of asserts; run_case refuses to run without them

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from fdmux.testing.native import ERROR, HANGUP, PEER_CLOSED, PRIORITY, READ, WRITE
from fdmux.testing.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fdmux.testing.host import Host

FAIR_FDS = 100
FAIR_EVENTS = 10_000


@contextlib.contextmanager
def session_of(kind: type[Host]) -> Iterator[Session]:
    """Make a host and a session on it, and close both at the end."""
    session = Session(kind())
    try:
        yield session
    finally:
        session.close()


@contextlib.contextmanager
def socket_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Make two connected, non-blocking sockets."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


def fd_ready(kind: type[Host]) -> None:
    """A native function is called when its descriptor is readable, and not before."""
    got: list[bytes] = []
    with session_of(kind) as session, socket_pair() as (left, right):

        def on_ready(_token: int, events: int) -> None:
            assert events == READ
            got.append(left.recv(10))
            if len(got) == 3:
                session.stop()
            else:
                right.send(b"next")

        def main() -> None:
            session.code.watch(left.fileno(), READ, on_ready)
            session.call_later(0.01, send)

        def send() -> None:
            assert not got
            right.send(b"first")

        session.run(main)
    assert got == [b"first", b"next", b"next"]


def several_watchers(kind: type[Host]) -> None:
    """Several watchers on one descriptor each get what they asked for."""
    called: list[str] = []
    with session_of(kind) as session, socket_pair() as (left, right):

        def on_read(name: str) -> None:
            called.append(name)
            if {"first", "second", "writer"} <= set(called):
                session.stop()

        def on_write(token: int, events: int) -> None:
            assert events == WRITE
            called.append("writer")
            session.code.unwatch(token)

        def main() -> None:
            fd = left.fileno()
            session.code.watch(fd, READ, lambda _t, _e: on_read("first"))
            session.code.watch(fd, READ, lambda _t, _e: on_read("second"))
            session.code.watch(fd, WRITE, on_write)
            session.call_later(0.005, lambda: right.send(b"x"))

        session.run(main)
    assert called[0] == "writer"
    assert called.count("writer") == 1
    assert called[1:3] == ["first", "second"]


def fd_reuse(kind: type[Host]) -> None:
    """A descriptor closed without removal does not affect the next of its number."""
    got: list[bytes] = []
    with session_of(kind) as session, contextlib.ExitStack() as stack:
        left, right = stack.enter_context(socket_pair())

        def main() -> None:
            number = left.fileno()
            session.code.watch(number, READ, lambda _t, _e: got.append(b"stale"))
            right.send(b"old")
            left.close()
            again, other = stack.enter_context(socket_pair())
            if again.fileno() != number:
                os.dup2(again.fileno(), number, inheritable=False)
                stack.callback(os.close, number)
            session.code.watch(number, READ, lambda _t, _e: on_new(number))
            other.send(b"new")

        def on_new(number: int) -> None:
            got.append(os.read(number, 10))
            session.stop()

        session.run(main)
    assert got == [b"new"]


def half_close(kind: type[Host]) -> None:
    """A peer that shuts down its writing side is not reported as closed."""
    seen: list[int] = []
    with session_of(kind) as session, socket_pair() as (left, right):

        def on_ready(token: int, events: int) -> None:
            seen.append(events)
            session.code.unwatch(token)  # end of file stays readable
            assert left.recv(10) == b""
            left.send(b"still there")
            session.stop()

        def main() -> None:
            session.code.watch(left.fileno(), READ | PEER_CLOSED, on_ready)
            right.shutdown(socket.SHUT_WR)

        session.run(main)
        assert right.recv(100) == b"still there"
    assert seen == [READ | PEER_CLOSED]


def hangup_error_priority(kind: type[Host]) -> None:
    """HANGUP, ERROR and PRIORITY arrive, which few hosts report themselves."""
    seen: dict[str, int] = {}
    with session_of(kind) as session, contextlib.ExitStack() as stack:
        left, right = stack.enter_context(socket_pair())
        reader, writer = os.pipe()
        stack.callback(os.close, writer)
        urgent, sender = tcp_pair(stack)

        def note(name: str, token: int, events: int) -> None:
            seen[name] = events
            session.code.unwatch(token)
            if len(seen) == 3:
                session.stop()

        def main() -> None:
            watch = session.code.watch
            watch(left.fileno(), READ, lambda t, e: note("hangup", t, e))
            watch(writer, WRITE, lambda t, e: note("error", t, e))
            watch(urgent.fileno(), PRIORITY, lambda t, e: note("priority", t, e))
            right.close()
            os.close(reader)
            sender.send(b"!", socket.MSG_OOB)

        session.run(main)
    assert seen["hangup"] & HANGUP
    assert seen["error"] & ERROR
    assert seen["priority"] & PRIORITY


def tcp_pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """Make a TCP connection on loopback; only TCP has out-of-band data."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = stack.enter_context(socket.create_connection(server.getsockname()))
        return stack.enter_context(server.accept()[0]), client


def removal_in_callbacks(kind: type[Host]) -> None:
    """A watcher may remove itself and others; none of them is called again."""
    called: list[str] = []
    tokens: dict[str, int] = {}
    with session_of(kind) as session, contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(socket_pair()) for _ in range(3)]

        def on_ready(name: str) -> None:
            called.append(name)
            for token in tokens.values():
                assert session.code.unwatch(token) == 0
            assert session.code.unwatch(tokens[name]) < 0
            tokens.clear()

        def watch(name: str, fd: int) -> None:
            tokens[name] = session.code.watch(
                fd, READ, lambda _t, _e: on_ready(name), name
            )

        def main() -> None:
            for name, (left, right) in zip("abc", pairs, strict=True):
                right.send(b"x")
                watch(name, left.fileno())
            session.call_later(0.02, session.stop)

        session.run(main)
        assert len(called) == 1
        assert session.code.destroyed == {"a": 1, "b": 1, "c": 1}


def fairness(kind: type[Host]) -> str:
    """While 10,000 native events are dispatched, Python callbacks run as well."""
    counts = {"events": 0, "turns": 0}
    with session_of(kind) as session, contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(socket_pair()) for _ in range(FAIR_FDS)]

        def on_ready(_token: int, _events: int) -> None:
            counts["events"] += 1
            if counts["events"] == FAIR_EVENTS:
                session.stop()

        def take_turn() -> None:
            counts["turns"] += 1
            if counts["events"] < FAIR_EVENTS:
                session.call_later(0, take_turn)

        def main() -> None:
            for left, right in pairs:
                right.send(b"x")  # never read: always ready
                session.code.watch(left.fileno(), READ, on_ready)
            take_turn()

        session.run(main)
    rounds = FAIR_EVENTS // FAIR_FDS
    assert counts["events"] >= FAIR_EVENTS
    assert counts["turns"] >= rounds // 10, counts
    return f"{counts['turns']} turns in {rounds} rounds"
