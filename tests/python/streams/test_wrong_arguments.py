"""Wrong arguments are refused at the call, by name, and nothing is left open."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, cast

import pytest

import fdmux
from fdmux import (
    ClientPool,
    EchoServer,
    FrameHandler,
    NativeLoop,
    SelectorEventLoop,
    ServerLimits,
    StreamHandler,
    StreamLimits,
    StreamServer,
    add_stream,
    connect_stream,
)
from fdmux.loop.event_loop import delivery_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Framed(FrameHandler):
    """Lacks its framing."""


class Half:
    """Lacks callbacks."""

    def on_connect(self, stream: fdmux.Stream) -> None: ...


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


@pytest.fixture(scope="module")
def foreign_loops() -> Iterator[list[object]]:
    loop = asyncio.new_event_loop()
    with NativeLoop() as native:
        yield [loop, native, SelectorEventLoop, 5]
    loop.close()


def calls_with_handler(
    loop: SelectorEventLoop, sock: socket.socket, handler: object
) -> list[Callable[[], object]]:
    given = cast("StreamHandler", handler)
    return [
        lambda: StreamServer("127.0.0.1", 0, given),
        lambda: connect_stream(loop, ("127.0.0.1", 1), given),
        lambda: add_stream(loop, sock, given),
    ]


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (
            StreamHandler,
            r"is the class StreamHandler; pass an object: StreamHandler\(\)",
        ),
        (StreamHandler[int], "is the class StreamHandler"),
        (None, r"is None; it must be a fdmux\.StreamHandler; it has no on_connect"),
        (lambda *_: None, "is <.*; it has no on_connect"),
        (Half(), "is <.*; it has no on_data"),
        (Framed(), "is a Framed without framing"),
    ],
)
def test_handler(sock: socket.socket, handler: object, reason: str) -> None:
    with SelectorEventLoop() as loop:
        assert delivery_of(loop).streams() == []
        before = open_fds()
        for call in calls_with_handler(loop, sock, handler):
            with pytest.raises(TypeError, match=f"^handler {reason}"):
                call()
        assert open_fds() == before
        assert delivery_of(loop).streams() == []


def refused() -> pytest.RaisesExc[TypeError]:
    return pytest.raises(TypeError, match=r"^loop is .*a fdmux\.SelectorEventLoop")


def test_loop(sock: socket.socket, foreign_loops: list[object]) -> None:
    handler = StreamHandler()
    before = open_fds()
    for foreign in foreign_loops:
        loop = cast("SelectorEventLoop", foreign)
        with refused():
            StreamServer("127.0.0.1", 0, handler, loop=loop)
        with refused():
            EchoServer(port=0, loop=loop)
        with refused():
            ClientPool("127.0.0.1", 1, loop=loop)
        with refused():
            connect_stream(loop, ("127.0.0.1", 1), handler)
        with refused():
            add_stream(loop, sock, handler)
    assert open_fds() == before


def test_limits(sock: socket.socket) -> None:
    before = open_fds()
    with SelectorEventLoop() as loop:
        wrongs: list[object] = [{}, None, StreamLimits, StreamLimits()]
        for wrong in wrongs:
            limits = cast("ServerLimits", wrong)
            with pytest.raises(TypeError, match=r"^limits is .* a fdmux.ServerLimits"):
                StreamServer("127.0.0.1", 0, StreamHandler(), limits=limits)
            with pytest.raises(TypeError, match=r"^limits is .* a fdmux.ServerLimits"):
                EchoServer(port=0, limits=limits)
            if isinstance(wrong, StreamLimits):
                continue
            with pytest.raises(TypeError, match=r"^limits is .* a fdmux.StreamLimits"):
                add_stream(loop, sock, StreamHandler(), limits=limits)
            with pytest.raises(TypeError, match=r"^limits is .* a fdmux.StreamLimits"):
                connect_stream(loop, ("::1", 1), StreamHandler(), limits=limits)
    assert open_fds() == before
    assert sock.gettimeout() is None


@pytest.mark.parametrize(
    ("values", "kind", "reason"),
    [
        ({"queue_max": -1}, ValueError, "queue_max is -1; it must be in 1.."),
        ({"receive_max": 1.5}, TypeError, "receive_max is 1.5; it must be an integer"),
        ({"queue_low": "1"}, TypeError, "queue_low is '1'; it must be an integer"),
        ({"idle_timeout": "1"}, TypeError, "idle_timeout is '1'; it must be a number"),
        ({"stall_timeout": 0}, ValueError, "stall_timeout is 0; it must be > 0"),
        ({"queue_high": 1 << 20}, ValueError, "queue_high is 1048576; .* queue_max"),
    ],
)
def test_value_of_limits(
    values: dict[str, int], kind: type[Exception], reason: str
) -> None:
    for limits in (StreamLimits, ServerLimits):
        with pytest.raises(kind, match=f"^{reason}"):
            limits(**values)


@pytest.mark.parametrize(
    ("address", "kind", "reason"),
    [
        (("127.0.0.1", "80"), TypeError, "port is '80'; it must be an integer in 0"),
        (("127.0.0.1", -1), OverflowError, "port is -1; it must be in 0"),
        ((b"127.0.0.1", 80), TypeError, "host is b'127.0.0.1'; it must be a str"),
        (["127.0.0.1", 80], TypeError, r"address is \['127.0.0.1', 80\]; it must be"),
        (("127.0.0.1",), TypeError, "address is .*; it must be"),
        (80, TypeError, "address is 80; it must be"),
        (None, TypeError, "address is None; it must be"),
        ("", ValueError, "address is ''"),
        ("x" * 200, OSError, r".*connect to 'xxx.*too long"),
    ],
)
def test_address(address: str, kind: type[Exception], reason: str) -> None:
    before = open_fds()
    with SelectorEventLoop() as loop:
        with pytest.raises(kind, match=f"^{reason}"):
            connect_stream(loop, address, StreamHandler())
        assert delivery_of(loop).streams() == []
    assert open_fds() == before


def test_timeout_of_connect() -> None:
    with SelectorEventLoop() as loop:
        for timeout, kind in ((float("nan"), ValueError), ("1", TypeError)):
            with pytest.raises(kind, match=r"^timeout is"):
                connect_stream(
                    loop,
                    ("127.0.0.1", 1),
                    StreamHandler(),
                    timeout=timeout,  # type: ignore[arg-type] # on purpose
                )


@pytest.mark.parametrize(
    ("arguments", "kind", "reason"),
    [
        ({"host": 5}, TypeError, "host is 5; it must be a str"),
        ({"port": "80"}, TypeError, "port is '80'; it must be an integer"),
        ({"size": "2"}, TypeError, "size is '2'; it must be an integer >= 1"),
        ({"timeout": "5"}, TypeError, "timeout is '5'; it must be a number"),
        ({"reply_bytes_max": 0}, ValueError, "reply_bytes_max is 0; it must be >= 1"),
    ],
)
def test_pool(arguments: dict[str, str], kind: type[Exception], reason: str) -> None:
    before = open_fds()
    with pytest.raises(kind, match=f"^{reason}"):
        ClientPool(**{"host": "127.0.0.1", "port": 1, **arguments})  # type: ignore[arg-type] # on purpose
    assert open_fds() == before


def test_server() -> None:
    for name, value, kind in (
        ("backlog", "5", TypeError),
        ("backlog", 0, ValueError),
        ("port", "80", TypeError),
        ("host", 5, TypeError),
    ):
        arguments = {"host": "127.0.0.1", "port": 0, name: value}
        with pytest.raises(kind, match=f"^{name} is {value!r}; it must be"):
            StreamServer(handler=StreamHandler(), **arguments)  # type: ignore[call-overload] # on purpose
    with StreamServer("127.0.0.1", 0, StreamHandler()) as server:
        for run in (server.run, server.run_in_thread):
            with pytest.raises(TypeError, match=r"^max_iterations is 1\.5"):
                run(1.5)  # type: ignore[arg-type] # on purpose
            with pytest.raises(ValueError, match=r"^max_iterations is -1"):
                run(-1)


def test_reply_rule_of_another_type_is_named() -> None:
    with (
        ClientPool("127.0.0.1", 1) as pool,
        pytest.raises(TypeError, match=r"^reply is 1\.5; it must be an int, bytes"),
    ):
        pool.exchange([b"x"], 1.5)  # type: ignore[call-overload] # on purpose


def test_socket_that_is_refused_keeps_its_mode(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock.settimeout(5.0)
    with SelectorEventLoop() as loop:
        monkeypatch.setattr(fdmux.Stream, "_open", lambda *_: -12)
        with pytest.raises(MemoryError):
            add_stream(loop, sock, StreamHandler())
    assert sock.gettimeout() == 5.0
