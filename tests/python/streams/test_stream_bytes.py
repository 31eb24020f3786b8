"""Streams keep every byte in order: random sizes, slow readers, failing calls."""

from __future__ import annotations

import errno
import hashlib
import random
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from fdmux._ffi import lib
from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.client import add_stream
from fdmux.streams.limits import ServerLimits, StreamLimits
from fdmux.streams.server import StreamServer
from fdmux.streams.stream import Stream, StreamHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = 30.0
SIZE = 2_000_000


class Scrambler(StreamHandler):
    """Echoes, using every way to write."""

    def __init__(self, seed: int) -> None:
        self._order = random.Random(seed)

    def on_data(self, stream: Stream, data: bytes) -> bytes | bytearray | None:
        way = self._order.randrange(5)
        if way == 0:
            return data
        if way == 1:
            return bytes(data)
        if way == 2:
            stream.write(data)
        elif way == 3:
            cut = self._order.randrange(len(data) + 1)
            stream.writelines([data[:cut], bytes(data[cut:])])
        else:
            cut = self._order.randrange(len(data) + 1)
            stream.write(data[:cut])
            assert stream.buffered >= 0  # sends in the middle of the batch
            stream.write(bytearray(data[cut:]))
        return None


def exchange(address: tuple[str, int], seed: int, size: int) -> tuple[bytes, bytes]:
    """Send random bytes in random pieces, read slowly; return both hashes."""
    order = random.Random(seed)
    data = order.randbytes(size)
    back = hashlib.sha256()
    with socket.create_connection(address, timeout=LONG) as sock:

        def send() -> None:
            start = 0
            while start < size:
                start += sock.send(data[start : start + order.randrange(1, 200_000)])
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        reader = random.Random(seed + 1)
        while chunk := sock.recv(reader.randrange(1, 100_000)):
            back.update(chunk)
        sender.join()
    return hashlib.sha256(data).digest(), back.digest()


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    limits = ServerLimits(queue_high=20_000, queue_low=5_000, queue_max=1 << 20)
    with StreamServer("127.0.0.1", 0, Scrambler(7), limits=limits) as server:
        server.run_in_thread()
        yield server.address


@pytest.mark.parametrize("seed", range(3))
def test_bytes_come_back_in_order(address: tuple[str, int], seed: int) -> None:
    sent, back = exchange(address, seed, SIZE)
    assert sent == back


def test_clients_at_once_get_their_own_bytes(address: tuple[str, int]) -> None:
    results: list[tuple[bytes, bytes]] = []

    def client(seed: int) -> None:
        results.append(exchange(address, seed, SIZE // 4))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(sent == back for sent, back in results)


@pytest.mark.faults
@pytest.mark.parametrize("length", [1, 2, 3, 5, 7, 1000])
def test_short_receives_and_sends(address: tuple[str, int], length: int) -> None:
    lib.fdmux_testing_short(length)
    sent, back = exchange(address, length, min(SIZE, 5_000 * length))
    assert sent == back


@pytest.mark.faults
@pytest.mark.parametrize("call", ["FDMUX_CALL_SEND", "FDMUX_CALL_RECV"])
@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EINTR])
def test_each_call_in_turn_fails_for_now(call: str, error: int) -> None:
    """In one thread: the n-th call fails once, then everything goes on."""
    data = random.Random(1).randbytes(30_000)
    for nth in range(1, 12):
        ours, theirs = socket.socketpair()
        with ours, SelectorEventLoop() as loop:
            ours.setblocking(False)
            add_stream(loop, theirs, Scrambler(nth), limits=StreamLimits(5_000))
            lib.fdmux_testing_fail(getattr(lib, call), nth, error, 0)
            ours.sendall(data)
            back = b""
            while len(back) < len(data):
                loop.run_once(LONG)
                back += read_now(ours)
        assert back == data


def read_now(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return b""


@pytest.mark.faults
@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ENOMEM])
def test_kernel_without_buffers_is_asked_again_at_a_tick(error: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, SelectorEventLoop() as loop:
        stream = add_stream(loop, theirs, StreamHandler())
        lib.fdmux_testing_fail(lib.FDMUX_CALL_SEND, 1, error, 1)
        stream.write(b"hello")
        for _ in range(3):
            assert stream.buffered == 5
            before = lib.fdmux_testing_calls()
            loop.run_once(0)
            loop.run_once(0)
            assert lib.fdmux_testing_calls() == before  # writable, not asked: no spin
            lib.fdmux_py_stream_tick(loop.native._c_loop, 1)
            loop.run_once(0)
            assert lib.fdmux_testing_calls() == before + 1
        lib.fdmux_testing_fail(0, 0, 0, 0)
        lib.fdmux_py_stream_tick(loop.native._c_loop, 1)
        loop.run_once(LONG)
        assert stream.buffered == 0
        assert ours.recv(9) == b"hello"


@pytest.mark.faults
@pytest.mark.parametrize("error", [errno.ECONNRESET, errno.ETIMEDOUT, errno.EPIPE])
@pytest.mark.parametrize("call", ["FDMUX_CALL_SEND", "FDMUX_CALL_RECV"])
def test_error_of_one_stream_is_told_to_it_alone(call: str, error: int) -> None:
    closed: list[tuple[Stream, Exception | None]] = []

    class Echo(StreamHandler):
        def on_data(self, _stream: Stream, data: bytes) -> bytes:
            return data

        def on_close(self, stream: Stream, error: Exception | None) -> None:
            closed.append((stream, error))

    pairs = [socket.socketpair() for _ in range(3)]
    with SelectorEventLoop() as loop:
        streams = [add_stream(loop, theirs, Echo()) for _ours, theirs in pairs]
        for ours, _theirs in pairs:
            ours.sendall(b"x")
        lib.fdmux_testing_fail(getattr(lib, call), 2, error, 0)
        while not closed:
            loop.run_once(LONG)
        assert closed[0][0] in streams
        assert isinstance(closed[0][1], OSError)
        assert closed[0][1].errno == error
        alive = [
            pair[0]
            for pair, each in zip(pairs, streams, strict=True)
            if each is not closed[0][0]
        ]
        assert [ours.recv(9) for ours in alive] == [b"x", b"x"]
        for ours, _theirs in pairs:
            ours.close()
