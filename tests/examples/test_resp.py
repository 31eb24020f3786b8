"""The Redis-protocol example: its parser alone, and its server with real clients."""

from __future__ import annotations

import csv
import random
import socket
import subprocess
from typing import TYPE_CHECKING, Protocol

import pytest

from fdmux.loop.event_loop import SelectorEventLoop
from fdmux.streams.client import add_stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from fdmux.framing import FrameHandler
    from fdmux.streams.stream import Stream

Address = tuple[str, int]
LARGE = 512 * 1024


def encoded(*words: bytes) -> bytes:
    head = b"*%d\r\n" % len(words)
    return head + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def random_word(source: random.Random) -> bytes:
    kind = source.randrange(4)
    if kind == 0:
        return source.randbytes(source.randrange(2000))
    if kind == 1:
        return b"\r\n$1\r\n" * source.randrange(4)
    if kind == 2:
        return source.choice([b"", b"\r", b"\n", b"*1", b"$0\r\n", b"\r\n"])
    return b"word%d" % source.randrange(1000)


def pieces(data: bytes, source: random.Random, length_max: int) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = start + source.randint(1, length_max)
        yield data[start:end]
        start = end


# The parser alone, and what does the same in C ------------------------------------


class Parser(Protocol):
    def feed(self, data: bytes) -> list[list[bytes]]: ...


class Installation(Protocol):
    def python(self, code: str) -> str: ...


class NativeParser:
    """resp_framer in a stream, with the interface of ``resp.Parser``."""

    PIECE = 32768

    def __init__(self, handler: FrameHandler, loop: SelectorEventLoop) -> None:
        self.found: list[list[bytes]] = []
        self.problem: Exception | None = None
        self._loop = loop
        self._sock, theirs = socket.socketpair()
        handler.on_frames = self._take  # type: ignore[method-assign,assignment] # of this one
        handler.on_frame_error = self._fail  # type: ignore[method-assign] # of this one
        add_stream(loop, theirs, handler)

    def _take(self, _stream: Stream, requests: list[list[bytes]]) -> None:
        self.found += filter(None, requests)

    def _fail(self, stream: Stream, error: Exception) -> None:
        self.problem = error
        stream.close()

    def feed(self, data: bytes) -> list[list[bytes]]:
        for start in range(0, len(data), self.PIECE):
            self._sock.sendall(data[start : start + self.PIECE])
            self._loop.run_once(0)
        found, self.found = self.found, []
        if self.problem is not None:
            self.problem.requests = found  # type: ignore[attr-defined] # as resp.Parser does
            raise self.problem
        return found

    def close(self) -> None:
        self._sock.close()


@pytest.fixture(params=["python", "native"])
def parser(request: pytest.FixtureRequest, resp: ModuleType) -> Iterator[Parser]:
    if request.param == "python":
        yield resp.Parser()
        return
    request.getfixturevalue("resp_framer")
    server = request.getfixturevalue("resp_handler")
    with SelectorEventLoop() as loop:
        native = NativeParser(server.NativeRespHandler(), loop)
        yield native
        native.close()


@pytest.mark.parametrize("length_max", [1, 3, 100, 10_000])
@pytest.mark.parametrize("seed", range(5))
def test_parser_finds_the_same_requests_in_any_division(
    parser: Parser, seed: int, length_max: int
) -> None:
    source = random.Random(seed)
    requests = [
        [random_word(source) for _ in range(source.randint(1, 5))] for _ in range(30)
    ]
    data = b"".join(encoded(*request) for request in requests)
    found = [
        request
        for piece in pieces(data, source, length_max)
        for request in parser.feed(piece)
    ]
    assert found == requests


def test_parser_returns_a_request_with_its_last_byte_and_not_before(
    parser: Parser,
) -> None:
    data = encoded(b"SET", b"key", b"a\r\nb")
    for number in range(len(data) - 1):
        assert parser.feed(data[number : number + 1]) == []
    assert parser.feed(data[-1:]) == [[b"SET", b"key", b"a\r\nb"]]


def test_parser_takes_inline_commands_and_empty_requests(parser: Parser) -> None:
    data = b"PING\r\n\r\n*0\r\n  SET  a  b \r\n" + encoded(b"GET", b"a")
    assert parser.feed(data) == [[b"PING"], [b"SET", b"a", b"b"], [b"GET", b"a"]]


