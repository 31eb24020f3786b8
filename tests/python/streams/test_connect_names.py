"""`connect_stream` to a name: resolved in a thread, raced, with one deadline."""

from __future__ import annotations

import errno
import functools
import socket
import sys
import threading
import types
from typing import TYPE_CHECKING

import pytest
from tests.peers import deaf_address, receive
from tests.python.streams.recorder import LONG, Recorder, run_until

from fdmux.loop.event_loop import SelectorEventLoop, iteration_of
from fdmux.sockets import lookup
from fdmux.sockets.schedule import STAGGER
from fdmux.streams.client import connect_stream
from fdmux.streams.limits import StreamLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.certificates import Certificates
    from tests.python.conftest import FakeClock

NAME = "host.test"
real_getaddrinfo = socket.getaddrinfo


class Resolver:
    """Answers for `NAME`, when the test lets it."""

    def __init__(self) -> None:
        self.addresses: list[tuple[str, int]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = threading.Semaphore(0)
        self.answered = threading.Semaphore(0)

    def getaddrinfo(self, host: str, port: int, **options: int) -> object:
        if host != NAME or options.get("flags", 0) & socket.AI_NUMERICHOST:
            return real_getaddrinfo(host, port, **options)
        self.asked.release()
        self.may_answer.wait(LONG)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", address)
            for address in self.addresses
        ]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    yield resolver
    resolver.may_answer.set()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(LONG)
        yield sock


@pytest.fixture
def timed(clock: FakeClock) -> Iterator[SelectorEventLoop]:
    with SelectorEventLoop(clock=clock) as loop:
        yield loop


@pytest.fixture
def refusing() -> Iterator[tuple[str, int]]:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()


def test_name_is_resolved_and_connected(
    loop: SelectorEventLoop, handler: Recorder, listener: socket.socket
) -> None:
    """What was asked before is done in order; then the stream is like any other."""
    handler.answer = lambda _stream, data: data.upper()
    port = listener.getsockname()[1]
    stream = connect_stream(loop, ("localhost", port), handler)
    stream.write(b"ear")
    stream.write(bytearray(b"l"))
    stream.writelines([b"y", memoryview(b"!")])
    assert stream.buffered == 6
    assert not stream.is_closing
    run_until(loop, lambda: "connect" in handler.calls)
    sock, _ = listener.accept()
    with sock:
        sock.settimeout(LONG)
        assert receive(sock, 6) == b"early!"
        assert stream.peername == listener.getsockname()
        sock.sendall(b"hi")
        run_until(loop, lambda: handler.data == b"hi")
        assert receive(sock, 2) == b"HI"
        stream.close()
        run_until(loop, lambda: handler.calls[-1] == "close")
        assert sock.recv(1) == b""
    assert handler.errors == [None]


def test_loop_goes_on_while_a_name_is_resolved(
    loop: SelectorEventLoop,
    handler: Recorder,
    resolver: Resolver,
    listener: socket.socket,
) -> None:
    resolver.addresses = [listener.getsockname()]
    resolver.may_answer.clear()
    connect_stream(loop, (NAME, 80), handler)
    ticks: list[int] = []
    for number in range(3):
        loop.call_later(0, ticks.append, number)
        run_until(loop, lambda number=number: number in ticks)  # type: ignore[misc] # a loop's own
    assert handler.calls == []
    resolver.may_answer.set()
    run_until(loop, lambda: handler.calls == ["connect"])


def test_second_address_is_tried_after_the_stagger(
    timed: SelectorEventLoop,
    clock: FakeClock,
    handler: Recorder,
    resolver: Resolver,
    listener: socket.socket,
) -> None:
    with deaf_address() as deaf:
        resolver.addresses = [deaf, listener.getsockname()]
        connect_stream(timed, (NAME, 80), handler)
        is_racing = lambda: iteration_of(timed).timers.next_deadline < clock() + 1  # noqa: E731 - short
        run_until(timed, is_racing)
        clock.advance(STAGGER - 0.01)
        timed.run_once(0)
        assert handler.calls == []
        clock.advance(0.02)
        run_until(timed, lambda: handler.calls == ["connect"])
    assert iteration_of(timed).timers.next_deadline > clock() + 1e9


