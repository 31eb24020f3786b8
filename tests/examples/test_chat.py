"""The chat server of the tutorial, as a process, with clients that talk to it."""

from __future__ import annotations

import contextlib
import runpy
import socket
from typing import TYPE_CHECKING, Self

import pytest
from tests.examples.conftest import running_server
from tests.tree import ROOT

import fdmux

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from tests.certificates import Certificates

pytestmark = pytest.mark.slow  # a process each

LONG = 60.0


class Client:
    """Says lines, and reads what comes."""

    def __init__(
        self,
        address: tuple[str, int],
        name: str = "",
        trust: ssl.SSLContext | None = None,
    ) -> None:
        sock = socket.create_connection(address, timeout=LONG)
        if trust:
            sock = trust.wrap_socket(sock, server_hostname="localhost")
        self._sock = sock
        self._lines = sock.makefile("r", encoding="utf-8", newline="\n")
        assert self.read() == "your name?"
        if name:
            self.say(name)
            assert self.read() == f"* {name} is here"

    def say(self, line: str) -> None:
        self._sock.sendall(f"{line}\n".encode())

    def read(self) -> str | None:
        """Return the next line, or None at the end."""
        return next(self._lines, "").rstrip("\n") or None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._lines.close()
        self._sock.close()


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    with running_server("chat", "--port", "0") as found:
        yield found


def test_everybody_gets_every_line(address: tuple[str, int]) -> None:
    with Client(address, "ann") as ann, Client(address, "bob") as bob:
        assert ann.read() == "* bob is here"
        bob.say("hello\r")
        assert ann.read() == bob.read() == "bob: hello"
        ann.say("hello bob")
        assert ann.read() == bob.read() == "ann: hello bob"
        with Client(address):  # says no name, so it is not in the room
            ann.say("who is there?")
            assert ann.read() == bob.read() == "ann: who is there?"
        bob.__exit__()
        assert ann.read() == "* bob has left"


def test_name_is_somebody_s_only_once(address: tuple[str, int]) -> None:
    with Client(address, "ann") as ann, Client(address) as other:
        for taken in ("ann", ""):
            other.say(taken)
            assert other.read() == "not that one; your name?"
        ann.__exit__()
        other.say("eve")
        assert other.read() in {"* eve is here", "* ann has left"}


def test_line_without_end_closes_its_client_only(address: tuple[str, int]) -> None:
    with Client(address, "ann") as ann, Client(address, "bob") as bob:
        assert ann.read() == "* bob is here"
        with contextlib.suppress(ConnectionError):  # it is closed meanwhile
            bob.say("x" * 2000)
        assert ann.read() == "* bob has left"


def test_tls_of_the_tutorial(certificates: Certificates) -> None:
    options = ("--port", "0", "--tls-cert", str(certificates.server))
    trust = certificates.client_context()
    with (
        running_server("chat", *options) as address,
        Client(address, "ann", trust) as ann,
    ):
        ann.say("hello")
        assert ann.read() == "ann: hello"


def test_server_that_ends_says_goodbye() -> None:
    # Not imported: other examples have a server.py too.
    room = runpy.run_path(str(ROOT / "examples" / "chat" / "server.py"))["Room"]()
    with fdmux.StreamServer("127.0.0.1", 0, room) as server:
        thread = server.run_in_thread()
        with Client(server.address, "ann") as ann:
            server.drain(timeout=LONG)
            assert ann.read() == "* the server is closing"
            assert ann.read() is None
        thread.join()
    assert server.stats.unfinished == 0