@pytest.mark.parametrize(
    "data",
    [
        b"*x\r\n",
        b"*-1\r\n",
        b"*1025\r\n",
        b"*99999999999999999999\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$ 1\r\n",
        b"*1\r\n$524289\r\n",
        b"*1\r\n$1\r\nxy\r\n",
        b"*2\r\n$524288\r\n" + bytes(LARGE) + b"\r\n$65537\r\n",
        b"x" * 4096,
        b"*1\r\n$" + b"1" * 5000,
        b"*1\r\n\r\n",
        b"*\r\n",
        b"x " * 1025 + b"\r\n",
    ],
    ids=lambda data: repr(data[:20]),
)
@pytest.mark.parametrize("length_max", [1000, 100_000])
def test_parser_refuses_what_is_no_request_but_returns_those_before(
    resp: ModuleType, parser: Parser, data: bytes, length_max: int
) -> None:
    source = random.Random(1)
    found: list[list[bytes]] = []
    all_pieces = pieces(encoded(b"PING", b"\r\n") + data, source, length_max)
    with pytest.raises(resp.ProtocolError) as caught:
        found.extend(request for piece in all_pieces for request in parser.feed(piece))
    assert found + caught.value.requests == [[b"PING", b"\r\n"]]
    with pytest.raises(resp.ProtocolError) as wanted:
        resp.Parser().feed(data)
    assert str(caught.value) == str(wanted.value)


BOUNDS = {
    "arguments": [b"x"] * 1024,
    "an argument": [b"SET", b"k", bytes(LARGE)],
    "a request": [bytes(LARGE), bytes(64 * 1024)],
}


@pytest.mark.parametrize("name", BOUNDS)
def test_parser_takes_what_just_fits(parser: Parser, name: str) -> None:
    request = BOUNDS[name]
    data = encoded(*request)
    found = parser.feed(data[:-1])
    assert found == []
    assert parser.feed(data[-1:]) == [request]


def test_parser_takes_as_many_words_and_as_long_a_line_as_it_says(
    parser: Parser,
) -> None:
    words = [b"x"] * 1024
    assert parser.feed(b" ".join(words) + b"\r\n") == [words]
    assert parser.feed(b"x" * 4094 + b"\r\n") == [[b"x" * 4094]]
    assert parser.feed(b"\ta\x0bb\x0c\r c\r\n") == [[b"a", b"b", b"c"]]


@pytest.mark.slow
def test_parser_fed_by_single_bytes_looks_at_a_large_value_once(
    resp: ModuleType,
) -> None:
    """A parser that scanned its whole buffer for each byte would need minutes."""
    parser = resp.Parser()
    assert parser.feed(b"*1\r\n$%d\r\n" % LARGE) == []
    feed = parser.feed
    assert not any(feed(b"v") for _ in range(LARGE))
    assert parser.feed(b"\r") == []
    assert parser.feed(b"\n") == [[b"v" * LARGE]]


# The commands --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        ((b"PING",), b"+PONG\r\n"),
        ((b"ping", b"x"), b"$1\r\nx\r\n"),
        ((b"ECHO", b"\r\n"), b"$2\r\n\r\n\r\n"),
        ((b"GET", b"none"), b"$-1\r\n"),
        ((b"GET", b"n"), b"$2\r\n-8\r\n"),
        ((b"INCR", b"n"), b":-7\r\n"),
        ((b"INCR", b"text"), b"-ERR value is not an integer\r\n"),
        ((b"INCR", b"new"), b":1\r\n"),
        ((b"EXISTS", b"n", b"n", b"none"), b":2\r\n"),
        ((b"DEL", b"n", b"none"), b":1\r\n"),
        ((b"MGET", b"n", b"none"), b"*2\r\n$2\r\n-8\r\n$-1\r\n"),
        ((b"DBSIZE",), b":2\r\n"),
        ((b"FLUSHALL",), b"+OK\r\n"),
        ((b"CONFIG", b"GET", b"save"), b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        ((b"SET", b"n"), b"-ERR wrong number of arguments for 'SET'\r\n"),
        (
            (b"SET", b"n", b"1", b"EX", b"9"),
            b"-ERR wrong number of arguments for 'SET'\r\n",
        ),
        ((b"\r\nNO",), b"-ERR unknown command '\\r\\nNO'\r\n"),
    ],
    ids=lambda value: repr(value[0]) if isinstance(value, tuple) else "",
)
def test_command_is_answered(
    store: ModuleType, words: tuple[bytes, ...], reply: bytes
) -> None:
    keys = store.Store()
    assert keys.answer([b"SET", b"n", b"-8"]) == b"+OK\r\n"
    assert keys.answer([b"SET", b"text", b"--1"]) == b"+OK\r\n"
    assert keys.answer(list(words)) == reply