def test_address_that_refuses_makes_room_at_once(
    timed: SelectorEventLoop,
    handler: Recorder,
    resolver: Resolver,
    listener: socket.socket,
    refusing: tuple[str, int],
) -> None:
    resolver.addresses = [refusing, listener.getsockname()]
    connect_stream(timed, (NAME, 80), handler)
    run_until(timed, lambda: handler.calls == ["connect"])  # the clock stands still


def test_every_address_has_failed(
    loop: SelectorEventLoop,
    handler: Recorder,
    resolver: Resolver,
    refusing: tuple[str, int],
) -> None:
    resolver.addresses = [refusing, ("127.0.0.1", 0)]
    stream = connect_stream(loop, (NAME, 80), handler)
    run_until(loop, lambda: handler.errors)
    (error,) = handler.errors
    assert isinstance(error, ConnectionRefusedError)
    assert f"connect to {(NAME, 80)} failed: 127.0.0.1: Conn" in str(error)
    assert handler.calls == ["close"]
    assert stream.is_closing
    stream.write(b"ignored")
    stream.close()
    stream.abort()
    loop.run_once(0)
    assert handler.calls == ["close"]


def test_name_that_does_not_exist(
    loop: SelectorEventLoop, handler: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    connect_stream(loop, (NAME, 80), handler)
    run_until(loop, lambda: handler.errors)
    (error,) = handler.errors
    assert isinstance(error, socket.gaierror)
    assert f"connect to {(NAME, 80)} failed: Name or service" in str(error)


def test_one_deadline_covers_resolving_and_attempts(
    timed: SelectorEventLoop,
    clock: FakeClock,
    handler: Recorder,
    resolver: Resolver,
    refusing: tuple[str, int],
) -> None:
    with deaf_address() as deaf:
        resolver.addresses = [refusing, deaf]
        resolver.may_answer.clear()
        connect_stream(timed, (NAME, 80), handler, timeout=10)
        clock.advance(9)
        timed.run_once(0)
        resolver.may_answer.set()
        # The address that refuses has failed, and the deaf one is tried.
        watched = iteration_of(timed).table.selector
        run_until(timed, lambda: len(watched.get_map()) > 1 or handler.calls)
        for _ in range(10):
            timed.run_once(0.01)
        assert handler.calls == []
        clock.advance(1.1)
        run_until(timed, lambda: handler.calls)
    (error,) = handler.errors
    assert isinstance(error, TimeoutError)
    assert f"connect to {(NAME, 80)} timed out after 10 s: 127.0.0.1: C" in str(error)


@pytest.mark.parametrize("moment", ["resolving", "racing"])
@pytest.mark.parametrize("end", ["close", "abort"])
def test_end_before_it_is_connected(
    moment: str,
    end: str,
    loop: SelectorEventLoop,
    handler: Recorder,
    resolver: Resolver,
) -> None:
    with deaf_address() as deaf:
        resolver.addresses = [deaf]
        if moment == "resolving":
            resolver.may_answer.clear()
        stream = connect_stream(loop, (NAME, 80), handler)
        if moment == "racing":
            for _ in range(10):
                loop.run_once(0.01)
        getattr(stream, end)(ValueError("enough"))
        assert stream.is_closing
        assert handler.calls == []
        run_until(loop, lambda: handler.calls)
        resolver.may_answer.set()
        for _ in range(5):
            loop.run_once(0.01)
    assert handler.calls == ["close"]
    assert [str(error) for error in handler.errors] == ["enough"]


def test_close_sends_first_what_was_written(
    loop: SelectorEventLoop, handler: Recorder, listener: socket.socket
) -> None:
    stream = connect_stream(loop, ("localhost", listener.getsockname()[1]), handler)
    stream.write(b"last words")
    stream.close()
    assert stream.is_closing
    stream.write(b"ignored")
    run_until(loop, lambda: handler.calls)
    sock, _ = listener.accept()
    with sock:
        sock.settimeout(LONG)
        assert receive(sock, 11) == b"last words"
    assert handler.calls == ["close"]


def test_shutdown_before_it_is_connected(
    loop: SelectorEventLoop, handler: Recorder, listener: socket.socket
) -> None:
    stream = connect_stream(loop, ("localhost", listener.getsockname()[1]), handler)
    stream.write(b"all")
    stream.shutdown()
    stream.shutdown()
    with pytest.raises(BrokenPipeError, match="it was shut down"):
        stream.write(b"more")
    run_until(loop, lambda: "connect" in handler.calls)
    sock, _ = listener.accept()
    with sock:
        sock.settimeout(LONG)
        assert receive(sock, 4) == b"all"
        sock.sendall(b"answer")
        run_until(loop, lambda: handler.data == b"answer")


def test_pause_before_it_is_connected(
    loop: SelectorEventLoop, handler: Recorder, listener: socket.socket
) -> None:
    stream = connect_stream(loop, ("localhost", listener.getsockname()[1]), handler)
    stream.pause_reading()
    stream.resume_reading()
    stream.pause_reading()
    run_until(loop, lambda: "connect" in handler.calls)
    sock, _ = listener.accept()
    with sock:
        sock.sendall(b"x")
        for _ in range(5):
            loop.run_once(0.01)
        assert handler.data == b""
        stream.resume_reading()
        run_until(loop, lambda: handler.data == b"x")


def test_too_much_is_written_before_it_is_connected(
    loop: SelectorEventLoop, handler: Recorder, resolver: Resolver
) -> None:
    resolver.may_answer.clear()
    limits = StreamLimits(queue_max=100, queue_high=50, queue_low=10)
    stream = connect_stream(loop, (NAME, 80), handler, limits=limits)
    stream.write(bytes(100))
    assert not stream.is_closing
    stream.write(b"x")
    run_until(loop, lambda: handler.errors)
    (error,) = handler.errors
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOBUFS
    assert "101 bytes wait" in str(error)


def test_what_cannot_be_written(
    loop: SelectorEventLoop, handler: Recorder, resolver: Resolver
) -> None:
    resolver.may_answer.clear()
    stream = connect_stream(loop, (NAME, 80), handler)
    for wrong in ("text", 5, None):
        with pytest.raises(TypeError):
            stream.write(wrong)  # type: ignore[arg-type] # that is the test
    assert stream.buffered == 0


def test_loop_is_closed_while_it_resolves(
    handler: Recorder, resolver: Resolver
) -> None:
    resolver.may_answer.clear()
    with SelectorEventLoop() as loop:
        connect_stream(loop, (NAME, 80), handler)
        aborted = connect_stream(loop, (NAME, 80), handler)
        aborted.abort()
    assert handler.calls == ["close", "close"]
    assert handler.errors == [None, None]


def test_other_threads_are_refused(
    loop: SelectorEventLoop, handler: Recorder, resolver: Resolver
) -> None:
    resolver.may_answer.clear()
    stream = connect_stream(loop, (NAME, 80), handler)
    errors: list[Exception] = []
    loop.run_once(0)

    def use() -> None:
        calls: list[Callable[[], object]] = [
            functools.partial(stream.write, b"x"),
            stream.shutdown,
            stream.close,
            stream.abort,
            stream.pause_reading,
            stream.resume_reading,
        ]
        for call in calls:
            try:
                call()
            except RuntimeError as error:
                errors.append(error)

    def use_elsewhere() -> None:
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()

    loop.call_later(0, use_elsewhere)
    run_until(loop, lambda: len(errors) == 6)
    assert len(errors) == 6
    assert "call_soon_threadsafe" in str(errors[0])


def test_on_close_that_raises_is_logged(
    loop: SelectorEventLoop,
    handler: Recorder,
    resolver: Resolver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_arguments: object) -> None:
        handler.calls.append("failed")
        raise ZeroDivisionError

    resolver.may_answer.clear()
    monkeypatch.setattr(handler, "on_close", fail)
    connect_stream(loop, (NAME, 80), handler).abort()
    run_until(loop, lambda: handler.calls)
    assert "a callback of" in caplog.text


def test_tls_with_the_name(
    loop: SelectorEventLoop,
    handler: Recorder,
    listener: socket.socket,
    certificates: Certificates,
) -> None:
    """The name is verified; what was written before is sent encrypted."""

    def serve() -> None:
        sock, _ = listener.accept()
        context = certificates.server_context()
        with context.wrap_socket(sock, server_side=True) as encrypted:
            encrypted.sendall(encrypted.recv(100))
            encrypted.unwrap()

    thread = threading.Thread(target=serve)
    thread.start()
    address = ("localhost", listener.getsockname()[1])
    context = certificates.client_context()
    stream = connect_stream(loop, address, handler, ssl=context)
    with pytest.raises(RuntimeError, match="it has TLS already"):
        stream.start_tls(context)
    stream.write(b"secret")
    run_until(loop, lambda: handler.data == b"secret" and "end" in handler.calls)
    assert handler.calls[0] == "connect"
    run_until(loop, lambda: "close" in handler.calls)
    thread.join()


def test_start_tls_before_it_is_connected(
    loop: SelectorEventLoop,
    handler: Recorder,
    listener: socket.socket,
    certificates: Certificates,
) -> None:
    def serve() -> None:
        sock, _ = listener.accept()
        assert sock.recv(5, socket.MSG_WAITALL) == b"plain"
        context = certificates.server_context()
        with context.wrap_socket(sock, server_side=True) as encrypted:
            encrypted.sendall(encrypted.recv(100))
            encrypted.unwrap()

    thread = threading.Thread(target=serve)
    thread.start()
    stream = connect_stream(loop, ("localhost", listener.getsockname()[1]), handler)
    stream.write(b"plain")
    stream.start_tls(certificates.client_context(), server_hostname="localhost")
    stream.write(b"secret")
    run_until(loop, lambda: "close" in handler.calls)
    assert handler.data == b"secret"
    assert "tls" in handler.calls
    thread.join()


def test_threads_that_are_greenlets(
    loop: SelectorEventLoop, handler: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = types.SimpleNamespace(is_module_patched=lambda name: name == "threading")
    monkeypatch.setitem(sys.modules, "gevent.monkey", fake)
    with pytest.raises(RuntimeError, match=r"connect to \('host.test', 80\): gevent"):
        connect_stream(loop, (NAME, 80), handler)


def test_no_thread_can_be_started(
    loop: SelectorEventLoop, handler: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(lookup, "lookups", lookup.Lookups())
    monkeypatch.setattr("fdmux.streams.seek.lookups", lookup.lookups)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        connect_stream(loop, (NAME, 80), handler)
    loop.close()
    assert handler.calls == []


# ---- the threads ---------------------------------------------------------------------


def test_threads_are_bounded_and_lookups_wait_for_one() -> None:
    lookups = lookup.Lookups()
    begun, may_end = threading.Semaphore(0), threading.Event()
    ended = threading.Semaphore(0)

    def hold() -> None:
        begun.release()
        may_end.wait(LONG)
        ended.release()

    late: list[str] = []
    for _ in range(lookup.THREADS_MAX):
        lookups.add(hold)
    for _ in range(lookup.THREADS_MAX):
        assert begun.acquire(timeout=LONG)
    is_done = threading.Event()
    lookups.add(functools.partial(late.append, "called"))
    cancelled = functools.partial(late.append, "cancelled")
    lookups.add(cancelled)
    lookups.add(is_done.set)
    lookups.cancel(cancelled)
    lookups.cancel(cancelled)
    assert late == []
    may_end.set()
    assert is_done.wait(LONG)
    for _ in range(lookup.THREADS_MAX):
        assert ended.acquire(timeout=LONG)
    assert late == ["called"]


def test_lookup_is_left_to_a_thread_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = lookup.Lookups()
    may_end, begun, called = (threading.Event() for _ in range(3))

    def hold() -> None:
        begun.set()
        may_end.wait(LONG)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    lookups.add(hold)
    assert begun.wait(LONG)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        lookups.add(called.set)
    may_end.set()
    assert called.wait(LONG)


def test_threads_of_the_parent_are_not_waited_for_after_fork() -> None:
    lookups = lookup.Lookups()
    # As in the child of a parent whose threads were all held.
    lookups._thread_count = lookup.THREADS_MAX
    lookups.__init__()  # type: ignore[misc] # what the child does
    called = threading.Event()
    lookups.add(called.set)
    assert called.wait(LONG)
