"""ClientPool: replies in order, deadlines, and what broken connections do."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from tests.peers import reset

from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.pool.outcome import (
    ExchangeConnectionError,
    ExchangeError,
    ExchangeTimeoutError,
)
from fdmux.pool.pool import ClientPool
from fdmux.streams.echo import EchoServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.python.conftest import FakeClock, SelectorFactory

    Script = Callable[[socket.socket], None]

LONG = 30.0


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    with EchoServer(port=0) as server:
        server.run_in_thread()
        yield server


class ScriptedServer:
    """Serves the n-th connection with the n-th script, in a thread."""

    def __init__(self, *scripts: Script) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, args=(scripts,))
        self._thread.start()

    def _serve(self, scripts: tuple[Script, ...]) -> None:
        for script in scripts:
            sock, _ = self._listener.accept()
            sock.settimeout(LONG)
            self._open.append(sock)
            script(sock)

    def __enter__(self) -> tuple[str, int]:
        return self.address

    def __exit__(self, *_error: object) -> None:
        self._thread.join()
        self._listener.close()
        for sock in self._open:
            sock.close()


def answer(*replies: bytes) -> Script:
    """Read something, send the next reply; then leave the connection open."""

    def script(sock: socket.socket) -> None:
        for reply in replies:
            sock.recv(1000)
            sock.sendall(reply)

    return script


def answer_and_close(*replies: bytes) -> Script:
    def script(sock: socket.socket) -> None:
        answer(*replies)(sock)
        sock.close()

    return script


def read_and_reset(sock: socket.socket) -> None:
    sock.recv(1000)
    reset(sock)


def read_only(sock: socket.socket) -> None:
    sock.recv(1000)


def length_prefixed(received: bytes) -> int:
    if len(received) < 1 or len(received) < 1 + received[0]:
        return 0
    return 1 + received[0]


def test_replies_come_in_the_order_of_the_messages(
    echo: EchoServer, selector_factory: SelectorFactory
) -> None:
    messages = [b"%d\n" % i for i in range(1000)]
    with (
        SelectorEventLoop(selector_factory()) as loop,
        ClientPool(*echo.address, loop=loop) as pool,
    ):
        assert pool.exchange(messages, b"\n") == messages
        assert pool.connection_count == 8


def test_each_way_to_tell_a_reply(echo: EchoServer) -> None:
    with ClientPool(*echo.address, size=3) as pool:
        fixed = [b"%04d" % i for i in range(50)]
        assert pool.exchange(fixed, 4) == fixed
        ended = [b"x" * i + b"\r\n" for i in range(50)]
        assert pool.exchange(ended, b"\r\n") == ended
        prefixed = [bytes([i]) + b"y" * i for i in range(50)]
        assert pool.exchange(prefixed, length_prefixed) == prefixed


def test_connections_persist_and_are_opened_lazily(echo: EchoServer) -> None:
    with ClientPool(*echo.address, size=4) as pool:
        assert pool.connection_count == 0
        assert pool.exchange([], 1) == []
        assert pool.connection_count == 0
        for count in (1, 1, 2, 9):
            pool.exchange([b"x"] * count, 1)
            assert pool.connection_count == min(count, 4)
    assert echo.stats.accepted == 4


def test_large_messages_do_not_lock_up(echo: EchoServer) -> None:
    """Both sides fill their buffers: sending must not wait for its end to read."""
    messages = [bytes([i]) * 3_000_000 for i in range(4)]
    with ClientPool(*echo.address, size=2) as pool:
        assert pool.exchange(messages, 3_000_000) == messages


def test_any_bytes_like_and_any_iterable(echo: EchoServer) -> None:
    with ClientPool(*echo.address) as pool:
        messages = (kind(b"ab") for kind in (bytes, bytearray, memoryview))
        assert pool.exchange(messages, 2) == [b"ab"] * 3


def test_empty_replies_need_no_recursion(echo: EchoServer) -> None:
    with ClientPool(*echo.address, size=1) as pool:
        assert pool.exchange([b""] * 3000, 0) == [b""] * 3000


def test_reply_in_pieces_is_put_together() -> None:
    def dribble(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"hello\r\n":
            sock.sendall(bytes([byte]))

    with ScriptedServer(dribble) as address, ClientPool(*address) as pool:
        assert pool.exchange([b"x"], b"\r\n") == [b"hello\r\n"]


def test_message_without_reply_times_out_and_others_succeed(clock: FakeClock) -> None:
    """Two connections: one never answers, the other does the rest, then time passes."""
    with SelectorEventLoop(clock=clock) as loop:

        def answer_and_wait(sock: socket.socket) -> None:
            answer(*[b"!"] * 4)(sock)
            clock.advance(5)
            loop.call_soon_threadsafe(int)

        with (
            ScriptedServer(read_only, answer_and_wait) as address,
            ClientPool(*address, size=2, timeout=5, loop=loop) as pool,
        ):
            results = pool.exchange([b"x"] * 5, 1, return_errors=True)
            assert results[1:] == [b"!"] * 4
            assert isinstance(results[0], ExchangeTimeoutError)
            assert isinstance(results[0], TimeoutError)
            assert "within 5 s" in str(results[0])
            assert pool.connection_count == 1


def test_first_error_is_raised_with_all_results() -> None:
    with (
        ScriptedServer(answer_and_close(b"!", b"half")) as address,
        ClientPool(*address, size=1) as pool,
    ):
        with pytest.raises(ExchangeConnectionError) as caught:
            pool.exchange([b"a", b"b"], lambda got: len(got) % 4)
        assert isinstance(caught.value, ConnectionError)
        assert caught.value.index == 1
        assert caught.value.results == [b"!", caught.value]
        assert "message 1" in str(caught.value)
        assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_broken_connection_is_replaced_and_the_message_sent_again() -> None:
    with (
        ScriptedServer(read_and_reset, answer(b"!")) as address,
        ClientPool(*address, size=1) as pool,
    ):
        assert pool.exchange([b"x"], 1) == [b"!"]


def test_message_is_sent_again_only_once() -> None:
    with (
        ScriptedServer(read_and_reset, read_and_reset) as address,
        ClientPool(*address, size=1) as pool,
        pytest.raises(ExchangeConnectionError),
    ):
        pool.exchange([b"x"], 1)


def test_message_is_not_sent_again_after_a_byte_of_the_reply() -> None:
    with (
        ScriptedServer(answer_and_close(b"!")) as address,
        ClientPool(*address, size=1) as pool,
        pytest.raises(ExchangeConnectionError),
    ):
        pool.exchange([b"x"], 2)


def test_connection_closed_between_exchanges_is_replaced() -> None:
    closed = threading.Event()

    def answer_then_close(sock: socket.socket) -> None:
        answer_and_close(b"1")(sock)
        closed.set()

    with (
        ScriptedServer(answer_then_close, answer(b"2")) as address,
        ClientPool(*address, size=1) as pool,
    ):
        assert pool.exchange([b"x"], 1) == [b"1"]
        closed.wait()
        assert pool.exchange([b"x"], 1) == [b"2"]


def test_connection_with_bytes_after_the_reply_is_not_used_again() -> None:
    with (
        ScriptedServer(answer(b"1junk"), answer(b"2")) as address,
        ClientPool(*address, size=1) as pool,
    ):
        assert pool.exchange([b"x", b"y"], 1) == [b"1", b"2"]


def test_reply_beyond_its_bound_is_an_error() -> None:
    with (
        ScriptedServer(answer(b"x" * 100)) as address,
        ClientPool(*address, reply_bytes_max=50) as pool,
        pytest.raises(ExchangeConnectionError, match="no whole reply in 100 bytes"),
    ):
        pool.exchange([b"x"], b"\n")


def test_nobody_listening_fails_every_message_at_once() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with ClientPool(*reserved.getsockname()) as pool:
            results = pool.exchange([b"x"] * 100, 1, return_errors=True)
            assert all(type(r) is ExchangeConnectionError for r in results)
            with pytest.raises(ConnectionError, match="refused"):
                pool.exchange([b"x"], 1)


def test_server_that_comes_back_is_found_again() -> None:
    with EchoServer(port=0) as first:
        first.run_in_thread()
        with ClientPool(*first.address, size=2) as pool:
            assert pool.exchange([b"x"] * 4, 1) == [b"x"] * 4
            first.__exit__(None, None, None)
            results = pool.exchange([b"x"] * 4, 1, return_errors=True)
            assert all(isinstance(result, ExchangeError) for result in results)
            with EchoServer(port=first.address[1]) as second:
                second.run_in_thread()
                assert pool.exchange([b"x"] * 4, 1) == [b"x"] * 4


def test_name_is_resolved(echo: EchoServer) -> None:
    with ClientPool("localhost", echo.address[1]) as pool:
        assert pool.exchange([b"x"] * 3, 1) == [b"x"] * 3


def test_reply_function_that_raises_leaves_a_usable_pool(echo: EchoServer) -> None:
    with ClientPool(*echo.address, size=2) as pool:
        with pytest.raises(ZeroDivisionError):
            pool.exchange([b"x"] * 4, lambda _: 1 // 0)
        with pytest.raises(ValueError, match="returned -1"):
            pool.exchange([b"x"] * 4, lambda _: -1)
        assert pool.exchange([b"y"] * 4, 1) == [b"y"] * 4


@pytest.mark.parametrize(
    ("rule", "error"),
    [(-1, ValueError), (b"", ValueError), (1.5, TypeError), ("\n", TypeError)],
)
def test_wrong_reply_rule_is_refused(
    echo: EchoServer, rule: bytes, error: type[Exception]
) -> None:
    with ClientPool(*echo.address) as pool:
        with pytest.raises(error):
            pool.exchange([b"x"], rule)
        assert pool.connection_count == 0
        assert pool.exchange([b"x"], 1) == [b"x"]


def test_message_that_is_no_bytes_is_refused(echo: EchoServer) -> None:
    with ClientPool(*echo.address) as pool:
        with pytest.raises(TypeError, match=r"message 1: .* 'text'"):
            pool.exchange([b"x", "text"], 1)  # type: ignore[list-item] # on purpose
        assert pool.exchange([b"x"], 1) == [b"x"]


@pytest.mark.parametrize("size", [0, -1])
def test_pool_needs_a_connection(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        ClientPool("127.0.0.1", 1, size=size)


def test_nan_timeout_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        ClientPool("127.0.0.1", 1, timeout=float("nan"))


@pytest.mark.parametrize("timeout", [None, float("inf"), 1e300])
def test_no_deadline(echo: EchoServer, timeout: float | None) -> None:
    with ClientPool(*echo.address, timeout=timeout) as pool:
        assert pool.exchange([b"x"], 1) == [b"x"]


def test_deadline_counts_from_when_a_connection_takes_the_message(
    clock: FakeClock,
) -> None:
    """Three requests in a row take longer than the timeout of one."""

    def slow(sock: socket.socket) -> None:
        for _ in range(3):
            sock.recv(1000)
            clock.advance(4)
            sock.sendall(b"!")

    with (
        SelectorEventLoop(clock=clock) as loop,
        ScriptedServer(slow) as address,
        ClientPool(*address, size=1, timeout=5, loop=loop) as pool,
    ):
        assert pool.exchange([b"x"] * 3, 1) == [b"!"] * 3


def test_use_after_close_and_within_an_exchange_is_refused(echo: EchoServer) -> None:
    pool = ClientPool(*echo.address)

    def nested(received: bytes) -> int:
        with pytest.raises(RuntimeError, match="another exchange"):
            pool.exchange([b"y"], 1)
        return len(received)

    assert pool.exchange([b"x"], nested) == [b"x"]
    pool.close()
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.exchange([b"x"], 1)


def test_given_loop_stays_open_and_empty(
    echo: EchoServer, selector_factory: SelectorFactory
) -> None:
    with SelectorEventLoop(selector_factory()) as loop:
        pool = ClientPool(*echo.address, loop=loop)
        with contextlib.closing(pool):
            pool.exchange([b"x"] * 20, 1)
        assert loop.run_once(0) == 0
        assert len(loop._iteration.timers) == 0