def test_session_makes_long_replies_a_bounded_piece_at_a_time(
    session: ModuleType, store: ModuleType
) -> None:
    keys = store.Store()
    keys.answer([b"SET", b"k", bytes(LARGE)])
    one = session.Session(keys)
    replies = [one.receive(encoded(b"GET", b"k") * 10)]
    assert one.receive(encoded(b"PING")) == b""  # in order: behind what waits
    while one.waiting:
        replies.append(one.go_on())
    assert max(map(len, replies)) < store.REPLIES_MAX + LARGE + 100
    wanted = b"$%d\r\n%b\r\n" % (LARGE, bytes(LARGE))
    assert b"".join(replies) == wanted * 10 + b"+PONG\r\n"


def test_values_of_one_reply_are_bounded(store: ModuleType) -> None:
    keys = store.Store()
    keys.answer([b"SET", b"k", bytes(LARGE)])
    assert keys.answer([b"MGET", b"k", b"k"]).startswith(b"*2\r\n")
    assert keys.answer([b"MGET", b"k", b"k", b"k"]).startswith(b"-ERR")


class SlowStream:
    """A stand-in for the stream of a client that reads nothing for now."""

    def __init__(self) -> None:
        self.data: object = None
        self.buffered = 1
        self.written: list[bytes] = []
        self.is_paused = False
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("kind", ["RespHandler", "NativeRespHandler"])
def test_handler_reads_no_further_while_replies_wait(
    resp: ModuleType, resp_handler: ModuleType, kind: str
) -> None:
    """Otherwise requests pile up, and the end of the stream drops them."""
    handler = getattr(resp_handler, kind)()
    stream = SlowStream()
    handler.on_connect(stream)

    def receive(data: bytes) -> object:
        if kind == "RespHandler":
            return handler.on_data(stream, data)
        return handler.on_frames(stream, [[], *resp.Parser().feed(data)])

    assert receive(encoded(b"SET", b"k", bytes(LARGE))) == b"+OK\r\n"
    assert receive(encoded(b"GET", b"k") * 7) is None
    assert len(stream.written) == 1
    assert stream.is_paused
    stream.buffered = 0
    handler.on_drain(stream)
    assert not stream.is_paused
    assert b"".join(stream.written).count(b"$%d" % LARGE) == 7


def test_error_reply_comes_behind_replies_that_wait(resp_handler: ModuleType) -> None:
    handler = resp_handler.NativeRespHandler()
    stream = SlowStream()
    handler.on_connect(stream)
    handler.on_frames(stream, [[b"SET", b"k", bytes(LARGE)]])
    assert handler.on_frames(stream, [[b"GET", b"k"]] * 7) is None
    handler.on_frame_error(stream, handler.frame_error(b"*x\r\n"))
    assert not stream.is_closed
    stream.buffered = 0
    handler.on_drain(stream)
    assert stream.is_closed
    assert b"".join(stream.written).count(b"$%d" % LARGE) == 7
    assert stream.written[-1].startswith(b"-ERR Protocol error: expected '*'")


@pytest.mark.slow
def test_readme_tells_how_the_framer_is_built(
    installation: Installation, example: Path
) -> None:
    line = "python setup.py build_ext --inplace"
    assert line in (example / "resp" / "README.md").read_text()
    printed = installation.python(
        f"import os, runpy, sys; os.chdir({str(example / 'resp')!r}); "
        f"sys.argv = {line.split()[1:]!r}; "
        "runpy.run_path('setup.py', run_name='__main__'); "
        "sys.path.insert(0, '.'); import resp_framer; print(resp_framer.framer())"
    )
    assert 'capsule object "fdmux.framer"' in printed


# The server ----------------------------------------------------------------------


def connect(address: Address) -> socket.socket:
    return socket.create_connection(address, timeout=10)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = sock.recv(size - len(received))
        assert part, f"the server has closed after {len(received)} bytes"
        received += part
    return bytes(received)


def ask(sock: socket.socket, request: bytes, reply: bytes) -> None:
    sock.sendall(request)
    assert read_exactly(sock, len(reply)) == reply


def read_to_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def test_request_that_comes_byte_by_byte_is_answered(resp_server: Address) -> None:
    with connect(resp_server) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in encoded(b"ECHO", b"a\r\nb"):
            sock.sendall(bytes([byte]))
        assert read_exactly(sock, 10) == b"$4\r\na\r\nb\r\n"


def test_pipeline_that_is_cut_anywhere_is_answered_in_order(
    resp_server: Address,
) -> None:
    source = random.Random(7)
    words = [random_word(source) for _ in range(300)]
    data = b"".join(encoded(b"ECHO", word) for word in words)
    replies = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    with connect(resp_server) as sock:
        for piece in pieces(data, source, 5000):
            sock.sendall(piece)
        assert read_exactly(sock, len(replies)) == replies


