"""The HTTP example: its protocol alone, and its server with real clients."""

from __future__ import annotations

import random
import re
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

Address = tuple[str, int]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
TEXT = b"Hello, world!\n"
REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n\r\n"
) + TEXT


def status_lines(replies: bytes) -> list[bytes]:
    return re.findall(rb"^HTTP/1\.1 (\d+) ", replies, re.MULTILINE)


# The protocol alone --------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_pipeline_is_answered_in_any_division(hello: ModuleType, seed: int) -> None:
    source = random.Random(seed)
    post = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345"
    requests = [source.choice([GET, post]) for _ in range(20)]
    data = b"".join(requests)
    one = hello.Hello()
    replies = b""
    while data:
        size = source.randint(1, 100)
        replies += one.receive(data[:size])
        data = data[size:]
    assert replies == REPLY * len(requests)
    assert not one.is_over
    assert not one.is_waiting


def test_replies_to_a_long_pipeline_are_made_a_bounded_piece_at_a_time(
    hello: ModuleType,
) -> None:
    one = hello.Hello()
    count = 4 * hello.REPLIES_MAX // len(REPLY)
    replies = [one.receive(GET * count)]
    while one.is_waiting:
        replies.append(one.go_on())
    assert len(replies) > 3
    assert max(map(len, replies)) < hello.REPLIES_MAX + len(REPLY)
    assert b"".join(replies) == REPLY * count


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\n", b"501"),
        (b"PUT / HTTP/1.1\r\nHost: x\r\n\r\n", b"501"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", b"501"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000, b"431"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n"
            + bytes(1024 * 1024 + 1),
            b"413",
        ),
    ],
    ids=lambda value: value[:30].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_bad_request_is_answered_behind_the_good_ones_and_is_the_last(
    hello: ModuleType, request_bytes: bytes, status: bytes
) -> None:
    one = hello.Hello()
    replies = one.receive(GET + request_bytes)
    while one.is_waiting:
        replies += one.go_on()
    assert status_lines(replies) == [b"200", status]
    assert b"\r\nConnection: close\r\n" in replies
    assert one.is_over
    assert one.receive(GET) == b""


def test_end_in_the_middle_of_a_request_is_a_bad_request(hello: ModuleType) -> None:
    one = hello.Hello()
    assert one.receive(GET[:-1]) == b""
    assert status_lines(one.receive(b"")) == [b"400"]
    assert one.is_over


def test_head_has_no_body(hello: ModuleType) -> None:
    replies = hello.Hello().receive(GET.replace(b"GET", b"HEAD") + GET)
    assert replies == REPLY[: -len(TEXT)] + REPLY


def test_client_that_wants_to_close_is_not_kept(hello: ModuleType) -> None:
    one = hello.Hello()
    wish = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert status_lines(one.receive(wish + GET)) == [b"200"]
    assert one.is_over


# The server ----------------------------------------------------------------------


def read_to_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def read_exactly(sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = sock.recv(size - len(received))
        assert part, f"the server has closed after {len(received)} bytes"
        received += part
    return bytes(received)


def connect(address: Address) -> socket.socket:
    return socket.create_connection(address, timeout=10)


def test_request_that_comes_byte_by_byte_is_answered(http_server: Address) -> None:
    with connect(http_server) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in GET + GET:
            sock.sendall(bytes([byte]))
        assert read_exactly(sock, 2 * len(REPLY)) == REPLY * 2


def test_client_that_ends_its_side_gets_every_reply_first(
    http_server: Address,
) -> None:
    with connect(http_server) as sock:
        sock.sendall(GET * 3000)
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock) == REPLY * 3000


def test_refused_client_reads_why_although_it_goes_on_sending(
    http_server: Address,
) -> None:
    """Closing with bytes unread would be a reset, and the reply could be lost."""
    with connect(http_server) as sock, connect(http_server) as other:
        sock.sendall(b"nonsense\r\n\r\n")
        for _ in range(20):
            sock.sendall(bytes(50_000))
        assert status_lines(read_to_end(sock)) == [b"400"]
        other.sendall(GET)
        assert read_exactly(other, len(REPLY)) == REPLY


def test_refused_client_that_never_ends_is_cut_off(http_server: Address) -> None:
    with connect(http_server) as sock:
        sock.sendall(b"nonsense\r\n\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_for_ever(sock)


def send_for_ever(sock: socket.socket) -> None:
    for _ in range(1000):
        sock.sendall(bytes(100_000))


# Real clients --------------------------------------------------------------------


class Curl:
    def __init__(self, program: str, address: Address) -> None:
        self._command = [program, "--silent", "--show-error", "--max-time", "10"]
        self._url = "http://{}:{}/".format(*address)

    def __call__(self, *options: str, count: int = 1, body: str = "") -> str:
        """Ask for as many URLs, one behind the other; return what was printed."""
        done = subprocess.run(
            [*self._command, *options, *(self._url + str(n) for n in range(count))],
            input=body,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.stderr == ""
        assert done.returncode == 0
        return done.stdout


@pytest.fixture
def run_curl(curl: str, http_server: Address) -> Curl:
    return Curl(curl, http_server)


def test_curl_is_greeted_again_and_again_on_one_connection(
    run_curl: Curl,
) -> None:
    said = run_curl("--write-out", "%{http_code} %{num_connects}\n", count=5)
    hello = TEXT.decode()
    assert said == f"{hello}200 1\n" + f"{hello}200 0\n" * 4


def test_curl_sends_a_body_when_it_is_asked_to(run_curl: Curl) -> None:
    body = "x" * 500_000
    options = ("--header", "Expect: 100-continue", "--data-binary", "@-", "--include")
    said = run_curl(*options, body=body)
    assert said.startswith("HTTP/1.1 100 ")
    assert "HTTP/1.1 200 OK" in said


def test_curl_is_told_of_a_body_that_is_too_large(run_curl: Curl) -> None:
    options = ("--header", "Expect:", "--data-binary", "@-", "--output", "/dev/null")
    said = run_curl(*options, "--write-out", "%{http_code}", body="x" * 2_000_000)
    assert said == "413"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("--head",), "200"),
        (("--http1.0",), "200"),
        (("--request", "DELETE"), "501"),
        (("--header", "Host;"), "200"),
        (("--header", "X: " + "x" * 20_000), "431"),
    ],
    ids=["HEAD", "HTTP/1.0", "DELETE", "empty host", "large header"],
)
def test_curl_gets_the_status(
    run_curl: Curl, options: tuple[str, ...], status: str
) -> None:
    assert run_curl("--include", *options).split()[1] == status


@pytest.mark.slow
def test_wrk_finds_no_error(wrk: str, http_server: Address) -> None:
    host, port = http_server
    command = [wrk, "-d1s", "-c20", "-t1", f"http://{host}:{port}/"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Socket errors" not in done.stdout
    assert "Non-2xx" not in done.stdout
    found = re.search(r"(\d+) requests in", done.stdout)
    assert found is not None
    assert int(found[1]) > 100
