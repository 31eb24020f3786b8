"""The DNS example: its zone alone; its server with dig, dnsperf and the resolver."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.examples.conftest import example_module, real_client, running_server
from tests.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType
    from typing import Protocol

    class Message(Protocol):
        """A message of dnspython."""

        answer: list[list[object]]
        flags: int

        def to_wire(self) -> bytes: ...
        def rcode(self) -> int: ...
        def is_response(self, other: Message) -> bool: ...


dns_message = pytest.importorskip("dns.message", reason="no dnspython")
dns_flags = pytest.importorskip("dns.flags")
dns_rcode = pytest.importorskip("dns.rcode")

Address = tuple[str, int]
FOLDER = ROOT / "examples" / "dns"
RECORDS = """
@ 60 IN NS ns
www 60 IN A 192.0.2.1
www 60 IN A 192.0.2.2
""" + "\n".join(f"many 60 IN A 192.0.2.{number}" for number in range(100))


def query(name: str, kind: str = "A", **options: object) -> Message:
    made: Message = dns_message.make_query(name, kind, **options)
    return made


@pytest.fixture(scope="module")
def zone() -> object:
    return example_module("dns", "zone").Zone(RECORDS, "example.test.")


@pytest.fixture(scope="module")
def server() -> Iterator[Address]:
    with running_server("dns") as address:
        yield address


def ask(zone: ModuleType, message: Message) -> Message:
    reply: Message = dns_message.from_wire(zone.answer(message.to_wire()))
    assert message.is_response(reply)
    return reply


# The zone alone -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "code", "count"),
    [
        ("www.example.test", "A", "NOERROR", 2),
        ("WWW.example.TEST", "A", "NOERROR", 2),
        ("example.test", "NS", "NOERROR", 1),
        ("www.example.test", "AAAA", "NOERROR", 0),
        ("no.example.test", "A", "NXDOMAIN", 0),
        ("example.org", "A", "REFUSED", 0),
    ],
)
def test_question_gets_its_answer(
    name: str, kind: str, code: str, count: int, zone: ModuleType
) -> None:
    reply = ask(zone, query(name, kind))
    assert dns_rcode.to_text(reply.rcode()) == code
    assert sum(map(len, reply.answer)) == count


def test_long_answer_fits_or_says_that_it_does_not(zone: ModuleType) -> None:
    plain = query("many.example.test")
    assert len(zone.answer(plain.to_wire())) <= 512
    assert ask(zone, plain).flags & dns_flags.TC
    large = query("many.example.test", use_edns=0, payload=4096)
    assert len(zone.answer(large.to_wire())) <= 1232


def test_what_is_no_question_gets_no_answer(zone: ModuleType) -> None:
    wire = query("www.example.test").to_wire()
    answer = zone.answer(wire)
    assert zone.answer(answer) is None  # or two servers would talk for ever
    for bad in (b"", b"nonsense", wire[:-1], wire + b"x", bytes(12)):
        reply = zone.answer(bad)
        assert reply is None or len(reply) <= len(bad) + 20


# The server -----------------------------------------------------------------------


def test_dig_gets_answers(server: Address) -> None:
    program = real_client("dig", "bind9-dnsutils")
    host, port = server
    command = [program, f"@{host}", "-p", str(port), "+short", "+tries=1"]

    def dig(*question: str) -> list[str]:
        done = subprocess.run(
            [*command, *question],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return sorted(done.stdout.splitlines())

    assert dig("www.example.test") == ["192.0.2.1", "192.0.2.2"]
    assert dig("www.example.test", "AAAA") == ["2001:db8::1"]
    assert dig("text.example.test", "TXT") == ['"hello from fdmux"']
    assert dig("example.test", "NS") == ["ns.example.test."]
    assert dig("no.example.test") == []


def test_dnsperf_loses_no_question(server: Address, tmp_path: Path) -> None:
    program = real_client("dnsperf", "dnsperf")
    questions = tmp_path / "questions"
    questions.write_text("www.example.test A\ntext.example.test TXT\n" * 50)
    host, port = server
    done = subprocess.run(
        [program, "-s", host, "-p", str(port), "-d", str(questions), "-n", "5"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "Queries sent:         500" in done.stdout
    assert "Queries completed:    500 (100.00%)" in done.stdout


def resolve(port: int, *names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "resolve.py", "--port", str(port), *names]
    return subprocess.run(
        command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=30
    )


def test_resolver_asks_for_many_names_at_once(server: Address) -> None:
    done = resolve(server[1], "www.example.test", "no.example.test", "ns.example.test")
    assert done.stdout.splitlines() == [
        "no.example.test. nothing",
        "ns.example.test. 127.0.0.1",
        "www.example.test. 192.0.2.1, 192.0.2.2",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_resolver_hears_that_nobody_listens() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    done = resolve(port, "www.example.test")
    assert done.returncode == 1
    assert "Connection refused" in done.stdout


@pytest.mark.slow
def test_resolver_gives_up_when_nobody_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.setblocking(False)
        done = resolve(silent.getsockname()[1], "www.example.test")
        asked = 0
        while True:
            try:
                silent.recv(512)
            except BlockingIOError:
                break
            asked += 1
    assert done.stdout == "www.example.test. no answer in 2 s\n"
    assert (done.returncode, asked) == (1, 4)