def test_client_that_ends_its_side_gets_every_long_reply_first(
    resp_server: Address,
) -> None:
    """A pipeline of 1 KiB asks for 32 MiB, and is not read until all is sent."""
    value = random.Random(3).randbytes(LARGE)
    reply = b"$%d\r\n%b\r\n" % (LARGE, value)
    with connect(resp_server) as sock, connect(resp_server) as other:
        ask(sock, encoded(b"SET", b"large", value), b"+OK\r\n")
        sock.sendall(encoded(b"GET", b"large") * 64)
        sock.shutdown(socket.SHUT_WR)
        ask(other, b"PING\r\n", b"+PONG\r\n")  # while that one takes nothing
        assert read_exactly(sock, len(reply)) == reply
        assert read_to_end(sock) == reply * 63


def test_malformed_request_ends_its_connection_alone(resp_server: Address) -> None:
    with connect(resp_server) as good, connect(resp_server) as bad:
        ask(good, b"PING\r\n", b"+PONG\r\n")
        bad.sendall(encoded(b"ECHO", b"1") + b"*1\r\n:1\r\n")
        said = read_to_end(bad)
        assert said.startswith(b"$1\r\n1\r\n-ERR Protocol error: ")
        assert said.count(b"\r\n") == 3
        ask(good, b"PING\r\n", b"+PONG\r\n")


def test_client_that_goes_in_the_middle_of_a_request_disturbs_nobody(
    resp_server: Address,
) -> None:
    with connect(resp_server) as good:
        for cut in (1, 5, 20):
            with connect(resp_server) as gone:
                gone.sendall(encoded(b"SET", b"cut", b"value" * 10)[:cut])
        ask(good, encoded(b"GET", b"cut"), b"$-1\r\n")


# Real clients --------------------------------------------------------------------


class RedisCli:
    def __init__(self, program: str, address: Address) -> None:
        host, port = address
        self._command = [program, "-h", host, "-p", str(port), "--raw"]

    def __call__(self, *words: str, value: bytes | None = None) -> bytes:
        """Run one command, with the value as its last word; return the reply."""
        options = [] if value is None else ["-x"]
        done = subprocess.run(
            [*self._command, *options, *words],
            input=value or b"",
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == b""
        return done.stdout[:-1]  # it adds a line end


@pytest.fixture
def cli(redis_cli: str, resp_server: Address) -> RedisCli:
    return RedisCli(redis_cli, resp_server)


@pytest.mark.parametrize(
    "value",
    [b"plain", b"", b"a\r\nb\r\n", bytes(range(256)) * 4, b"\r\n" * (LARGE // 2)],
    ids=["plain", "empty", "lines", "binary", "512 KiB of line ends"],
)
def test_redis_cli_gets_back_what_it_has_set(cli: RedisCli, value: bytes) -> None:
    assert cli("set", "key", value=value) == b"OK"
    assert cli("get", "key") == value


def test_redis_cli_understands_every_kind_of_reply(cli: RedisCli) -> None:
    assert cli("del", "a", "b", "count") in {b"0", b"1", b"2", b"3"}
    assert cli("set", "a", "1") == b"OK"
    assert cli("incr", "a") == b"2"
    assert cli("mget", "a", "none") == b"2\n"
    assert cli("get", "none") == b""
    assert cli("nonsense").startswith(b"ERR unknown command")


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", [1, 16])
def test_redis_benchmark_finds_no_error_and_counts_right(
    redis_benchmark: str, resp_server: Address, pipeline: int
) -> None:
    host, port = resp_server
    count = 10_000
    with connect(resp_server) as sock:
        ask(sock, encoded(b"SET", b"counter:__rand_int__", b"0"), b"+OK\r\n")
        command = [redis_benchmark, "-h", host, "-p", str(port), "--csv"]
        command += ["-t", "ping,set,get,incr", "-c", "50", "-P", str(pipeline)]
        command += ["-n", str(count), "-d", "100"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        rows = list(csv.reader(done.stdout.splitlines()))
        assert [row[0] for row in rows[1:]] == [
            *("PING_INLINE", "PING_MBULK", "SET", "GET", "INCR")
        ]
        assert all(float(row[1]) > 0 for row in rows[1:])
        reply = b"$5\r\n%d\r\n" % count
        ask(sock, encoded(b"GET", b"counter:__rand_int__"), reply)
        sock.sendall(encoded(b"GET", b"key:__rand_int__"))
        assert read_exactly(sock, 108)[:6] == b"$100\r\n"


@pytest.mark.slow
def test_redis_benchmark_with_values_of_100_kib(
    redis_benchmark: str, resp_server: Address
) -> None:
    host, port = resp_server
    command = [redis_benchmark, "-h", host, "-p", str(port), "-q", "-t", "set,get"]
    command += ["-c", "10", "-P", "4", "-n", "1000", "-d", "102400"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "SET:" in done.stdout
    assert "GET:" in done.stdout
